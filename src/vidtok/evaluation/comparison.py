"""Two results side by side: the difference of every figure, and the probability that it is chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidtok.evaluation.results import Result, ResultError
from vidtok.metrics.resampling import Interval, bootstrap_interval, permutation_p_value, weighted_mean
from vidtok.metrics.table import METRICS, Metric

SIGNIFICANT = 0.05
FEWEST_VIDEOS = 6
"""With fewer, the permutation test has no value of p below `SIGNIFICANT`."""
SAME_RATE = 1.05
"""Rates in a ratio of up to this count as the same."""


@dataclass(frozen=True)
class Difference:
    """One metric of B less that of A, over the videos that both have."""

    metric: Metric
    a: float
    b: float
    mean: float
    """Mean of B - A; every frame has the same weight, as in the results."""
    interval: Interval | None
    """95% bootstrap interval of `mean`, over videos; None for a single video."""
    p_value: float | None
    """Of the sign-flip permutation test over videos, two-sided; None for a single video."""

    @property
    def significant(self) -> bool:
        return self.p_value is not None and self.p_value < SIGNIFICANT

    @property
    def better(self) -> str | None:
        """`A` or `B`; None if they are equal."""
        if self.mean == 0:
            return None
        return "B" if (self.mean > 0) == self.metric.higher_is_better else "A"


@dataclass(frozen=True)
class Comparison:
    """Two results, compared video by video."""

    a: Result
    b: Result
    videos: list[str]
    """Names of the videos in both."""
    other_frames: list[str]
    """Of these, the videos whose frames are not the same in both."""
    differences: list[Difference]
    """By metric, in the order of `METRICS`; those without figures of single videos are left out."""

    @property
    def rates_differ(self) -> bool:
        """True if one has more bits per pixel than the other, by more than 5%."""
        rates = sorted((self.a.bits_per_pixel, self.b.bits_per_pixel))
        return rates[1] > SAME_RATE * rates[0]


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results, paired by the videos' names; the difference is B - A.

    Interval and test take videos as the unit, since frames of one video resemble each other. Raises
    `ResultError` if no video is in both.
    """
    of_a, of_b = ({video["name"]: video for video in result.videos} for result in (a, b))
    names = [name for name in of_a if name in of_b]
    if not names:
        raise ResultError(
            "the two results have no video of the same name: "
            f"{a.name} was measured on {a.videos[0]['name']}, {b.name} on {b.videos[0]['name']}; "
            "compare results of the same videos"
        )
    differences = []
    for name, metric in METRICS.items():
        both = [video for video in names if name in of_a[video]["figures"] and name in of_b[video]["figures"]]
        if both:
            differences.append(_difference(metric, [of_a[video] for video in both], [of_b[video] for video in both]))
    other = [name for name in names if of_a[name]["sha256"] != of_b[name]["sha256"]]
    return Comparison(a, b, names, other, differences)


def _difference(metric: Metric, a: list[Mapping[str, Any]], b: list[Mapping[str, Any]]) -> Difference:
    x, y = ([video["figures"][metric.name]["mean"] for video in videos] for videos in (a, b))
    frames = [video["figures"][metric.name]["count"] for video in a]
    apart = [after - before for before, after in zip(x, y, strict=True)]
    several = len(apart) > 1
    return Difference(
        metric,
        weighted_mean(x, frames),
        weighted_mean(y, frames),
        weighted_mean(apart, frames),
        bootstrap_interval(apart, frames),
        permutation_p_value(apart, frames) if several else None,
    )
