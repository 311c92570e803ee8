from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidtok.jobs.reconstruct
from tiny import (
    FSQ_1_1,
    FSQ_NONCAUSAL,
    KL_1_0,
    KL_1_1,
    KL_NONCAUSAL,
    add_sound,
    audio_streams,
    draw,
    frames_written,
    leftovers,
    tiny_model,
    write_video,
)
from vidtok import Tokenizer, VideoError, VidTokError
from vidtok.jobs.reconstruct import Reconstruction, ReconstructionJob, ReconstructOptions
from vidtok.metrics.image import psnr, ssim
from vidtok.video import Fit, Pixels, VideoWriter, probe, read_video, to_float, to_uint8

MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_1, KL_NONCAUSAL, FSQ_NONCAUSAL)}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    return frames_written(monkeypatch, "vidtok.jobs.reconstruct")


def decoded(model: Tokenizer, frames: Pixels) -> torch.Tensor:
    video = to_float(frames)
    return model.decode(model.encode(video, sample=False), size=tuple(video.shape[2:])).clamp(-1, 1)


def same_pixels(left: Pixels, right: Pixels) -> bool:
    """Whether two videos are equal but for levels that rounding put on one side or the other."""
    difference = abs(left.astype(int) - right.astype(int))
    return left.shape == right.shape and difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1])
def test_a_long_video_is_what_the_whole_of_it_at_once_is(name: str, tmp_path: Path, written: list[Pixels]) -> None:
    model = MODELS[name]
    video = write_video(tmp_path / "in.mp4", 39, 24, 32, fps=30)
    result = model.reconstruct(video, tmp_path / "out.mp4", chunk_frames=5)
    frames = read_video(video).numpy()
    expected = decoded(model, frames)
    assert same_pixels(np.concatenate(written), to_uint8(expected))
    assert result.psnr == pytest.approx(psnr(expected, to_float(frames)).mean().item(), abs=1e-3)
    assert result.ssim == pytest.approx(ssim(expected, to_float(frames)).mean().item(), abs=1e-4)
    assert (result.frames, result.height, result.width, result.fps) == (39, 24, 32, Fraction(30))
    assert result.latent_shape == (model.config.z_channels, 1 + math.ceil(38 / model.config.temporal_factor), 3, 4)
    info = probe(tmp_path / "out.mp4")
    assert (info.frame_count, info.fps, info.width, info.height) == (39, 30, 32, 24)


@pytest.mark.parametrize("name", [KL_NONCAUSAL, FSQ_NONCAUSAL])
def test_a_non_causal_model_goes_clip_by_clip(name: str, tmp_path: Path, written: list[Pixels]) -> None:
    model = MODELS[name]
    video = write_video(tmp_path / "in.mp4", 22, 16, 16)
    result = model.reconstruct(video, tmp_path / "out.mp4")
    frames = read_video(video).numpy()
    expected = torch.cat([decoded(model, frames[:16]), decoded(model, frames[16:])], 2)
    assert same_pixels(np.concatenate(written), to_uint8(expected))
    assert result.latent_shape == (model.config.z_channels, 4 + 2, 2, 2)


def test_figures_of_a_continuous_and_a_discrete_latent() -> None:
    common: dict[str, Any] = {
        "output": Path("out.mp4"), "frames": 17, "height": 64, "width": 32, "fps": Fraction(24), "psnr": 30.0,
        "ssim": 0.9, "latent_shape": (5, 5, 8, 4), "seconds": 2.0, "truncated": False, "sound_left_out": False,
        "source_size": (64, 32), "fit": Fit((64, 32), (64, 32)),
    }  # fmt: skip
    kl = Reconstruction(codebook_size=None, **common)
    fsq = Reconstruction(codebook_size=8**5, **common)
    assert (kl.tokens, fsq.tokens) == (None, 160)
    assert kl.bits == 5 * 160 * 16
    assert fsq.bits == pytest.approx(160 * 15)
    assert fsq.bits_per_pixel == pytest.approx(160 * 15 / (17 * 64 * 32))
    assert fsq.compression == pytest.approx(24 / fsq.bits_per_pixel)
    assert kl.frames_per_second == 8.5


def test_a_picture_becomes_a_png(tmp_path: Path) -> None:
    model, picture = MODELS[KL_1_1], draw(1, 21, 30)
    with VideoWriter(tmp_path / "in.png", 1) as writer:
        writer.write(picture)
    result = model.reconstruct(tmp_path / "in.png", tmp_path / "out.png")
    assert same_pixels(read_video(tmp_path / "out.png").numpy(), to_uint8(decoded(model, picture)))
    assert (result.frames, result.latent_shape) == (1, (4, 1, 3, 4))


