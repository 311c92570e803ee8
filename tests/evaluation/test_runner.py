from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.models import NO_NETWORKS, subject
from tiny import FSQ_1_0, FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, clip_pairs, stream_pairs, tiny_model, write_video
from twin import SIDE, tiny_twin
from vidtok import VidTokError
from vidtok.evaluation.codecs import CODECS, RateSearch
from vidtok.evaluation.highlights import PICTURES, error_picture
from vidtok.evaluation.linear import BlockShape, BlockTransform
from vidtok.evaluation.measuring import Measured, Tally
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.runner import Outcome, Runner
from vidtok.evaluation.storage import PartStore
from vidtok.evaluation.subjects import BitTarget, CodecSubject, Frames, ModelSubject, TransformSubject
from vidtok.evaluation.videos import find_videos
from vidtok.metrics.i3d import I3D
from vidtok.metrics.image import psnr
from vidtok.metrics.networks import Networks
from vidtok.metrics.unavailable import Unavailable
from vidtok.runtime.passes import Pair
from vidtok.video import VideoWriter, read_video, source, to_float

SMALL = EvaluationOptions(height=64, width=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("videos")
    for index, frames in enumerate((11, 6)):
        write_video(place / f"{index}.mp4", frames, 64, 72)
    return place


def runner(
    folder: Path, options: EvaluationOptions = SMALL, store: PartStore | None = None, workers: int = 2
) -> Runner:
    return Runner(find_videos(folder), options, NO_NETWORKS, store=store, workers=workers)


def expected(pairs: Iterator[Pair]) -> tuple[float, int]:
    """Mean PSNR and number of frames."""
    scores = torch.cat([psnr(pair.reconstruction, to_float(pair.source))[0] for pair in pairs])
    return scores.mean().item(), len(scores)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_0, KL_NONCAUSAL])
@pytest.mark.parametrize(("clip_frames", "workers"), [(None, 3), (4, 1)])
def test_figures_are_those_of_the_frames(name: str, clip_frames: int | None, workers: int, folder: Path) -> None:
    options = EvaluationOptions(height=64, width=64, clip_frames=clip_frames)
    outcome = runner(folder, options, workers=workers).measure(subject(name))
    assert [video.name for video in outcome.measured] == ["0.mp4", "1.mp4"]
    assert outcome.unreadable == []
    model = tiny_model(name)
    for video in outcome.measured:
        frames = read_video(folder / video.name, height=64, width=64).numpy()
        if model.is_causal and clip_frames is None:
            pairs = stream_pairs(model, [frames])
        else:
            length = 16 if clip_frames is None else clip_frames + model.is_causal
            pairs = clip_pairs(model, [frames[at : at + length] for at in range(0, len(frames), length)])
        mean, count = expected(pairs)
        assert video.scores.result()["psnr"].mean == pytest.approx(mean, abs=1e-4)
        assert (video.frames, video.height, video.width) == (count, 64, 64)
        assert video.seconds > 0


def test_bits_and_codes_are_counted(folder: Path) -> None:
    for name, latent_frames in ((FSQ_1_1, (3, 2)), (FSQ_1_0, (4, 3))):
        model = subject(name)
        for video, count in zip(runner(folder).measure(model).measured, latent_frames, strict=True):
            assert video.tally.codebook is not None
            figures = video.tally.codebook.result()
            assert figures.tokens == count * 8 * 8
            assert video.tally.bits == pytest.approx(figures.tokens * np.log2(figures.size))
            assert video.bits_per_pixel == pytest.approx(video.tally.bits / (video.frames * 64 * 64))
    for video, count in zip(runner(folder).measure(subject(KL_1_1)).measured, (4, 3), strict=True):
        assert video.tally.codebook is None
        assert video.tally.bits == 16 * 4 * count * 8 * 8


def test_a_model_of_the_other_family(folder: Path) -> None:
    model = ModelSubject(tiny_twin())
    options = EvaluationOptions(height=SIDE, width=SIDE)
    for video in runner(folder, options).measure(model).measured:
        assert video.tally.bits == 16 * model.model.config.z_channels
        frames = read_video(folder / video.name, height=SIDE, width=SIDE).numpy()
        mean, _ = expected(clip_pairs(model.model, [frames]))
        assert video.scores.result()["psnr"].mean == pytest.approx(mean, abs=1e-4)
    assert model.block_shape() is None
    with pytest.raises(VidTokError, match=f"frames are 64 x 64 pixels; twin takes only {SIDE} x {SIDE}"):
        runner(folder).measure(model)


