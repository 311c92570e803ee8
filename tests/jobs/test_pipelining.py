"""Reading runs ahead of the model and writing behind it, and what goes wrong in either comes out whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import KL_1_1, leftovers, tiny_model, write_video
from vidtok import Tokenizer, VidTokError
from vidtok.jobs import decode, decode_file, encode, encode_file, reconstruct
from vidtok.video import VideoWriter

_PATIENCE = 60


def wait(event: threading.Event) -> None:
    assert event.wait(_PATIENCE)


def write(module: Any, model: Tokenizer, folder: Path) -> int:
    """How many frames one of the two ways to write a video writes."""
    if module is decode:
        return decode_file(model, folder / "in.vtok", folder / "out.mp4").frames
    return model.reconstruct(folder / "in.mp4", folder / "out.mp4").frames


def test_encoding_reads_while_the_model_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_on = threading.Event()
    batches = encode.in_groups

    def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
        for number, batch in enumerate(batches(*arguments, **named)):
            if number == 2:
                read_on.set()
            yield batch

    monkeypatch.setattr(encode, "in_groups", watched)
    model = tiny_model(KL_1_1)
    model.encoder.register_forward_pre_hook(lambda *_: wait(read_on))
    video = write_video(tmp_path / "in.mp4", 65, 32, 32)
    assert encode_file(model, video, tmp_path / "out.vtok").frames == 65


@pytest.mark.parametrize("module", [decode, reconstruct])
def test_frames_are_written_while_the_model_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    written = threading.Event()

    class Watched(VideoWriter):
        def write(self, frames: Any) -> None:
            super().write(frames)
            written.set()

    monkeypatch.setattr(module, "VideoWriter", Watched)
    model = tiny_model(KL_1_1)
    video = write_video(tmp_path / "in.mp4", 97, 32, 32)
    encode_file(model, video, tmp_path / "in.vtok")
    calls = iter(range(100))
    model.decoder.register_forward_pre_hook(lambda *_: wait(written) if next(calls) == 4 else None)
    assert write(module, model, tmp_path) == 97


@pytest.mark.parametrize("module", [decode, reconstruct])
def test_what_fails_behind_the_model_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    class Full(VideoWriter):
        def write(self, frames: Any) -> None:
            raise VidTokError("the disk is full")

    model = tiny_model(KL_1_1)
    video = write_video(tmp_path / "in.mp4", 65, 32, 32)
    encode_file(model, video, tmp_path / "in.vtok")
    monkeypatch.setattr(module, "VideoWriter", Full)
    before = threading.active_count()
    with pytest.raises(VidTokError, match="the disk is full"):
        write(module, model, tmp_path)
    assert leftovers(tmp_path) == ["in.mp4", "in.vtok"]
    assert threading.active_count() == before


def test_threads_end_where_the_model_fails(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise VidTokError("no more")

    model = tiny_model(KL_1_1)
    model.encoder.register_forward_pre_hook(fail)
    video = write_video(tmp_path / "in.mp4", 97, 32, 32)
    before = threading.active_count()
    with pytest.raises(VidTokError, match="no more"):
        encode_file(model, video, tmp_path / "out.vtok")
    with pytest.raises(VidTokError, match="no more"):
        model.reconstruct(video, tmp_path / "out.mp4")
    assert threading.active_count() == before
    assert [name for name in leftovers(tmp_path) if not name.endswith(".part")] == ["in.mp4"]