def test_any_size_is_kept_and_made_even_in_the_file_alone(tmp_path: Path, written: list[Pixels]) -> None:
    model = MODELS[KL_1_0]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, frame in enumerate(draw(3, 21, 13)):
        with VideoWriter(folder / f"{number}.png", 1) as writer:
            writer.write(frame[None])
    result = model.reconstruct(folder, tmp_path / "out.mp4")
    assert (result.height, result.width) == (21, 13)
    assert same_pixels(np.concatenate(written), to_uint8(decoded(model, draw(3, 21, 13))))
    assert (probe(tmp_path / "out.mp4").height, probe(tmp_path / "out.mp4").width) == (22, 14)


def test_frames_too_small_for_ssim_have_none(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 2, 8, 8)
    result = MODELS[KL_1_0].reconstruct(video, tmp_path / "out.mp4")
    assert result.ssim is None
    assert math.isfinite(result.psnr)


def test_the_source_stands_at_the_left(tmp_path: Path, written: list[Pixels]) -> None:
    video = write_video(tmp_path / "in.mp4", 5, 16, 24)
    result = MODELS[KL_1_1].reconstruct(video, tmp_path / "out.mkv", side_by_side=True)
    frames, both = read_video(video).numpy(), np.concatenate(written)
    assert np.array_equal(both[:, :, :24], frames)
    assert same_pixels(both[:, :, 24:], to_uint8(decoded(MODELS[KL_1_1], frames)))
    assert result.width == 24
    assert probe(tmp_path / "out.mkv").width == 48


def test_a_part_of_the_video_resized_and_cropped(tmp_path: Path, written: list[Pixels]) -> None:
    video = write_video(tmp_path / "in.mp4", 24, 32, 48, fps=24)
    options: dict[str, Any] = {"height": 16, "width": 16, "start": 0.25, "max_frames": 5}
    result = MODELS[KL_1_0].reconstruct(video, tmp_path / "out.mp4", fps=12, **options)
    frames = read_video(video, sample_fps=12, **options).numpy()
    assert same_pixels(np.concatenate(written), to_uint8(decoded(MODELS[KL_1_0], frames)))
    assert (result.frames, result.fps, result.width) == (5, 12, 16)


def test_sound_is_kept_with_the_whole_video_only(tmp_path: Path) -> None:
    video = add_sound(write_video(tmp_path / "silent.mp4", 12, 16, 16), tmp_path / "in.mp4")
    assert audio_streams(video) == 1
    for options, expected in ({}, 1), ({"fps": 12}, 1), ({"max_frames": 11}, 0), ({"start": 0.1}, 0):
        result = MODELS[KL_1_0].reconstruct(video, tmp_path / "out.mp4", **options)
        assert audio_streams(tmp_path / "out.mp4") == expected, options
        assert result.sound_left_out == (not expected)
    silent = MODELS[KL_1_0].reconstruct(tmp_path / "silent.mp4", tmp_path / "out.mp4", max_frames=2)
    assert not silent.sound_left_out


def test_a_tokenizer_does_it_as_well(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 6, 16, 16)
    done: list[int] = []
    options: dict[str, Any] = {"height": 16, "width": 24, "fps": 12, "start": 0.05, "max_frames": 2, "chunk_frames": 1}
    options |= {"side_by_side": True, "allow_truncated": True}
    result = MODELS[KL_1_1].reconstruct(video, tmp_path / "a.mp4", progress=done.append, **options)
    other = vidtok.jobs.reconstruct.reconstruct(
        MODELS[KL_1_1], video, tmp_path / "b.mp4", ReconstructOptions(**options)
    )
    assert done == [2]
    assert (result.frames, result.width, result.psnr) == (other.frames, other.width, other.psnr)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_progress_tells_the_frames_done(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 9, 8, 8)
    done: list[int] = []
    MODELS[KL_1_0].reconstruct(video, tmp_path / "out.mp4", chunk_frames=4, progress=done.append)
    assert done == sorted(set(done))
    assert done[-1] == 9
    assert len(done) > 1
    assert ReconstructionJob(video, tmp_path / "other.mp4").frame_estimate == 9


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_breaks_off_leaves_what_stood_there(error: type[BaseException], tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 30, 8, 8)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")

    def stop(frames: int) -> None:
        raise error

    with pytest.raises(error):
        MODELS[KL_1_0].reconstruct(video, output, progress=stop)
    assert leftovers(tmp_path) == ["in.mp4", "out.mp4"]
    assert output.read_bytes() == b"before"