def test_what_was_done_is_not_done_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PartStore(tmp_path)

    def interrupt(done: float) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner(folder, store=store, workers=1).measure(subject(KL_1_1), interrupt)
    first = runner(folder, store=store).measure(subject(KL_1_1))
    calls = []
    monkeypatch.setattr(ModelSubject, "pairs", lambda *arguments: calls.append(arguments))
    again = runner(folder, store=store).measure(subject(KL_1_1))
    assert calls == []
    for one, other in zip(first.measured, again.measured, strict=True):
        assert one.scores.state() == other.scores.state()
        assert (one.sha256, one.tally.bits, one.fps) == (other.sha256, other.tally.bits, other.fps)
    # Which video keeps a frame depends on the order in which they were done; the best and the worst of all do not.
    assert first.highlights() == again.highlights()
    assert set(again.highlights()) == {"best", "worst"}


def test_an_interrupted_run_keeps_the_videos_that_were_done(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: float) -> None:
        if 1 < done < 2:
            raise KeyboardInterrupt

    store = PartStore(tmp_path)
    write_video(tmp_path / "0.mp4", 11, 64, 64)
    write_video(tmp_path / "1.mp4", 70, 64, 64)
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path, store=store, workers=1).measure(subject(KL_1_1), interrupt)
    assert len(list((tmp_path / "parts").iterdir())) == 1


