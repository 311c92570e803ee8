"""Accumulators: pieces and parts give what the whole gives, and the whole is what the published weighting says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import VidTokError
from vidtok.metrics.accumulate import Curve, Estimate, Scores, VideoScores, merged
from vidtok.metrics.resampling import bootstrap_interval
from vidtok.metrics.unavailable import Unavailable

LISTS = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


def figures(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(30, 3, frames)


def video(values: np.ndarray, **others: np.ndarray) -> VideoScores:
    scores = VideoScores(points=8)
    scores.update(0, {"psnr": values, **others})
    return scores


def plain(state: object) -> object:
    return json.loads(json.dumps(state))


def cuts(data: st.DataObject, length: int) -> list[slice]:
    """Some way of cutting `length` frames into pieces, which may be empty, in any order."""
    borders = sorted(data.draw(st.lists(st.integers(0, length), max_size=5)))
    pieces = [slice(a, b) for a, b in zip([0, *borders], [*borders, length], strict=True)]
    return data.draw(st.permutations(pieces))


@settings(deadline=None, max_examples=60)
@given(values=LISTS, data=st.data())
def test_a_video_in_pieces_scores_as_a_whole(values: list[float], data: st.DataObject) -> None:
    array = np.array(values)
    whole = video(array)
    pieces = VideoScores(points=8)
    for piece in cuts(data, len(array)):
        if data.draw(st.booleans()):
            pieces.update(piece.start, {"psnr": torch.from_numpy(array[piece])})
        else:
            part = VideoScores(points=8)
            part.update(piece.start, {"psnr": array[piece]})
            pieces.merge(VideoScores.from_state(plain(part.state())))
    ours, expected = pieces.result()["psnr"], whole.result()["psnr"]
    assert ours.mean == pytest.approx(array.mean(), abs=1e-9)
    assert ours.count == len(array)
    assert (ours.lowest, ours.highest) == (expected.lowest, expected.highest)
    assert ours.lowest.frame == array.argmin()
    assert ours.highest.frame == array.argmax()
    curve, expected_curve = pieces.curve("psnr"), whole.curve("psnr")
    assert (curve.width, curve.frames, curve.counts) == (
        expected_curve.width, expected_curve.frames, expected_curve.counts
    )  # fmt: skip
    assert curve.values == pytest.approx(expected_curve.values, abs=1e-9)


@pytest.mark.parametrize(("frames", "width"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 4), (33, 8), (1000, 128)])
def test_a_curve_of_any_length_has_few_points(frames: int, width: int) -> None:
    array = figures(0, frames)
    curve = Curve(points=8)
    curve.update(0, array)
    points = curve.result()
    assert points.width == width
    assert points.frames == list(range(0, frames, width))
    assert points.values == pytest.approx([array[i : i + width].mean() for i in points.frames])
    assert points.counts == [len(array[i : i + width]) for i in points.frames]


def test_curves_of_videos_of_different_length_merge() -> None:
    short, long = figures(0, 5), figures(1, 30)
    for first, second in ((short, long), (long, short)):
        curve, other = Curve(8), Curve(8)
        curve.update(0, first)
        other.update(0, second)
        curve.merge(other)
        points = curve.result()
        assert points.width == 4
        assert points.counts == [8, 5, 4, 4, 4, 4, 4, 2]
        assert points.values[0] == pytest.approx(np.concatenate([short[:4], long[:4]]).mean())
        assert points.values[1] == pytest.approx(np.concatenate([short[4:], long[4:8]]).mean())
        assert points.values[7] == pytest.approx(long[28:].mean())


def test_a_curve_leaves_out_what_has_no_value() -> None:
    curve = Curve(8)
    curve.update(1, [5.0, 6.0])
    curve.update(6, [7.0])
    assert curve.result().frames == [1, 2, 6]
    assert curve.result().values == [5, 6, 7]
    assert Curve.from_state(plain(curve.state())).result() == curve.result()
    assert Curve(8).result().frames == []
    assert Curve.from_state(plain(Curve(8).state())).result().frames == []


def test_curves_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="curves of 8 and 16 points do not merge"):
        Curve(8).merge(Curve(16))
    for points in (0, 7):
        with pytest.raises(ValueError, match="expected an even number above 0"):
            Curve(points)


def test_the_mean_is_weighted_as_published() -> None:
    """Means of batches of 16 frames, each counted once for every frame in it."""
    arrays = [figures(seed, frames) for seed, frames in enumerate((17, 40, 5))]
    scores = Scores(points=8)
    total, counted = 0.0, 0
    for number, array in enumerate(arrays):
        scores.update(f"{number}.mp4", video(array))
        for start in range(0, len(array), 16):
            batch = array[start : start + 16]
            total += batch.mean() * len(batch)
            counted += len(batch)
    estimate = scores.estimate("psnr")
    assert isinstance(estimate, Estimate)
    assert estimate.mean == pytest.approx(total / counted)
    assert (estimate.videos, estimate.frames) == (3, 62)
    assert estimate.interval == bootstrap_interval([array.mean() for array in arrays], [17, 40, 5])


@settings(deadline=None, max_examples=30)
@given(data=st.data(), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=7))
def test_parts_of_processes_give_what_one_gives(data: st.DataObject, lengths: list[int]) -> None:
    videos = {f"{number}.mp4": video(figures(number, length)) for number, length in enumerate(lengths)}
    whole = Scores(points=8)
    parts = [Scores(points=8) for _ in range(3)]
    for name, scores in videos.items():
        whole.update(name, scores)
    for name in data.draw(st.permutations(sorted(videos))):
        parts[data.draw(st.integers(0, 2))].update(name, videos[name])
    together = merged(Scores.from_state(plain(part.state())) for part in parts)
    assert together.videos == whole.videos
    assert together.per_video("psnr") == whole.per_video("psnr")
    assert together.result(resamples=100) == whole.result(resamples=100)
    assert together.curve("psnr").frames == whole.curve("psnr").frames
    assert together.curve("psnr").values == pytest.approx(whole.curve("psnr").values)
    assert merged([]).videos == []


def test_one_video_has_a_mean_and_no_interval() -> None:
    scores = Scores(points=8)
    scores.update("a.mp4", video(np.array([20.0, 30.0])))
    assert scores.result() == {"psnr": Estimate(25.0, None, 1, 2)}


def test_metrics_may_have_figures_for_fewer_frames_or_videos() -> None:
    scores = Scores(points=8)
    scores.update("a.mp4", video(figures(0, 4), flicker=np.array([1.0, 2.0, 3.0])))
    scores.update("b.mp4", video(figures(1, 1), flicker=np.array([])))
    assert scores.metrics == ["psnr", "flicker"]
    assert scores.per_video("flicker") == {"a.mp4": (2.0, 3)}
    estimate = scores.estimate("flicker")
    assert isinstance(estimate, Estimate)
    assert (estimate.mean, estimate.videos, estimate.frames) == (2, 1, 3)
    assert scores.estimate("lpips") == Unavailable("no video has a figure for lpips")
    assert str(scores.estimate("lpips")) == "no video has a figure for lpips"
    assert list(scores.result()) == ["psnr", "flicker"]


def test_no_video_counts_twice() -> None:
    scores = Scores(points=8)
    scores.update("a.mp4", video(figures(0, 4)))
    with pytest.raises(ValueError, match=r"counted already: a\.mp4; every video counts once"):
        scores.update("a.mp4", video(figures(0, 4)))
    with pytest.raises(ValueError, match=r"counted already: a\.mp4"):
        scores.merge(Scores.from_state(scores.state()))
    estimate = scores.estimate("psnr")
    assert isinstance(estimate, Estimate)
    assert estimate.frames == 4


def test_figures_that_are_not_finite_are_refused_whole() -> None:
    scores = VideoScores()
    with pytest.raises(VidTokError, match=r"ssim of frame 7 is nan; expected finite figures.*compute in float32"):
        scores.update(5, {"psnr": [1.0, 2.0, 3.0], "ssim": [0.5, 0.5, float("nan")]})
    assert scores.result() == {}


def test_memory_does_not_grow_with_frames() -> None:
    scores = VideoScores()
    for start in range(0, 200_000, 2_000):
        scores.update(start, {"psnr": figures(start, 2_000)})
    assert scores.result()["psnr"].count == 200_000
    assert len(json.dumps(scores.state())) < 60_000