def test_damaged_video_is_used_only_when_allowed(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.mp4", 40, 32, 32).read_bytes()
    damaged = tmp_path / "cut.mp4"
    damaged.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(VideoError, match=r"cut\.mp4 is cut off or damaged.*--allow-truncated"):
        MODELS[KL_1_0].reconstruct(damaged, tmp_path / "out.mp4")
    assert leftovers(tmp_path) == ["cut.mp4", "whole.mp4"]
    result = MODELS[KL_1_0].reconstruct(damaged, tmp_path / "out.mp4", allow_truncated=True)
    assert result.truncated
    assert 0 < result.frames < 40
    assert probe(tmp_path / "out.mp4").frame_count == result.frames


def test_errors_before_any_work(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 4, 8, 8)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with VideoWriter(pictures / "1.png", 1) as writer:
        writer.write(draw(1, 8, 8))
    cases: list[tuple[str | Path, str | Path, dict[str, Any], str]] = [
        (video, video, {}, r"in\.mp4 is the input itself; give another output"),
        (pictures, pictures / "1.png", {"max_frames": 1}, r"1\.png would be one of the pictures of .*; give an output"),
        (video, tmp_path / "out.avi", {}, r"out\.avi ends in '\.avi'; expected one of \.mp4, \.mov, \.mkv, \.png"),
        (video, tmp_path / "no" / "out.mp4", {}, r"no such folder; make the folder first"),
        (tmp_path / "none.mp4", tmp_path / "out.mp4", {}, r"none\.mp4: no such file; check the path"),
        (video, tmp_path / "out.png", {}, r"out\.png is a picture, which holds one frame, but .*in\.mp4 is a video"),
        (video, tmp_path / "out.mp4", {"chunk_frames": 0}, r"chunk_frames is 0; expected at least 1"),
        (video, tmp_path / "out.mp4", {"max_frames": 0}, r"max_frames is 0; expected at least 1"),
        (video, tmp_path / "out.mp4", {"height": 0}, r"height is 0; expected at least 1 pixel"),
    ]
    for source, output, options, message in cases:
        with pytest.raises(VideoError if "chunk" not in message else VidTokError, match=message):
            ReconstructionJob(source, output, ReconstructOptions(**options))
    ReconstructionJob(video, tmp_path / "out.png", ReconstructOptions(max_frames=1))
    assert leftovers(tmp_path) == ["in.mp4", "pictures"]
    assert leftovers(pictures) == ["1.png"]


def test_a_clip_length_must_suit_a_non_causal_model(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 10, 8, 8)
    with pytest.raises(VidTokError, match=r"chunk_frames is 10; expected a multiple of 4, since a non-causal model"):
        MODELS[KL_NONCAUSAL].reconstruct(video, tmp_path / "out.mp4", chunk_frames=10)
    result = MODELS[KL_NONCAUSAL].reconstruct(video, tmp_path / "out.mp4", chunk_frames=8)
    assert result.latent_shape[1] == 3


def test_values_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 4, 8, 8)
    model = tiny_model(KL_1_0)
    with torch.no_grad():
        model.decoder.conv_out.conv.bias.fill_(torch.nan)
    with pytest.raises(VidTokError, match=rf"{KL_1_0} gives values that are not finite in float32; use float32 or"):
        model.reconstruct(video, tmp_path / "out.mp4")
    assert leftovers(tmp_path) == ["in.mp4"]


def test_memory_that_is_too_small_for_reading_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Fit, pixels: Pixels) -> Pixels:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Fit, "__call__", fail)
    with pytest.raises(VidTokError, match=r"memory is too small for this; choose smaller frames \(--size\)"):
        MODELS[KL_1_0].reconstruct(write_video(tmp_path / "in.mp4", 4, 8, 8), tmp_path / "out.mp4")
    assert leftovers(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize(
    "shortage",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:137] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_short_memory_is_an_error_with_advice(
    shortage: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "in.mp4", 4, 8, 8)
    model = tiny_model(KL_1_0)

    def fail(*arguments: object) -> torch.Tensor:
        raise shortage

    monkeypatch.setattr(model.encoder, "forward", fail)
    with pytest.raises(VidTokError, match=r"memory is too small for this; choose smaller frames \(--size\)"):
        model.reconstruct(video, tmp_path / "out.mp4")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 6, 16, 16)
    full = MODELS[KL_1_1].reconstruct(video, tmp_path / "full.mp4")
    half = tiny_model(KL_1_1).to(dtype).reconstruct(video, tmp_path / "half.mp4")
    assert half.psnr == pytest.approx(full.psnr, abs=0.5)
