"""Fréchet distance against closed forms and SciPy; running sums and clips, however they are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import VidTokError
from vidtok.metrics.fvd import ClipDistance, ClipFeatures, FeatureStatistics, frechet_distance, fvd, resized
from vidtok.metrics.unavailable import Unavailable


def features(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Correlated features whose directions differ much in spread, as those of a network do."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(size, size)) * generator.exponential(size=size)
    return generator.normal(size=(count, size)) @ mixing + generator.normal(size=size) * 3


def statistics(array: np.ndarray) -> FeatureStatistics:
    result = FeatureStatistics(array.shape[1])
    result.update(array)
    return result


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula with the root of the product, as most implementations compute it."""
    sigma_a, sigma_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(sigma_a @ sigma_b)
    step = a.mean(0) - b.mean(0)
    return float(step @ step + np.trace(sigma_a) + np.trace(sigma_b) - 2 * np.trace(root).real)


@pytest.mark.parametrize(("size", "count"), [(8, 100), (64, 200), (400, 900)])
def test_distances_agree_with_scipy(size: int, count: int) -> None:
    a, b = features(count, size), features(count // 2 + size, size, seed=1)
    figure = fvd(statistics(a), statistics(b))
    assert isinstance(figure, ClipDistance)
    assert figure.distance == pytest.approx(by_scipy(a, b), rel=1e-7)
    assert figure.clips == count


@pytest.mark.parametrize("size", [1, 5, 50])
def test_gaussians_with_commuting_covariances_have_a_closed_form(size: int) -> None:
    generator = np.random.default_rng(size)
    axes = np.linalg.qr(generator.normal(size=(size, size)))[0]
    first, second = generator.exponential(size=(2, size)) * 10
    mean_a, mean_b = generator.normal(size=(2, size))
    expected = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    distance = frechet_distance(mean_a, axes * first @ axes.T, mean_b, axes * second @ axes.T)
    assert distance == pytest.approx(expected, rel=1e-10)


def test_singular_covariances_have_a_closed_form() -> None:
    """Spread in different directions shares nothing: the traces add up."""
    size = 40
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    first, second = np.zeros(size), np.zeros(size)
    first[:10], second[5:20] = 4, 9
    distance = frechet_distance(np.zeros(size), axes * first @ axes.T, np.zeros(size), axes * second @ axes.T)
    assert distance == pytest.approx(((np.sqrt(first) - np.sqrt(second)) ** 2).sum(), rel=1e-10)
    assert frechet_distance(np.ones(3), np.zeros((3, 3)), np.zeros(3), np.zeros((3, 3))) == pytest.approx(3)


def test_fewer_clips_than_features() -> None:
    a, b = features(20, 400), features(25, 400, seed=1)
    figure, swapped = fvd(statistics(a), statistics(b)), fvd(statistics(b), statistics(a))
    assert isinstance(figure, ClipDistance)
    assert isinstance(swapped, ClipDistance)
    assert figure.distance == pytest.approx(swapped.distance, rel=1e-9)
    # The same trace from the small side: the singular values of the product of the centred features.
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum((x**2).sum() for x in centred) - 2 * shared
    assert figure.distance == pytest.approx(expected, rel=1e-7)


def test_equal_sets_are_at_no_distance_and_a_shift_at_its_square() -> None:
    a = features(30, 400)
    scale = np.trace(np.cov(a, rowvar=False))
    same, shifted = fvd(statistics(a), statistics(a)), fvd(statistics(a), statistics(a + 2))
    assert isinstance(same, ClipDistance)
    assert isinstance(shifted, ClipDistance)
    assert 0 <= same.distance < 1e-10 * scale
    assert shifted.distance == pytest.approx(400 * 4, abs=1e-9 * scale)


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda lengths: sum(lengths) > 1))
def test_running_sums_give_mean_and_covariance(lengths: list[int]) -> None:
    array = features(sum(lengths), 6) + 1e6  # a mean far off costs sums of squares their precision
    running, merged = FeatureStatistics(6), FeatureStatistics(6)
    for piece in np.split(array, np.cumsum(lengths)[:-1]):
        running.update(piece)
        part = FeatureStatistics(6)
        part.update(piece)
        merged.merge(part)
    for result in (running, merged):
        assert result.count == len(array)
        np.testing.assert_allclose(result.mean, array.mean(0), rtol=1e-12)
        np.testing.assert_allclose(result.covariance, np.cov(array, rowvar=False), rtol=1e-6, atol=1e-6)


