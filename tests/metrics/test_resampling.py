"""Intervals and p-values against SciPy, closed forms and what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from vidtok.metrics import resampling
from vidtok.metrics.resampling import bootstrap_interval, permutation_p_value, weighted_mean


def skewed(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values with a long tail, and weights."""
    generator = np.random.default_rng(seed)
    return generator.exponential(size=count) + 20, generator.integers(1, 300, count).astype(float)


def mean_of(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return (values * weights).sum(axis) / weights.sum(axis)


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("count", [12, 60])
def test_intervals_agree_with_scipy(method: str, count: int) -> None:
    values, weights = skewed(count)
    ours = bootstrap_interval(values, weights, method=method, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values, weights), mean_of, paired=True, vectorized=True, method=method, n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert ours is not None
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_bca_moves_the_percentile_interval_towards_the_tail() -> None:
    values, weights = skewed(12)
    bca = bootstrap_interval(values, weights)
    percentile = bootstrap_interval(values, weights, method="percentile")
    assert bca is not None
    assert percentile is not None
    assert bca.low > percentile.low
    assert bca.high > percentile.high


@pytest.mark.parametrize("confidence", [0.68, 0.95])
def test_many_normal_values_give_the_textbook_interval(confidence: float) -> None:
    values = np.random.default_rng(0).normal(30, 2, 400)
    interval = bootstrap_interval(values, confidence=confidence)
    assert interval is not None
    half = scipy.stats.norm.ppf(0.5 + confidence / 2) * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        interval = bootstrap_interval(generator.exponential(size=30), confidence=0.9, resamples=500, seed=seed)
        assert interval is not None
        held += interval.low <= 1 <= interval.high
    assert 0.8 < held / 200 < 0.96


def test_equal_values_have_an_interval_without_width() -> None:
    interval = bootstrap_interval([3.0, 3.0, 3.0], [1, 2, 3])
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(3), pytest.approx(3))


def test_one_video_has_no_interval() -> None:
    assert bootstrap_interval([3.0]) is None


def test_the_seed_fixes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = skewed(20)
    first = bootstrap_interval(values, weights, seed=5)
    assert bootstrap_interval(values, weights, seed=5) == first
    assert bootstrap_interval(values, weights, seed=6) != first
    assert first is not None
    monkeypatch.setattr(resampling, "_BLOCK", 1000)  # drawn in pieces
    pieces = bootstrap_interval(values, weights, seed=5)
    assert pieces is not None
    width = first.high - first.low
    assert pieces.low == pytest.approx(first.low, abs=0.05 * width)


def test_weights_weigh() -> None:
    assert weighted_mean([10, 40], [3, 1]) == 17.5
    assert weighted_mean([10, 40]) == 25
    interval = bootstrap_interval([10.0, 11.0] * 5 + [40.0], [1000] * 10 + [1], method="percentile")
    assert interval is not None
    assert 10 < interval.low < interval.high < 11.1


def test_few_pairs_are_tested_exactly() -> None:
    differences, weights = np.array([1.5, -0.2, 0.9, 2.0, 0.4]), np.array([10.0, 20, 5, 10, 40])
    terms = differences * weights
    sums = [abs(terms @ np.array(signs)) for signs in itertools.product((-1, 1), repeat=5)]
    expected = np.mean(np.array(sums) >= abs(terms.sum()) - 1e-9)
    assert permutation_p_value(differences, weights) == pytest.approx(expected)
    assert permutation_p_value([1.0, 1, 1, 1, 1]) == 2 / 32
    assert permutation_p_value([1.0, -1.0]) == 1


def test_many_pairs_agree_with_scipy() -> None:
    differences = np.random.default_rng(3).normal(0.35, 1, 40)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(0)
    ).pvalue
    assert 0.01 < theirs < 0.2
    assert permutation_p_value(differences) == pytest.approx(theirs, abs=0.012)
    assert permutation_p_value(differences + 5) == 1 / 10_001


def test_chance_is_called_significant_as_often_as_it_should_be() -> None:
    generator = np.random.default_rng(0)
    low = [permutation_p_value(generator.normal(size=9)) <= 0.1 for _ in range(300)]
    assert 0.05 < np.mean(low) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"values \(0,\) and weights \(0,\); expected \(V,\)"),
        (([1.0, 2.0], [1.0]), r"values \(2,\) and weights \(1,\)"),
        (([1.0, float("nan")],), "must be finite"),
        (([1.0, 2.0], [1.0, 0.0]), "weights above 0"),
    ],
)
def test_values_that_cannot_be_used(arguments: tuple[list[float], ...], message: str) -> None:
    for function in (bootstrap_interval, permutation_p_value, weighted_mean):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_arguments_out_of_range() -> None:
    for wrong in ({"confidence": 1.0}, {"resamples": 0}, {"method": "normal"}):
        with pytest.raises(ValueError, match="out of range"):
            bootstrap_interval([1.0, 2.0], **wrong)
