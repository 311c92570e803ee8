"""Figures by a frame's place in the frames that a model codes together: the first frame, latent groups, clips.

A model whose frames differ in quality by their place repeats the difference with each group: it is seen as a flicker of
that period, or as a seam between clips. A curve of figures by frame number shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vidtok.metrics.accumulate import CurvePoints


@dataclass(frozen=True)
class PositionFigures:
    """Means of a figure by place, in which each frame counts the same."""

    period: int
    """Frames of a group."""
    first: float | None
    """The first frame's figure, where it is coded by itself; otherwise None."""
    rest: float
    """Mean of all other frames."""
    means: list[float]
    """Means of the frames at each place of a group, (period,)."""

    @property
    def spread(self) -> float:
        """The difference between the best and the worst place."""
        return max(self.means) - min(self.means)

    @property
    def seam(self) -> float:
        """The largest step between successive places, the one from a group's end to the next group included."""
        return max(abs(after - before) for before, after in pairwise([*self.means, self.means[0]]))


def by_position(curve: CurvePoints, period: int, *, first_alone: bool) -> PositionFigures | None:
    """The figures of `curve` by place in groups of `period` frames, the first of which begins at the first frame.

    With `first_alone`, it begins at the second frame. Returns None if a point of the curve is the mean of several
    frames, or there is no whole group.
    """
    lead = int(first_alone)
    if curve.width != 1 or not curve.frames:
        return None
    frames = np.asarray(curve.frames)
    values, counts = np.asarray(curve.values, np.float64), np.asarray(curve.counts, np.float64)
    inside = frames >= lead
    places = (frames[inside] - lead) % period
    sums = np.bincount(places, values[inside] * counts[inside], minlength=period)
    weights = np.bincount(places, counts[inside], minlength=period)
    if not weights.all():
        return None
    first = float(values[frames == 0][0]) if lead and frames[0] == 0 else None
    return PositionFigures(period, first, float(sums.sum() / weights.sum()), (sums / weights).tolist())