def test_a_state_survives_a_file(tmp_path: Path) -> None:
    whole = statistics(features(9, 6))
    np.savez(tmp_path / "state.npz", **whole.state())
    with np.load(tmp_path / "state.npz") as state:
        again = FeatureStatistics.from_state(state)
    for result in (again, FeatureStatistics.from_state(whole.state())):
        assert result.count == 9
        assert np.array_equal(result.mean, whole.mean)
        assert np.array_equal(result.covariance, whole.covariance)


def test_too_few_clips_have_no_distance() -> None:
    none, one, two = FeatureStatistics(6), statistics(features(1, 6)), statistics(features(2, 6))
    assert fvd(one, two) == Unavailable(
        "FVD expects at least 2 clips of 16 frames, and there is 1; give more videos or longer ones"
    )
    unavailable = fvd(two, none)
    assert isinstance(unavailable, Unavailable)
    assert "and there are none" in unavailable.reason
    with pytest.raises(ValueError, match="1 features have no covariance; expected at least 2"):
        _ = one.covariance


def test_features_that_cannot_be_used() -> None:
    with pytest.raises(ValueError, match=r"features are \(3, 5\); expected \(N, 6\)"):
        FeatureStatistics(6).update(np.zeros((3, 5)))
    with pytest.raises(VidTokError, match="features are not finite; expected finite video"):
        FeatureStatistics(2).update(np.array([[1.0, np.inf]]))
    with pytest.raises(ValueError, match="features of 6 and 5 values do not merge"):
        FeatureStatistics(6).merge(FeatureStatistics(5))
    with pytest.raises(ValueError, match=r"expected two of \(D,\) and two of \(D, D\)"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(3))


class Sums(torch.nn.Module):
    """In I3D's place: the brightness of a clip's first and last frame."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(clip.shape))
        ends = clip[:, 0, [0, -1]].mean(dim=(2, 3))
        return F.pad(ends, (0, 398)) * self.scale


@settings(deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(0, 13), min_size=1, max_size=5))
def test_clips_are_the_same_however_a_video_is_cut(lengths: list[int]) -> None:
    total = sum(lengths)
    video = torch.arange(float(total)).view(1, 1, -1, 1, 1).expand(1, 3, -1, 8, 10)
    network = Sums()
    clips = ClipFeatures(network, clip_frames=9)
    found = np.concatenate([clips.update(piece) for piece in video.split(lengths, 2)])
    assert found.shape == (total // 9, 400)
    assert found[:, 0].tolist() == [9 * i for i in range(total // 9)]
    assert found[:, 1].tolist() == [9 * i + 8 for i in range(total // 9)]
    assert set(network.shapes) <= {(1, 3, 9, 224, 224)}
    assert clips.end_video() == total % 9
    assert clips.update(video[:, :, :8]).shape == (0, 400)


def test_frames_are_resized_by_bilinear_interpolation_of_areas() -> None:
    ramp = torch.arange(112.0).view(1, 1, 1, -1).expand(1, 3, 112, 112)
    enlarged = resized(ramp)
    assert enlarged.shape == (1, 3, 224, 224)
    assert enlarged[0, 0, 5, :4].tolist() == [0, 0.25, 0.75, 1.25]
    picture = torch.rand(1, 3, 224, 224)
    assert torch.equal(resized(picture), picture)


def test_clips_that_do_not_fit_the_network() -> None:
    with pytest.raises(VidTokError, match="FVD was asked for on clips of 8 frames; I3D expects at least 9"):
        ClipFeatures(Sums(), clip_frames=8)
    with pytest.raises(VidTokError, match=r"video is \(2, 3, 4, 8, 8\); FVD expects \(1, 3, T, H, W\)"):
        ClipFeatures(Sums()).update(torch.zeros(2, 3, 4, 8, 8))
