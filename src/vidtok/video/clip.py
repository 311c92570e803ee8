"""One short clip out of a video, read without decoding much more of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidtok.errors import DamagedVideoError, VideoError
from vidtok.video.container import is_still_format, open_container, video_stream
from vidtok.video.frames import Pixels, as_rate
from vidtok.video.reader import VideoReader
from vidtok.video.source import open_source
from vidtok.video.timing import declared_end, declared_rates

_RATES_DIFFER = 0.05
_END_AT_LAST_FRAME = ("nut", "wtv")
"""Formats that state the length up to the start of the last frame, not to its end."""


@dataclass(frozen=True)
class Clip:
    """Successive frames of a video."""

    pixels: Pixels
    """(T, H, W, 3) uint8, RGB."""
    start: float
    """Time of the first frame, in seconds from the start of the video."""
    fps: Fraction
    """Frames per second of the clip."""
    repeated: int
    """Number of frames at the end that are copies of the video's last one."""


def read_clip(
    path: str | os.PathLike[str],
    frames: int,
    *,
    sample_fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    position: float = 0.0,
    start_frame: int | None = None,
    threads: int | None = None,
) -> Clip:
    """A clip of `frames` frames of the video at `path`, chosen, resized and cropped as by `VideoReader`.

    Decoding runs from the key frame before the clip to the clip's end. Where the file states its length, only the part
    around the clip is read. A video that is too short repeats its last frame.

    Args:
        path: a video, a picture or a folder of pictures.
        frames: length of the clip, at least 1.
        sample_fps, height, width, threads: see `VideoReader`.
        position: place of the clip, from 0 (at the start of the video) to 1 (up to its end). The stored frames at which
            a whole clip can start share that range evenly.
        start_frame: instead of `position`, the stored frame to start at, counted from 0, at the average rate if the
            rate varies.

    Raises:
        VideoError: as for `VideoReader`, or a value is out of range, or the video ends before `start_frame`.
        DamagedVideoError: the part to decode is damaged.
    """
    if frames < 1 or not 0 <= position <= 1 or (start_frame is not None and start_frame < 0):
        raise VideoError(
            f"{frames} frames at position {position}, start_frame {start_frame}, were asked for; expected at least 1 "
            "frame, a position from 0 to 1, and a start_frame of at least 0"
        )

    def read(start: float) -> tuple[Clip, Fraction | None]:
        with VideoReader(
            path, sample_fps=sample_fps, height=height, width=width, max_frames=frames, start=start, threads=threads
        ) as reader:
            chosen = list(reader)
            missing = frames - len(chosen)
            pixels = np.stack([frame.pixels for frame in chosen] + [chosen[-1].pixels] * missing)
            rate = None if reader.rate_varies else reader.info.fps
            return Clip(pixels, chosen[0].time, reader.fps, missing), rate

    if not start_frame and (position == 0 or start_frame == 0):
        return read(0.0)[0]
    if start_frame is not None:
        return _read_at(path, lambda extent: _start_of(path, extent, start_frame), read, exact=True)
    wanted = None if sample_fps is None else as_rate(sample_fps)
    return _read_at(path, lambda extent: extent.start(frames, wanted, position), read)


@dataclass(frozen=True)
class _Extent:
    """Length and rate of a video, from which the start of a clip follows."""

    seconds: float
    rate: Fraction
    """Stored frames per second."""
    constant: bool = True
    """True if that rate is constant, or assumed to be."""

    @property
    def frames(self) -> int:
        """Number of stored frames."""
        return round(self.seconds * self.rate)

    def agrees(self, rate: Fraction | None) -> bool:
        """True if `rate`, measured around a clip, is about the video's, or None because it varies there."""
        return rate is None or abs(float(rate / self.rate) - 1) < _RATES_DIFFER

    def start(self, frames: int, wanted: Fraction | None, position: float) -> float:
        """Start, in seconds, of the clip at `position` that has `frames` frames at `wanted` frames per second."""
        step = self.rate / wanted if wanted else Fraction(1)
        span = math.ceil((frames - 1) * (max(1, round(step)) if self.constant else step)) + 1
        starts = max(1, self.frames - span + 1)
        return self.time(min(int(position * starts), starts - 1))

    def time(self, frame: int) -> float:
        """A time, in seconds, at which a stored frame is shown: the middle, which no rounded timestamp misses."""
        return (frame + 0.5) / float(self.rate) if frame else 0.0


def _read_at(
    path: str | os.PathLike[str],
    start: Callable[[_Extent], float],
    read: Callable[[float], tuple[Clip, Fraction | None]],
    *,
    exact: bool = False,
) -> Clip:
    """The clip at the time that `start` computes from the video's extent: the stated one, unless it proves wrong.

    It is wrong if its rate is not the clip's, if nothing can be read at the start, or, unless `exact`, if the clip is
    not whole.
    """
    stated = _stated_extent(path)
    if stated is not None:
        try:
            clip, rate = read(start(stated))
            if stated.agrees(rate) and (exact or clip.start == 0 or not clip.repeated):
                return clip
        except DamagedVideoError:
            raise
        except VideoError:
            if not exact and start(stated) == 0:
                raise
    return read(start(_scanned_extent(path)))[0]


def _start_of(path: str | os.PathLike[str], extent: _Extent, frame: int) -> float:
    if frame >= extent.frames:
        raise VideoError(
            f"{path} has {extent.frames} frames, so no clip can start at frame {frame}; expected a longer video or an "
            "earlier start"
        )
    return extent.time(frame)


def _stated_extent(path: str | os.PathLike[str]) -> _Extent | None:
    """The extent that the header of a file states; None if it says too little, or the file is a picture."""
    if Path(path).is_dir():
        return None
    with open_container(path) as container:
        stream = video_stream(container, path)
        if is_still_format(container) or container.format.name in _END_AT_LAST_FRAME:
            return None
        origin = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        end = declared_end(container, stream, origin)
        rates = declared_rates(stream)
        return _Extent(end[0], rates[0]) if end is not None and rates else None


def _scanned_extent(path: str | os.PathLike[str]) -> _Extent:
    """The true extent; reads all of the file, and decodes its first frame."""
    timing = open_source(path).timing
    return _Extent(timing.end, timing.rate, timing.constant)
