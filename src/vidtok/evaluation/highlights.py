"""Frames worth looking at, with their neighbours: the best and the worst of a video, as pictures and as clips."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidtok.metrics.accumulate import Extreme, Figure
from vidtok.video import Pixels, VideoWriter

RANKED_BY = "psnr"
"""The metric that ranks frames: its highest figure is the best frame, its lowest the worst."""
ERROR_GAIN = 4
"""The error is shown this many times as bright as it is."""
PICTURES = ("source", "reconstruction", "error")
_AROUND = 24
"""Frames of the clip before and after the frame itself."""
_CLIP_CRF = 20


@dataclass(frozen=True)
class Highlight:
    """One frame, and the clip around it."""

    frame: int
    """Its number in the video, from 0."""
    value: float
    """Its figure of `RANKED_BY`."""
    files: dict[str, bytes]
    """Pictures as WebP without loss, by the names in `PICTURES`; `clip`, all three side by side as H.264, if there is
    more than one frame."""

    def described(self) -> dict[str, Any]:
        """The highlight as JSON, with its files' names alone."""
        return {"frame": self.frame, "value": self.value, "files": sorted(self.files)}


@dataclass
class _Surroundings:
    """The frames around an extreme, collected as they come."""

    extreme: Extreme
    frames: list[tuple[Pixels, Pixels]]
    """Source and reconstruction, (H, W, 3) uint8 each."""
    at: int
    """Index in `frames` of the extreme."""
    missing: int
    """Frames still to come."""


class Highlights:
    """Keeps the frames around the best and the worst frame so far; memory does not grow with the video's length."""

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._before: deque[tuple[Pixels, Pixels]] = deque(maxlen=_AROUND)
        self._found: dict[str, _Surroundings] = {}

    def update(self, first: int, source: Pixels, reconstruction: Pixels, figure: Figure) -> None:
        """Take the frames numbered from `first` on, (T, H, W, 3) uint8; `figure` covers all frames up to the last."""
        ends = {"best": figure.highest, "worst": figure.lowest}
        new = {kind: extreme for kind, extreme in ends.items() if extreme.frame >= first}
        for index, pair in enumerate(zip(source, reconstruction, strict=True)):
            for found in self._found.values():
                if found.missing:
                    found.frames.append(pair)
                    found.missing -= 1
            for kind, extreme in new.items():
                if extreme.frame == first + index:
                    self._found[kind] = _Surroundings(extreme, [*self._before, pair], len(self._before), _AROUND)
            self._before.append(pair)

    def finish(self) -> dict[str, Highlight]:
        """The highlights, by `best` and `worst`, coded."""
        return {kind: self._coded(found) for kind, found in self._found.items()}

    def _coded(self, found: _Surroundings) -> Highlight:
        source, reconstruction = found.frames[found.at]
        shown = dict(zip(PICTURES, (source, reconstruction, error_picture(source, reconstruction)), strict=True))
        files = {name: webp(picture) for name, picture in shown.items()}
        if len(found.frames) > 1:
            strips = [np.concatenate([x, y, error_picture(x, y)], axis=1) for x, y in found.frames]
            files["clip"] = _h264(np.stack(strips), self._fps)
        return Highlight(found.extreme.frame, found.extreme.value, files)


def error_picture(source: Pixels, reconstruction: Pixels) -> Pixels:
    """The absolute error, mean over colours, `ERROR_GAIN` times as bright, as grey (H, W, 3) uint8."""
    error = np.abs(source.astype(np.int16) - reconstruction).mean(axis=2) * ERROR_GAIN
    grey = np.clip(np.round(error), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def webp(pixels: Pixels) -> bytes:
    """(H, W, 3) uint8 as a WebP picture, without loss."""
    import av

    context: Any = av.CodecContext.create("libwebp", "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = "bgra", Fraction(1)
    context.options = {"lossless": "1", "compression_level": "4"}
    frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="bgra")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def _h264(frames: Pixels, fps: Fraction) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, fps, crf=_CLIP_CRF) as writer:
            writer.write(frames)
        return path.read_bytes()
