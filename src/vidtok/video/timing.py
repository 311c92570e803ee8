"""Rate and extent of a stream's frames, as measured from their times and as the file states them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from vidtok.video.layout import Layout, Traits
from vidtok.video.packets import OPEN_ENDED_FORMATS, Seconds, tick_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS."""
_FALLBACK_RATE = Fraction(25)
_LEAST_RATE = Fraction(1, 100_000)
_LARGEST_TERM = 1000
_MOST_LIKELY = 1000
"""Frames per second above which a stated rate is believed only where the timestamps agree."""


@dataclass(frozen=True)
class Timing:
    """Timing of the frames of a stream, or of a stretch of it."""

    rate: Fraction
    """Frames per second; the average where the rate varies."""
    constant: bool
    """True if every frame is within an eighth of a frame (or half a tick of the clock) of its time at `rate`."""
    frame_count: int
    start: float
    """Seconds from the start of the stream to the first of these frames."""
    end: float
    """Seconds from the start of the stream to the end of the last of these frames."""
    disorder: int
    """Largest number of places by which a frame is decoded ahead of its place in display order."""
    tick: float
    """Resolution of the timestamps in seconds."""
    complete: bool = True
    """True for the whole stream."""

    @property
    def tolerance(self) -> float:
        """Seconds by which a timestamp may be off because of rounding."""
        return min(self.tick, 0.25 / float(self.rate)) * 1.001 + 1e-9


def traits_of(container: InputContainer, stream: VideoStream) -> Traits:
    """The traits of a stream that its frame times depend on."""
    context = stream.codec_context
    return Traits(
        container.format.name,
        bool(container.format.flags & _NO_TIMESTAMPS),
        bool(context.codec.reorder and context.has_b_frames),
        bool(context.codec.intra_only),
        next(iter(declared_rates(stream)), _FALLBACK_RATE),
    )


def measure(stream: VideoStream, layout: Layout, *, complete: bool) -> Timing:
    """The timing of the frames in `layout`.

    A rate that the container states counts only if the timestamps agree: Matroska's average is wrong for variable
    rates, and GIF's is the first frame's.
    """
    tick, count = tick_of(stream), len(layout.times)
    order = np.argsort(layout.times, kind="stable")
    shown = layout.times[order]
    if not layout.timed or count < 2 or float(np.ptp(shown)) <= 0:
        rate = next(iter(declared_rates(stream)), _FALLBACK_RATE)
        lasting = layout.last if count == 1 and layout.last > 0 else count / float(rate)
        first = float(shown[0]) if count else 0.0
        return Timing(rate, True, count, first, first + lasting, 0, tick, complete)
    rate, constant = _rate(shown, _stated_rates(stream), tick)
    # Some files give their last frame half the time of the others.
    lasting = max(layout.last, 1 / float(rate)) if constant else layout.last or 1 / float(rate)
    end = float(shown[-1]) + lasting
    if not constant:
        rate = _as_fraction(count / (end - float(shown[0])))
    ranks = np.empty(count, np.int64)
    ranks[order] = np.arange(count)
    disorder = int((ranks - np.arange(count)).max())
    return Timing(rate, constant, count, float(shown[0]), end, disorder, tick, complete)


def declared_rates(stream: VideoStream) -> list[Fraction]:
    """The frame rates that the file states, the likeliest first, without rates that no video has."""
    return [rate for rate in _stated_rates(stream) if rate <= _MOST_LIKELY]


def _stated_rates(stream: VideoStream) -> list[Fraction]:
    stated = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return [rate for rate in stated if rate is not None and rate >= _LEAST_RATE]


def _rate(times: Seconds, declared: list[Fraction], tick: float) -> tuple[Fraction, bool]:
    """The frame rate of sorted `times`, and True if it is constant; a declared or usual rate where one fits."""
    steps = np.arange(len(times))
    interval = float(times[-1] - times[0]) / (len(times) - 1)
    # Where the clock is coarser than the frames, equal times do not mean that the rate varies.
    rounding = 0.51 * tick if tick < 0.75 * interval or tick > 1.05 * interval else 0.0

    def deviation(rate: float) -> float:
        late = (times - times[0]) - steps / rate
        return float(np.ptp(late)) / 2

    usual = [Fraction(round(1 / interval))] if interval < 1 else []
    usual += [Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)]
    for candidate in (*declared, *usual):
        if candidate and deviation(float(candidate)) <= max(rounding, interval / 20):
            return candidate, True
    constant = deviation(1 / interval) <= max(rounding, interval / 8) and 1 / interval >= _LEAST_RATE
    return _as_fraction(1 / interval), constant


def _as_fraction(rate: float) -> Fraction:
    """`rate` as a fraction of small numbers, raised if needed to the lowest rate that can be written."""
    if rate >= 1:
        return Fraction(rate).limit_denominator(_LARGEST_TERM)
    return max(1 / Fraction(1 / rate).limit_denominator(_LARGEST_TERM), _LEAST_RATE)


def declared_end(container: InputContainer, stream: VideoStream, origin: float) -> tuple[float, bool] | None:
    """End of the stream that the file states, in seconds from `origin`, and True if that is exact.

    None if the file does not say, as with live recordings.
    """
    name = container.format.name
    if name in OPEN_ENDED_FORMATS:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), name == "avi"
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = (float(group) for group in tag.groups())
        return hours * 3600 + minutes * 60 + seconds - origin, True
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6, False
    return None
