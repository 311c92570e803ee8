"""Uncertainty of means over videos: bootstrap confidence intervals, and a permutation test for paired differences.

Videos are the unit: frames of one video resemble each other, and resampling frames would give far too narrow
intervals. All random numbers come from the seed; the same input gives the same output.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Method = Literal["bca", "percentile"]

RESAMPLES = 10_000
_BLOCK = 1 << 20
"""Draws that are held at a time."""
_TIE = 1e-12
"""Relative difference below which two sums of the same numbers in another order count as equal."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean."""

    low: float
    high: float
    confidence: float
    """The share of such intervals that hold the true mean, 0 to 1."""
    method: Method
    resamples: int
    seed: int


def weighted_mean(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Sum of weight x value over the sum of weights; without weights, the plain mean.

    Raises `ValueError` as `bootstrap_interval` does.
    """
    value, weight = _checked(values, weights)
    return float(value @ weight / weight.sum())


def bootstrap_interval(
    values: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    method: Method = "bca",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """The bootstrap interval of `weighted_mean`, drawing videos with replacement, each with its weight.

    Follows Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.

    Args:
        values: one figure a video, (V,).
        weights: the weight of each, above 0, such as its number of frames; None: all the same.
        confidence: between 0 and 1.
        method: "percentile" takes the quantiles of the resampled means; "bca" corrects them for bias and for spread
            that changes with the mean, by the jackknife, which matters where there are few videos.
        resamples: number of means to draw.
        seed: seed of the draws.

    Returns:
        The interval; None for a single video, which says nothing about spread.

    Raises:
        ValueError: no values, values or weights that are not finite, weights of another number or not above 0, or
            another argument out of its range.
    """
    value, weight = _checked(values, weights)
    if not 0 < confidence < 1 or resamples < 1 or method not in ("bca", "percentile"):
        raise ValueError(f"confidence {confidence}, resamples {resamples}, method {method!r}; out of range")
    if len(value) < 2:
        return None
    means = np.sort(np.concatenate(list(_resampled_means(value, weight, resamples, seed))))
    tail = (1 - confidence) / 2
    levels = (tail, 1 - tail)
    if method == "bca":
        levels = _corrected(levels, value, weight, means)
    low, high = (float(np.quantile(means, level)) for level in levels)
    return Interval(low, high, confidence, method, resamples, seed)


def permutation_p_value(
    differences: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """The probability of a weighted mean at least as far from 0, if the sign of every video's difference were chance.

    The paired, two-sided sign-flip test (Fisher 1935): exact where 2^V is at most `resamples`, else by that many random
    flips, and then at least 1 / (resamples + 1). Raises `ValueError` as `bootstrap_interval` does.
    """
    value, weight = _checked(differences, weights)
    terms = value * weight
    reached = abs(terms.sum()) - _TIE * np.abs(terms).sum()
    count = len(terms)
    if count < 63 and 2**count <= resamples:
        flips = (np.array(signs) for signs in itertools.product((-1.0, 1.0), repeat=count))
        return float(sum(abs(terms @ signs) >= reached for signs in flips) / 2**count)
    generator = np.random.default_rng(seed)
    hits = 0
    for rows in _blocks(resamples, count):
        signs = generator.integers(0, 2, (rows, count)) * 2 - 1
        hits += int((np.abs(signs @ terms) >= reached).sum())
    return (hits + 1) / (resamples + 1)


def _checked(values: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    value = np.asarray(values, np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, np.float64)
    if value.ndim != 1 or not len(value) or value.shape != weight.shape:
        raise ValueError(f"values {value.shape} and weights {weight.shape}; expected (V,) and (V,), V above 0")
    if not (np.isfinite(value).all() and np.isfinite(weight).all() and (weight > 0).all()):
        raise ValueError("values and weights must be finite, and weights above 0")
    return value, weight


def _blocks(resamples: int, count: int) -> Iterator[int]:
    """Numbers of resamples that together make up `resamples`, each small enough to be drawn at once."""
    rows = max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _resampled_means(value: Floats, weight: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    product = value * weight
    for rows in _blocks(resamples, len(value)):
        drawn = generator.integers(0, len(value), (rows, len(value)))
        yield product[drawn].sum(1) / weight[drawn].sum(1)


def _corrected(levels: tuple[float, float], value: Floats, weight: Floats, means: Floats) -> tuple[float, float]:
    """The quantiles that stand for `levels` once bias and acceleration are taken into account (BCa)."""
    normal = NormalDist()
    mean = value @ weight / weight.sum()
    close = _TIE * max(1.0, abs(mean))
    below = ((means < mean - close).sum() + 0.5 * (np.abs(means - mean) <= close).sum()) / len(means)
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means))))
    product = value * weight
    without = (product.sum() - product) / (weight.sum() - weight)
    spread = without.mean() - without
    scale = float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / (6 * scale) if scale > 0 else 0.0

    def corrected(level: float) -> float:
        shifted = bias + normal.inv_cdf(level)
        return normal.cdf(bias + shifted / (1 - acceleration * shifted))

    return corrected(levels[0]), corrected(levels[1])
