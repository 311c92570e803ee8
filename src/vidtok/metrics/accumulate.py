"""Figures of any number of frames and videos, added up as they come; memory does not grow with the frames.

    frames -> VideoScores (one video) -> Scores (all videos) -> Estimate (mean and interval), CurvePoints

Every accumulator has `update`, `merge`, `state`, `from_state` and `result`. A state is made of plain values, ready for
JSON. Pieces of a video, in any order and of any size, and parts of a set of videos from several processes merge to the
result of the whole, up to the rounding of float64 sums.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.metrics.resampling import RESAMPLES, Interval, Method, bootstrap_interval, weighted_mean
from vidtok.metrics.unavailable import Unavailable

Floats = npt.NDArray[np.float64]
Values = Tensor | npt.ArrayLike
State = dict[str, Any]

CURVE_POINTS = 1024


@dataclass(frozen=True)
class CurvePoints:
    """A figure over the frame number."""

    width: int
    """Successive frames averaged into one point: 1, 2, 4, …"""
    frames: list[int]
    """The number of each point's first frame, from 0. Points without a value are left out."""
    values: list[float]
    counts: list[int]
    """The number of values in each point's mean; over videos of several lengths, it falls along the curve."""


class Curve:
    """Means of a figure by frame number, for one video or over several.

    Holds at most `points` sums. A frame number beyond them adds neighbouring sums in pairs, so that a point stands for
    2, 4, 8, … frames: exact up to `points` frames, coarser after that.
    """

    def __init__(self, points: int = CURVE_POINTS) -> None:
        if points < 2 or points % 2:
            raise ValueError(f"a curve has {points} points; expected an even number above 0")
        self.points = points
        self.width = 1
        self._sums = np.zeros(points)
        self._counts = np.zeros(points, np.int64)

    def update(self, first: int, values: Values) -> None:
        """Add the figures (N,) of the frames numbered from `first` on."""
        array = _floats(values)
        while len(array) and first + len(array) > self.points * self.width:
            self._coarsen()
        at = (first + np.arange(len(array))) // self.width
        np.add.at(self._sums, at, array)
        np.add.at(self._counts, at, 1)

    def merge(self, other: Curve) -> None:
        """Add the sums of `other`: other frames of the video, or another video.

        Raises `ValueError` if its `points` differ.
        """
        if other.points != self.points:
            raise ValueError(f"curves of {self.points} and {other.points} points do not merge")
        while self.width < other.width:
            self._coarsen()
        at = np.arange(self.points) // (self.width // other.width)
        np.add.at(self._sums, at, other._sums)
        np.add.at(self._counts, at, other._counts)

    def _coarsen(self) -> None:
        half = self.points // 2
        for array in (self._sums, self._counts):
            array[:half] = array[::2] + array[1::2]
            array[half:] = 0
        self.width *= 2

    def state(self) -> State:
        """Plain values for `from_state`."""
        used = int(np.flatnonzero(self._counts)[-1]) + 1 if self._counts.any() else 0
        return {
            "points": self.points,
            "width": self.width,
            "sums": self._sums[:used].tolist(),
            "counts": self._counts[:used].tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Curve:
        """An object equal to the one that gave `state`."""
        curve = cls(state["points"])
        curve.width = state["width"]
        curve._sums[: len(state["sums"])] = state["sums"]
        curve._counts[: len(state["counts"])] = state["counts"]
        return curve

    def result(self) -> CurvePoints:
        """The means of the points that have values."""
        at = np.flatnonzero(self._counts)
        means = self._sums[at] / self._counts[at]
        return CurvePoints(self.width, (at * self.width).tolist(), means.tolist(), self._counts[at].tolist())


@dataclass(frozen=True)
class Extreme:
    """The frame where a figure is lowest or highest; of several, the first."""

    frame: int
    value: float


@dataclass(frozen=True)
class Figure:
    """One metric over the frames of one video."""

    mean: float
    count: int
    """Frames with a figure: all, or for a metric of pairs of frames one fewer."""
    lowest: Extreme
    highest: Extreme


class VideoScores:
    """Metrics of one video, frame by frame."""

    def __init__(self, points: int = CURVE_POINTS) -> None:
        self.points = points
        self._series: dict[str, _Series] = {}

    def update(self, first: int, figures: Mapping[str, Values]) -> None:
        """Add figures by the metric's name, each (N,), of the frames numbered from `first` on.

        Raises `VidTokError` if one is not finite.
        """
        arrays = {metric: _floats(values) for metric, values in figures.items()}
        for metric, array in arrays.items():
            if not np.isfinite(array).all():
                frame = first + int(np.flatnonzero(~np.isfinite(array))[0])
                raise VidTokError(
                    f"{metric} of frame {frame} is {array[frame - first]}; expected finite figures: the reconstruction "
                    "holds values that are not finite. Check the checkpoint, or compute in float32"
                )
        for metric, array in arrays.items():
            if len(array):
                self._series.setdefault(metric, _Series(self.points)).update(first, array)

    def merge(self, other: VideoScores) -> None:
        """Add the figures of other frames of the same video."""
        for metric, series in other._series.items():
            self._series.setdefault(metric, _Series(self.points)).merge(series)

    def only(self, metrics: Collection[str]) -> VideoScores:
        """A copy with the figures of `metrics` alone; the original stays unchanged when the copy grows."""
        scores = VideoScores(self.points)
        for metric, series in self._series.items():
            if metric in metrics:
                scores._series[metric] = _Series(self.points)
                scores._series[metric].merge(series)
        return scores

    def state(self) -> State:
        """Plain values for `from_state`."""
        return {"points": self.points, "metrics": {name: series.state() for name, series in self._series.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> VideoScores:
        """An object equal to the one that gave `state`."""
        scores = cls(state["points"])
        scores._series = {name: _Series.from_state(part) for name, part in state["metrics"].items()}
        return scores

    def result(self) -> dict[str, Figure]:
        """The figures, by metric."""
        return {metric: series.result() for metric, series in self._series.items()}

    def curve(self, metric: str) -> CurvePoints:
        """The metric by frame number. Raises `KeyError` for one that was not measured."""
        return self._series[metric].curve.result()


class _Series:
    """One metric of one video."""

    def __init__(self, points: int) -> None:
        self.curve = Curve(points)
        self.sum = 0.0
        self.count = 0
        self.lowest = Extreme(0, math.inf)
        self.highest = Extreme(0, -math.inf)

    def update(self, first: int, array: Floats) -> None:
        self.curve.update(first, array)
        self.sum += float(array.sum())
        self.count += len(array)
        low, high = int(array.argmin()), int(array.argmax())
        self._extend(Extreme(first + low, float(array[low])), Extreme(first + high, float(array[high])))

    def merge(self, other: _Series) -> None:
        self.curve.merge(other.curve)
        self.sum += other.sum
        self.count += other.count
        self._extend(other.lowest, other.highest)

    def _extend(self, low: Extreme, high: Extreme) -> None:
        self.lowest = min(self.lowest, low, key=lambda extreme: (extreme.value, extreme.frame))
        self.highest = min(self.highest, high, key=lambda extreme: (-extreme.value, extreme.frame))

    def state(self) -> State:
        ends = {"lowest": asdict(self.lowest), "highest": asdict(self.highest)}
        return {"sum": self.sum, "count": self.count, **ends, "curve": self.curve.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Series:
        curve = Curve.from_state(state["curve"])
        series = cls(curve.points)
        series.curve, series.sum, series.count = curve, state["sum"], state["count"]
        series.lowest, series.highest = Extreme(**state["lowest"]), Extreme(**state["highest"])
        return series

    def result(self) -> Figure:
        return Figure(self.sum / self.count, self.count, self.lowest, self.highest)


@dataclass(frozen=True)
class Estimate:
    """A metric over all videos."""

    mean: float
    """Every frame of every video counts the same, as in the published figures."""
    interval: Interval | None
    """The confidence interval of `mean` over other videos of this kind; None for one video."""
    videos: int
    frames: int


class Scores:
    """Metrics over videos: a figure and a count for each video and metric, and a curve for each metric."""

    def __init__(self, points: int = CURVE_POINTS) -> None:
        self.points = points
        self._videos: dict[str, dict[str, tuple[float, int]]] = {}
        self._curves: dict[str, Curve] = {}

    def update(self, video: str, scores: VideoScores) -> None:
        """Add a whole video under its name. Raises `ValueError` if it was counted already."""
        self._add({video: {metric: (figure.mean, figure.count) for metric, figure in scores.result().items()}})
        for metric, series in scores._series.items():
            self._curves.setdefault(metric, Curve(self.points)).merge(series.curve)

    def merge(self, other: Scores) -> None:
        """Add the videos of `other`. Raises `ValueError` if one of them was counted already."""
        self._add(other._videos)
        for metric, curve in other._curves.items():
            self._curves.setdefault(metric, Curve(self.points)).merge(curve)

    def _add(self, videos: Mapping[str, dict[str, tuple[float, int]]]) -> None:
        twice = sorted(self._videos.keys() & videos.keys())
        if twice:
            raise ValueError(f"counted already: {', '.join(twice[:3])}; every video counts once")
        self._videos.update(videos)

    def state(self) -> State:
        """Plain values for `from_state`."""
        videos = {
            video: {name: list(figure) for name, figure in figures.items()} for video, figures in self._videos.items()
        }
        curves = {metric: curve.state() for metric, curve in self._curves.items()}
        return {"points": self.points, "videos": videos, "curves": curves}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scores:
        """An object equal to the one that gave `state`."""
        scores = cls(state["points"])
        for video, figures in state["videos"].items():
            scores._videos[video] = {metric: (mean, count) for metric, (mean, count) in figures.items()}
        scores._curves = {metric: Curve.from_state(part) for metric, part in state["curves"].items()}
        return scores

    @property
    def videos(self) -> list[str]:
        """The names of the videos, sorted."""
        return sorted(self._videos)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that at least one video has, in the order in which they came."""
        return list(dict.fromkeys(metric for figures in self._videos.values() for metric in figures))

    def per_video(self, metric: str) -> dict[str, tuple[float, int]]:
        """Mean and number of frames by video, sorted by name. Videos without the metric are left out."""
        return {video: self._videos[video][metric] for video in self.videos if metric in self._videos[video]}

    def result(
        self, *, confidence: float = 0.95, method: Method = "bca", resamples: int = RESAMPLES, seed: int = 0
    ) -> dict[str, Estimate]:
        """The `estimate` of every metric, by name."""
        estimates = (
            (metric, self.estimate(metric, confidence=confidence, method=method, resamples=resamples, seed=seed))
            for metric in self.metrics
        )
        return {metric: estimate for metric, estimate in estimates if isinstance(estimate, Estimate)}

    def estimate(
        self,
        metric: str,
        *,
        confidence: float = 0.95,
        method: Method = "bca",
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> Estimate | Unavailable:
        """The metric over all frames, with its interval by `bootstrap_interval` over videos.

        It does not depend on the order of the videos. Returns `Unavailable` if no video has the metric.
        """
        figures = list(self.per_video(metric).values())
        if not figures:
            return Unavailable(f"no video has a figure for {metric}")
        means, counts = zip(*figures, strict=True)
        interval = bootstrap_interval(
            means, counts, confidence=confidence, method=method, resamples=resamples, seed=seed
        )
        return Estimate(weighted_mean(means, counts), interval, len(means), sum(counts))

    def curve(self, metric: str) -> CurvePoints:
        """The mean over videos by frame number. Raises `KeyError` for a metric that no video has."""
        return self._curves[metric].result()


def merged(parts: Iterable[Scores]) -> Scores:
    """The scores of several processes as one; `parts` stay unchanged."""
    whole: Scores | None = None
    for part in parts:
        whole = Scores(part.points) if whole is None else whole
        whole.merge(part)
    return whole or Scores()


def _floats(values: Values) -> Floats:
    """Figures of any type, on any device, as a flat array."""
    array = values.detach().to("cpu", torch.float64).numpy() if isinstance(values, Tensor) else values
    return np.asarray(array, np.float64).reshape(-1)
