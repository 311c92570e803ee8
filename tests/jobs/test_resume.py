"""An encoding that was killed or interrupted goes on where it was, and gives the file that it would have given."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support import CAUSAL_SAMPLE, make_clip, small_model
from tiny import FSQ_1_0, FSQ_1_1, FSQ_NONCAUSAL, KL_1_1, ONE_THREAD, leftovers, tiny_model, write_model, write_video
from vidtok import EncodeStream, Tokenizer, VidTokError
from vidtok.jobs import EncodeOptions, encode_file
from vidtok.tokens import TokenFile, TokenWriter
from vidtok.video import VideoReader

FRAMES = 330
PACKED = EncodeOptions(coding="packed", chunk_frames=8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", FRAMES, 16, 16)


def interrupt_after(frames: int, error: type[BaseException] = KeyboardInterrupt) -> object:
    """What is to be called with progress and raises `error` once so many frames are done."""

    def progress(done: int) -> None:
        if done >= frames:
            raise error

    return progress


def encode_twice(model: Tokenizer, video: Path, path: Path, options: EncodeOptions, stop: int) -> tuple[bytes, int]:
    """The file of a run that was interrupted after `stop` frames and taken up again, and how much was taken over."""
    with pytest.raises(KeyboardInterrupt):
        encode_file(model, video, path, options, progress=interrupt_after(stop))  # type: ignore[arg-type]
    assert not path.exists()
    result = encode_file(model, video, path, options)
    assert result.frames == FRAMES
    return path.read_bytes(), result.resumed


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_what_starts_inside_settles_when_it_should(name: str) -> None:
    """From the derived latent frame on all is exact, in float64; the one before it is not.

    Frames are so large that the deepest level has several positions: of a single one, some processors round otherwise.
    """
    model = small_model(name, dtype=torch.float64, num_res_blocks=1)
    factor, unsettled = model.config.temporal_factor, model.encoder_look_back
    start = 1 + factor
    video = make_clip(1, 3, start + factor * (unsettled + 3), 32, 32)
    expected = model.moments(video)[:, :, 2:]
    with EncodeStream(model, moments_only=True, midway=True) as stream:  # type: ignore[arg-type]
        found = torch.cat([stream.push(video[:, :, start:]), stream.flush()], 2)
    assert torch.equal(found[:, :, unsettled:], expected[:, :, unsettled:])
    assert not torch.equal(found[:, :, unsettled - 1], expected[:, :, unsettled - 1])


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_0, FSQ_1_1, FSQ_NONCAUSAL])
def test_a_file_that_was_taken_up_is_the_same(name: str, video: Path, tmp_path: Path) -> None:
    model = tiny_model(name)
    options = replace(PACKED, coding=None, chunk_frames=16)
    encode_file(model, video, tmp_path / "whole.vtok", options)
    content, resumed = encode_twice(model, video, tmp_path / "a.vtok", options, 280)
    assert content == (tmp_path / "whole.vtok").read_bytes()
    assert 64 < resumed <= 280
    assert leftovers(tmp_path) == ["a.vtok", "whole.vtok"]


def test_most_of_what_is_there_is_not_computed_again(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pushed = tiny_model(FSQ_1_0), 0
    push = EncodeStream.push

    def count(stream: EncodeStream, frames: torch.Tensor) -> torch.Tensor:
        nonlocal pushed
        pushed += frames.shape[2]
        return push(stream, frames)

    with pytest.raises(KeyboardInterrupt):
        encode_file(model, video, tmp_path / "a.vtok", PACKED, progress=interrupt_after(320))  # type: ignore[arg-type]
    monkeypatch.setattr(EncodeStream, "push", count)
    result = encode_file(model, video, tmp_path / "a.vtok", PACKED)
    latents = 1 + model.encoder_look_back
    assert FRAMES - result.resumed <= pushed <= FRAMES - result.resumed + 4 * latents + 16


def test_times_of_a_varying_rate_are_taken_up(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame keeps its own time, on both sides of the interruption."""
    monkeypatch.setattr(VideoReader, "rate_varies", True)
    model = tiny_model(FSQ_1_0)
    _, resumed = encode_twice(model, video, tmp_path / "a.vtok", PACKED, 200)
    assert resumed
    with VideoReader(video) as reader, TokenFile(tmp_path / "a.vtok") as file:
        assert file.timed
        assert file.times().tolist() == [frame.time for frame in reader]