@pytest.mark.parametrize("change", ["options", "weights", "file"])
def test_other_conditions_are_measured_anew(change: str, tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    video = write_video(tmp_path / "a.mp4", 5, 64, 64)
    runner(tmp_path, store=store).measure(subject(KL_1_1))
    model, options = subject(KL_1_1), SMALL
    if change == "options":
        options = EvaluationOptions(height=64, width=64, max_frames=4)
    elif change == "weights":
        next(model.model.parameters()).add_(0.1)
    else:
        write_video(video, 6, 64, 64)
    changed = runner(tmp_path, options, store=store)
    assert store.load(changed.key(model, changed.videos[0])) is None


def test_a_damaged_part_is_measured_anew(folder: Path, tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    whole = runner(folder, store=store).measure(subject(KL_1_1))
    for part in (tmp_path / "parts").iterdir():
        part.write_bytes(part.read_bytes()[:200])
    again = runner(folder, store=store).measure(subject(KL_1_1))
    assert [video.sha256 for video in again.measured] == [video.sha256 for video in whole.measured]


def test_unreadable_videos_are_listed_and_the_rest_is_measured(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    content = write_video(tmp_path / "b.mp4", 60, 64, 64).read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) * 3 // 4])
    write_video(tmp_path / "c.mp4", 5, 64, 64)
    both = runner(tmp_path)
    for model in (subject(KL_1_1), subject(FSQ_1_0)):
        outcome = both.measure(model)
        assert [video.name for video in outcome.measured] == ["c.mp4"]
        assert [video.name for video in outcome.unreadable] == ["a.mp4", "b.mp4"]
        assert "is neither a video nor a picture" in outcome.unreadable[0].reason
    truncated = runner(tmp_path, EvaluationOptions(height=64, width=64, allow_truncated=True)).measure(subject(KL_1_1))
    assert [video.name for video in truncated.measured] == ["b.mp4", "c.mp4"]


@pytest.mark.parametrize("at", ["__init__", "frames"])
def test_whatever_one_video_brings_about_the_rest_is_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", 5, 64, 64)
    whole = getattr(source.FileSource, at)

    def failing(self: source.FileSource, *arguments: Any, **named: Any) -> Any:
        if "b.mp4" in str(getattr(self, "path", arguments[0])):
            raise IndexError("tuple index out of range")
        return whole(self, *arguments, **named)

    monkeypatch.setattr(source.FileSource, at, failing)
    outcome = runner(tmp_path).measure(subject(KL_1_1))
    assert [video.name for video in outcome.measured] == ["a.mp4", "c.mp4"]
    assert [(video.name, video.reason) for video in outcome.unreadable] == [
        (
            "b.mp4",
            f"{tmp_path / 'b.mp4'} cannot be read (IndexError: tuple index out of range); get an undamaged copy, or "
            "convert it",
        )
    ]


def test_values_that_are_not_finite_are_an_error(folder: Path) -> None:
    model = subject(KL_1_1)
    next(model.model.parameters()).fill_(float("nan"))
    with pytest.raises(VidTokError, match="gives values that are not finite in float32"):
        runner(folder).measure(model)


def test_sampling_is_repeatable_video_by_video(folder: Path) -> None:
    def run(name: str, options: EvaluationOptions) -> Outcome:
        return runner(folder, options).measure(subject(name))

    drawn = EvaluationOptions(height=64, width=64, sample=True)
    for one, other in zip(run(KL_1_0, drawn).measured, run(KL_1_0, drawn).measured, strict=True):
        assert one.scores.state() == other.scores.state()
    reseeded = run(KL_1_0, EvaluationOptions(height=64, width=64, sample=True, seed=1))
    assert reseeded.measured[0].scores.state() != run(KL_1_0, drawn).measured[0].scores.state()


def test_a_codec_meets_the_bits_of_each_video(folder: Path) -> None:
    wanted = {"0.mp4": 9_000.0, "1.mp4": 16_000.0}
    searches: dict[str, RateSearch] = {}
    codec = CodecSubject(CODECS["h264"], BitTarget(0.2, wanted, ("a model",)), searches)
    assert codec.name == "h264@0.2bpp"
    for video in runner(folder).measure(codec).measured:
        assert video.tally.bits == pytest.approx(wanted[video.name], rel=0.05)
        assert 1 <= video.tally.details["crf"] <= 51
    rate = CodecSubject(CODECS["h264"], BitTarget(0.3), searches)
    assert not rate.show
    for video in runner(folder).measure(rate).measured:
        assert video.bits_per_pixel == pytest.approx(0.3, rel=0.1)
        assert video.highlights == {}


def test_a_long_video_is_read_anew_for_each_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = CodecSubject(CODECS["h264"], BitTarget(0.3), {})
    held = runner(folder).measure(codec)
    monkeypatch.setattr("vidtok.evaluation.subjects._HELD_BYTES", 0)
    read = runner(folder).measure(CodecSubject(CODECS["h264"], BitTarget(0.3), {}))
    for one, other in zip(held.measured, read.measured, strict=True):
        assert one.sha256 == other.sha256
        assert one.frames == other.frames
        assert one.bits_per_pixel == pytest.approx(other.bits_per_pixel, rel=0.1)


def test_the_transform_has_as_many_values_as_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(KL_1_1)
    shape = model.block_shape()
    assert shape == BlockShape(4, 8, 4)
    fitted = BlockTransform.fit(shape, [to_float(read_video(folder / "0.mp4", height=64).numpy())])
    monkeypatch.setattr(BlockTransform, "fit_synthetic", classmethod(lambda cls, shape: fitted))
    for clip_frames in (None, 4):
        measure = runner(folder, EvaluationOptions(height=64, width=64, clip_frames=clip_frames)).measure
        transform = measure(TransformSubject(shape, ("a model",)))
        for one, other in zip(measure(model).measured, transform.measured, strict=True):
            assert one.tally.bits == other.tally.bits
            assert one.sha256 == other.sha256
            assert other.scores.result()["psnr"].mean > one.scores.result()["psnr"].mean


class Fading(TransformSubject):
    """Gives back each frame with an error that is largest at frame 6 and smallest at frame 2."""

    def __init__(self) -> None:
        super().__init__(BlockShape(1, 1, 3))

    def prepare(self) -> None:
        pass

    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        levels = (5, 4, 1, 6, 7, 8, 30, 9, 8, 7, 6)
        for chunk in frames.chunks:
            error = torch.tensor(levels[: len(chunk)]).view(1, 1, -1, 1, 1) / 127.5
            yield Pair(chunk, to_float(chunk) * 0 + error, 0)
        tally.bits = 1.0


def test_the_best_and_the_worst_frame_are_kept(tmp_path: Path) -> None:
    grey = np.full((11, 64, 64, 3), 128, np.uint8)
    with VideoWriter(tmp_path / "grey.mp4", 25, crf=0) as writer:
        writer.write(grey)
    outcome = Runner(find_videos(tmp_path), SMALL, NO_NETWORKS).measure(Fading())
    shown = outcome.highlights()
    assert {kind: (video, highlight.frame) for kind, (video, highlight) in shown.items()} == {
        "best": ("grey.mp4", 2),
        "worst": ("grey.mp4", 6),
    }
    assert shown["worst"][1].value < shown["best"][1].value
    for _, highlight in shown.values():
        assert set(highlight.files) == {*PICTURES, "clip"}
        for name in PICTURES:
            picture = tmp_path / f"{name}.webp"
            picture.write_bytes(highlight.files[name])
            assert read_video(picture).shape == (1, 64, 64, 3)
        clip = tmp_path / "highlight.mp4"
        clip.write_bytes(highlight.files["clip"])
        assert read_video(clip).shape == (11, 64, 192, 3)
    np.testing.assert_array_equal(error_picture(grey[0], grey[0] - 10), np.full((64, 64, 3), 40))


def test_features_and_scores_survive_storage(folder: Path, tmp_path: Path) -> None:
    networks = Networks(Unavailable("none"), I3D().eval(), torch.device("cpu"))
    write_video(tmp_path / "long.mp4", 17, 64, 64)
    outcome = Runner(find_videos(tmp_path), SMALL, networks).measure(subject(FSQ_1_1))
    video = outcome.measured[0]
    assert [part.shape for part in video.features["fvd"]] == [(1, 400), (1, 400)]
    back = Measured.from_arrays(video.to_arrays())
    np.testing.assert_array_equal(back.features["fvd"][1], video.features["fvd"][1])
    assert back.tally.codebook is not None
    assert back.tally.codebook.state() == video.tally.codebook.state()  # type: ignore[union-attr]
    assert back.highlights == video.highlights
    assert back.versions == video.versions == {"psnr": 1, "ssim": 1, "fvd": 1, "flicker": 1}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VidTokError, match=r"cannot be made: .*; choose another --out"):
        PartStore(tmp_path / "file")
