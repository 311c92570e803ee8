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
"""Formats whose length is that to the start of the last frame."""


@dataclass(frozen=True)
class Clip:
    """Successive frames of a video."""

    pixels: Pixels
    """(T, H, W, 3) uint8, RGB."""
    start: float
    """Time of the first of them, in seconds from the start of the video."""
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
    """`frames` frames of the video at `path`, chosen, resized and cropped as `VideoReader` does it.

    Decoding begins at the key frame before the clip and ends with it; where the file states its length, no more of it
    is read than around the clip. A video that is too short repeats its last frame.

    Args:
        path: a video, a picture or a folder of pictures.
        frames: length of the clip, at least 1.
        sample_fps, height, width, threads: see `VideoReader`.
        position: place of the clip, from 0 (at the start of the video) to 1 (up to its end). The stored frames at which
            a whole clip can start share that range evenly.
        start_frame: the stored frame to start at, from 0 on, instead; counted at the average rate if the rate varies.

    Raises:
        VideoError: as `VideoReader`; or a value is out of range; or the video ends before `start_frame`.
        DamagedVideoError: the stretch to be decoded is damaged.
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
    """Length of a video, as far as needed to choose a place in it."""

    seconds: float
    rate: Fraction
    """Stored frames per second."""
    constant: bool = True
    """True if that rate is constant, or taken to be."""

    @property
    def frames(self) -> int:
        """Stored frames."""
        return round(self.seconds * self.rate)

    def agrees(self, rate: Fraction | None) -> bool:
        """True if the rate of a clip, None if it varies there, is about that of the whole."""
        return rate is None or abs(float(rate / self.rate) - 1) < _RATES_DIFFER

    def start(self, frames: int, wanted: Fraction | None, position: float) -> float:
        """Seconds at which the clip of `frames` at `wanted` a second starts that lies at `position`."""
        step = self.rate / wanted if wanted else Fraction(1)
        span = math.ceil((frames - 1) * (max(1, round(step)) if self.constant else step)) + 1
        starts = max(1, self.frames - span + 1)
        return self.time(min(int(position * starts), starts - 1))

    def time(self, frame: int) -> float:
        """Seconds at which a stored frame is shown: the middle of its time, which no rounded timestamp misses."""
        return (frame + 0.5) / float(self.rate) if frame else 0.0


def _read_at(
    path: str | os.PathLike[str],
    start: Callable[[_Extent], float],
    read: Callable[[float], tuple[Clip, Fraction | None]],
    *,
    exact: bool = False,
) -> Clip:
    """The clip at `start` of the video's extent: that which it states, unless this turns out to be wrong.

    It is too long where the clip is not there or, unless `exact`, not whole.
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
            f"{path} has {extent.frames} frames, none of number {frame}, where the clip is to start; expected a longer "
            "video or an earlier start"
        )
    return extent.time(frame)


def _stated_extent(path: str | os.PathLike[str]) -> _Extent | None:
    """The extent in the header of a file; None if it says too little, or is a picture's."""
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
    """The true extent; reads all of the file, and decodes none of it."""
    timing = open_source(path).timing
    return _Extent(timing.end, timing.rate, timing.constant)