def test_tiles_are_taken_up(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 200, 16, 80)
    model = tiny_model(FSQ_1_0)
    options = replace(PACKED, tile=64, tile_overlap=16)
    whole = encode_file(model, video, tmp_path / "whole.vtok", options)
    assert whole.header.encoding["tiling"] == {"size": 64, "overlap": 16, "rows": 1, "columns": 2}
    with pytest.raises(KeyboardInterrupt):
        encode_file(model, video, tmp_path / "a.vtok", options, progress=interrupt_after(190))  # type: ignore[arg-type]
    assert encode_file(model, video, tmp_path / "a.vtok", options).resumed == 189
    assert (tmp_path / "a.vtok").read_bytes() == (tmp_path / "whole.vtok").read_bytes()


def stop_at(video: Path, path: Path, frames: int = 200) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_file(tiny_model(FSQ_1_0), video, path, PACKED, progress=interrupt_after(frames))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["options", "pieces", "model", "source"])
def test_another_encoding_starts_anew(change: str, video: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.vtok"
    stop_at(video, path)
    model, options = tiny_model(FSQ_1_0), PACKED
    if change == "options":
        options = replace(options, coding="static")
    elif change == "pieces":
        options = replace(options, chunk_frames=4)
    elif change == "model":
        with torch.no_grad():
            model.encoder.get_parameter("conv_out.conv.bias").neg_()
    else:
        later = path.with_name("a.vtok.part").stat().st_mtime + 1
        os.utime(video, (later, later))
    result = encode_file(model, video, path, options)
    assert (result.resumed, result.frames) == (0, FRAMES)
    encode_file(model, video, tmp_path / "whole.vtok", options)
    assert path.read_bytes() == (tmp_path / "whole.vtok").read_bytes()


@pytest.mark.parametrize("where", ["header", "second chunk", "end"])
def test_damage_is_not_taken_over(where: str, video: Path, tmp_path: Path) -> None:
    """As a crash of the machine may leave it: what is sound up to there is taken over, the rest made anew."""
    path = tmp_path / "a.vtok"
    stop_at(video, path, 260)
    part = path.with_name("a.vtok.part")
    content = bytearray(part.read_bytes())
    with TokenFile(part) as file:
        offsets = [entry.offset for entry in file.entries]
    assert len(offsets) == 4
    if where == "end":
        del content[-5:]
    else:
        content[30 if where == "header" else offsets[1] + 40] ^= 1
    part.write_bytes(content)
    result = encode_file(tiny_model(FSQ_1_0), video, path, PACKED)
    assert result.resumed == {"header": 0, "second chunk": 61, "end": 189}[where]
    encode_file(tiny_model(FSQ_1_0), video, tmp_path / "whole.vtok", PACKED)
    assert path.read_bytes() == (tmp_path / "whole.vtok").read_bytes()


def test_an_error_leaves_nothing_to_take_up(video: Path, tmp_path: Path) -> None:
    with pytest.raises(VidTokError):
        encode_file(
            tiny_model(FSQ_1_0), video, tmp_path / "a.vtok", PACKED,
            progress=interrupt_after(200, VidTokError),  # type: ignore[arg-type]
        )  # fmt: skip
    assert leftovers(tmp_path) == []


def test_a_writer_takes_over_only_when_asked(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.vtok"
    stop_at(video, path)
    with TokenFile(path.with_name("a.vtok.part")) as file:
        header, latents = file.header, file.latent_frames
    writer = TokenWriter(path, header, resume=True)
    assert writer.latent_frames == latents == 48
    writer._file.close()
    assert TokenWriter(path, header).latent_frames == 0


def test_killed_and_taken_up_by_the_command(tmp_path: Path) -> None:
    """kill -9, then a run to the end: the file is the one of a single run."""
    video = write_video(tmp_path / "clip.mp4", FRAMES, 32, 32)
    path, part = tmp_path / "a.vtok", tmp_path / "a.vtok.part"
    arguments = ["encode", video, "-o", path, *write_model(tmp_path, FSQ_1_0).options]
    settings = ["--size", "64", "--device", "cpu", "--coding", "packed", "--chunk-frames", "8"]
    command = [sys.executable, "-m", "vidtok", *map(str, arguments), *settings]
    process = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.DEVNULL)
    while process.poll() is None and (not part.exists() or part.stat().st_size < 4000):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not path.exists()
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, check=True)
    assert "resumed after " in done.stdout
    assert not part.exists()
    encode_file(tiny_model(FSQ_1_0), video, tmp_path / "whole.vtok", replace(PACKED, height=64, width=64))
    assert path.read_bytes() == (tmp_path / "whole.vtok").read_bytes()
