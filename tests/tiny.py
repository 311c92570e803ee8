"""Tiny models as files, and videos to put through them, for the tests of commands and scripts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from support import small_model
from vidtok import Tokenizer
from vidtok.runtime.passes import Pair, pairs
from vidtok.video import Pixels, VideoWriter

KL_1_0 = "vidtok_kl_causal_488_4chn"
KL_1_1 = "vidtok_kl_causal_488_4chn_v1_1"
FSQ_1_0 = "vidtok_fsq_causal_488_4096"
FSQ_1_1 = "vidtok_fsq_causal_888_32768_v1_1"
KL_NONCAUSAL = "vidtok_kl_noncausal_488_4chn"
FSQ_NONCAUSAL = "vidtok_fsq_noncausal_488_262144"

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""For processes that tests start: tiny models gain nothing from more threads, and lose much where others compute."""

_YAML = """\
base: {name}
model:
  params:
    encoder_config:
      params:
        ch: 8
        ch_mult: [1, 1, 1, 1]
        num_res_blocks: 1
"""


@dataclass(frozen=True)
class ModelFiles:
    """A model as its users hold it."""

    config: Path
    checkpoint: Path

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a command that name them."""
        return "--model", str(self.config), "--checkpoint", str(self.checkpoint)


def tiny_model(name: str) -> Tokenizer:
    """A model of the variant `name`, with eight channels throughout and stand-in weights."""
    return small_model(name, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1)


def write_model(folder: Path, name: str) -> ModelFiles:
    """`tiny_model(name)` as a YAML file and a checkpoint in `folder`."""
    files = ModelFiles(folder / f"{name}.yaml", folder / f"{name}.ckpt")
    files.config.write_text(_YAML.format(name=name))
    torch.save({"state_dict": tiny_model(name).state_dict()}, files.checkpoint)
    return files


def draw(frames: int, height: int, width: int) -> Pixels:
    """(T, H, W, 3) uint8 frames of a smooth pattern that moves."""
    t, y, x = np.mgrid[0:frames, 0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 5 + t / 3), np.cos(y / 6 - t / 4), np.sin((x + y) / 7 + t / 2)]
    return np.round(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def write_video(path: Path, frames: int, height: int, width: int, *, fps: int = 24) -> Path:
    """`draw` as a video file."""
    with VideoWriter(path, fps, crf=4, preset="ultrafast") as writer:
        writer.write(draw(frames, height, width))
    return path


def add_sound(video: Path, path: Path) -> Path:
    """The frames of `video` with a tone beside them, as another file."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=48000, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
        tone = np.sin(np.arange(48000) / 20).astype(np.float32)[None]
        for start in range(0, 48000, 1024):
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), "fltp", "mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
            target.mux(sound.encode(piece))
        target.mux(sound.encode(None))
    return path


def audio_streams(path: Path) -> int:
    """How many audio streams a file has."""
    with av.open(str(path)) as container:
        return len(container.streams.audio)


def rows(text: str) -> dict[str, str]:
    """The lines of a command's summary by their names."""
    return {line[:8].strip(): line[8:] for line in text.splitlines()}


def frames_written(monkeypatch: pytest.MonkeyPatch, module: str) -> list[Pixels]:
    """The frames that `module` writes from now on, a list that grows, as they are before the video codec."""
    frames: list[Pixels] = []

    class Spy(VideoWriter):
        def write(self, pixels: Pixels) -> None:
            frames.append(pixels)
            super().write(pixels)

    monkeypatch.setattr(f"{module}.VideoWriter", Spy)
    return frames


def leftovers(folder: Path) -> list[str]:
    """The names of all files in `folder`, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def stream_pairs(model: Tokenizer, chunks: Iterable[Pixels], at_a_time: int = 16, **options: Any) -> Iterator[Pair]:
    """A video through a causal model, in pieces of any length."""
    return pairs(model, chunks, at_a_time, **options)


def clip_pairs(model: Tokenizer, clips: Iterable[Pixels], **options: Any) -> Iterator[Pair]:
    """Independent clips of any lengths, each for itself."""
    before = 0
    for clip in clips:
        for pair in pairs(model, [clip], len(clip), clips=True, **options):
            yield pair._replace(latent_frames=before + pair.latent_frames)
        before += pair.latent_frames
