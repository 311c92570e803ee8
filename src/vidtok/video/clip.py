"""One short clip out of a video, read without decoding much more of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

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
    enlarge: bool = True,
    position: float = 0.0,
    start_frame: int | None = None,
    published: bool = False,
    threads: int | None = None,
) -> Clip:
    """A clip of `frames` frames of the video at `path`, chosen, resized and cropped as by `VideoReader`.

    Decoding runs from the key frame before the clip to the clip's end. Where the file states its length, only the part
    around the clip is read. A video that is too short repeats its last frame.

    Args:
        path: a video, a picture or a folder of pictures.
        frames: length of the clip, at least 1.
        sample_fps, height, width, enlarge, threads: see `VideoReader`.
        position: place of the clip, from 0 (at the start of the video) to 1 (up to its end). The stored frames at which
            a whole clip can start share that range evenly.
        start_frame: instead of `position`, the stored frame to start at, counted from 0, at the average rate if the
            rate varies.
        published: choose the frames as published training does. Of a video with N frames, n = min(`frames`, N) are
            taken, every i-th, i = round(fps / sample_fps), and the last one frame later: evenly from the start to
            (n - 1) i + 1 frames after it, rounded down. A video that ends before that is sampled more densely, from its
            start (or `start_frame`) to its end; only one with fewer frames than the clip repeats its last. A video of
            varying rate follows the clock unless it is too short.

    Raises:
        VideoError: as for `VideoReader`, or a value is out of range, or the video ends before `start_frame`.
        DamagedVideoError: the part to decode is damaged.
    """
    if frames < 1 or not 0 <= position <= 1 or (start_frame is not None and start_frame < 0):
        raise VideoError(
            f"{frames} frames at position {position}, start_frame {start_frame}, were asked for; expected at least 1 "
            "frame, a position from 0 to 1, and a start_frame of at least 0"
        )
    options = {"height": height, "width": width, "enlarge": enlarge, "threads": threads}
    request = _Request(path, frames, sample_fps, position, start_frame, published, options)
    if not published and not start_frame and (position == 0 or start_frame == 0):
        return request.read(_Plan(0.0)).clip
    return _by_extent(request)


@dataclass(frozen=True)
class _Request:
    """A clip as it is asked for; see `read_clip`."""

    path: str | os.PathLike[str]
    frames: int
    sample_fps: float | None
    position: float
    start_frame: int | None
    published: bool
    options: Mapping[str, Any]
    """Other arguments of `VideoReader`."""

    @property
    def is_exact(self) -> bool:
        """True if the clip starts where it was said to."""
        return self.start_frame is not None

    def read(self, plan: _Plan) -> _Found:
        """The frames of `plan`, as far as they are there; from then on the last of them."""
        with VideoReader(
            self.path, sample_fps=self.sample_fps, max_frames=self.frames, start=plan.start, **self.options
        ) as reader:
            by_number = plan.short or self.sample_fps is None or not reader.rate_varies
            numbers = plan.numbers if by_number and plan.numbers is not None else range(self.frames)
            distinct = sorted(set(numbers))
            if numbers is plan.numbers:
                reader.take(distinct)
            chosen = list(reader)
            last = len(chosen) - 1
            places = [min(distinct.index(number), last) for number in numbers]
            places += [last] * (self.frames - len(places))
            pixels = np.stack([chosen[place].pixels for place in places])
            fps = reader.fps if reader.info.fps is None else plan.rate(reader.fps, reader.info.fps)
            clip = Clip(pixels, chosen[0].time, fps, self.frames - 1 - places.index(last))
            return _Found(clip, None if reader.rate_varies else reader.info.fps, len(chosen) == len(distinct))


@dataclass(frozen=True)
class _Plan:
    """The frames of a clip in a video of known extent."""

    start: float
    """Seconds from the start of the video to the first of them."""
    numbers: tuple[int, ...] | None = None
    """Stored frames, counted from the first, one after another and some more than once; None: `sample_fps` decides."""
    short: bool = False
    """True if the video ends before a clip at the rate wanted does."""

    def rate(self, whole: Fraction, stored: Fraction) -> Fraction:
        """Frames per second of the clip: those of a `whole` one, or as many of the `stored` as a short one has."""
        if not self.short or not self.numbers or not self.numbers[-1]:
            return whole
        return stored * (len(self.numbers) - 1) / self.numbers[-1]


class _Found(NamedTuple):
    """A clip that was read."""

    clip: Clip
    rate: Fraction | None
    """Stored frames per second around it; None if they vary."""
    whole: bool
    """All of its frames were there."""


@dataclass(frozen=True)
class _Extent:
    """Length and rate of a video, from which the start of a clip follows."""

    seconds: float
    rate: Fraction
    """Stored frames per second."""
    constant: bool = True
    """True if that rate is constant, or assumed to be."""
    count: int | None = None
    """Number of stored frames, where they were counted."""

    @property
    def frames(self) -> int:
        """Number of stored frames."""
        return max(1, round(self.seconds * self.rate) if self.count is None else self.count)

    def agrees(self, rate: Fraction | None) -> bool:
        """True if `rate`, measured around a clip, is about the video's, or None because it varies there."""
        return rate is None or abs(float(rate / self.rate) - 1) < _RATES_DIFFER

    def plan(self, request: _Request) -> _Plan:
        """The frames that are asked for. Raises `VideoError` if the video ends before they start."""
        frames = min(request.frames, self.frames) if request.published else request.frames
        step = Fraction(1) if request.sample_fps is None else self.rate / as_rate(request.sample_fps)
        reach = math.ceil((frames - 1) * (max(1, round(step)) if self.constant else step)) + int(request.published)
        first = self._first(request, reach)
        if not request.published:
            return _Plan(self.time(first))
        last = min(self.frames - 1, first + reach)
        numbers = tuple(i * (last - first) // max(1, frames - 1) for i in range(frames))
        return _Plan(self.time(first), numbers, short=last < first + reach)

    def _first(self, request: _Request, reach: int) -> int:
        """The stored frame at which the clip starts that ends `reach` frames later."""
        if request.start_frame is None:
            starts = max(1, self.frames - reach)
            return min(int(request.position * starts), starts - 1)
        if request.start_frame >= self.frames:
            raise VideoError(
                f"{request.path} has {self.frames} frames, so no clip can start at frame {request.start_frame}; "
                "expected a longer video or an earlier start"
            )
        return request.start_frame

    def time(self, frame: int) -> float:
        """A time, in seconds, at which a stored frame is shown: the middle, which no rounded timestamp misses."""
        return (frame + 0.5) / float(self.rate) if frame else 0.0


def _by_extent(request: _Request) -> Clip:
    """The clip by the video's extent: the stated one, unless it proves wrong.

    It is wrong if its rate is not the clip's, if nothing can be read at the start, or, unless the start is given, if
    the clip is not whole. The frames of a video that is too short for a published clip are counted, since such a clip
    ends with the video's last frame.
    """
    stated = _stated_extent(request.path)
    if stated is not None:
        try:
            plan = stated.plan(request)
            if not plan.short:
                clip, rate, whole = request.read(plan)
                accepted = whole or (not request.published and (request.is_exact or clip.start == 0))
                if stated.agrees(rate) and accepted:
                    return clip
        except DamagedVideoError:
            raise
        except VideoError:
            if not request.is_exact and stated.plan(request).start == 0:
                raise
    return request.read(_scanned_extent(request.path).plan(request)).clip


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
    return _Extent(timing.end, timing.rate, timing.constant, timing.frame_count)
