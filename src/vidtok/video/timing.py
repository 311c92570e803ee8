"""Times of a stream's frames, found from its packets without decoding them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_FALLBACK_RATE = Fraction(25)
_MAX_REORDERING = 16
# Transport and program streams may start anywhere and say nothing reliable about their length.
OPEN_ENDED_FORMATS = ("mpegts", "mpeg")


@dataclass(frozen=True)
class Timing:
    """The frames of a stream, or of a stretch of it."""

    rate: Fraction
    """Frames per second; the average where they vary."""
    constant: bool
    """True if every frame stands within an eighth of a frame (or half a tick of the clock) of its place at `rate`."""
    frame_count: int
    start: float
    """Seconds from the start of the stream to the first of these frames."""
    end: float
    """Seconds from the start of the stream to the end of the last of these frames."""
    disorder: int
    """Largest number of places that a frame comes too early, compared with the order of timestamps."""
    tick: float
    """Resolution of the timestamps in seconds."""
    complete: bool = True
    """True for the whole stream."""

    @property
    def tolerance(self) -> float:
        """Seconds by which a timestamp may be off because of rounding."""
        return min(self.tick, 0.25 / float(self.rate)) * 1.001 + 1e-9


@dataclass(frozen=True)
class Window:
    """A stretch of a stream: from `start` seconds to `until` seconds and at least `frames` frames on."""

    start: float
    until: float
    frames: int


def seek(container: InputContainer, stream: VideoStream, timestamp: float) -> None:
    """Moves to the last key frame at or before `timestamp` seconds; a format that cannot do so stays at its start."""
    import av

    with suppress(av.error.FFmpegError):
        container.seek(int(timestamp / float(stream.time_base or 1)), stream=stream)


def scan(container: InputContainer, stream: VideoStream, origin: float, window: Window | None = None) -> Timing:
    """Reads the packets of the stream, or of a `window` of it, and decodes none. Times count from `origin`, in seconds.

    Rates that a container states are not believed unless its timestamps agree: Matroska's average is wrong for variable
    rates, GIF's is the first frame's. Damage ends the scan; decoding reports it.
    """
    tick = float(stream.time_base or Fraction(1, 1000))
    times, durations, untimed, complete = _collect(container, stream, tick, origin, window)
    count = len(times) + untimed
    shown = np.asarray(times)
    order = np.argsort(shown, kind="stable")
    if untimed or count < 2 or float(np.ptp(shown)) <= 0:
        rate = next(iter(declared_rates(stream)), _FALLBACK_RATE)
        lasting = durations[0] if count == 1 and durations and durations[0] > 0 else count / float(rate)
        first = times[0] if times else 0.0
        return Timing(rate, True, count, first, first + lasting, 0, tick, complete)
    rate, constant = _rate(shown[order], declared_rates(stream), tick)
    lasting = durations[int(order[-1])] or 1 / float(rate)
    end = float(shown[order[-1]]) + lasting
    if not constant:
        rate = Fraction(count / (end - float(shown[order[0]]))).limit_denominator(1000)
    ranks = np.empty(count, np.int64)
    ranks[order] = np.arange(count)
    disorder = int((ranks - np.arange(count)).max())
    return Timing(rate, constant, count, float(shown[order[0]]), end, disorder, tick, complete)


def _collect(
    container: InputContainer, stream: VideoStream, tick: float, origin: float, window: Window | None
) -> tuple[list[float], list[float], int, bool]:
    """Times and durations of frames in seconds, as stored; the number of frames without; True for the whole stream."""
    import av

    times: list[float] = []
    durations: list[float] = []
    untimed = inside = 0
    stop: int | None = None
    if window is not None and window.start > 0:
        seek(container, stream, origin + window.start)
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or _is_hidden(stream, packet):
                continue
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                untimed += 1
                continue
            times.append(pts * tick - origin)
            durations.append((packet.duration or 0) * tick)
            if window is not None and stop is None:
                inside += times[-1] >= window.start
                if times[-1] > window.until and inside >= window.frames:
                    stop = len(times) - 1
            elif stop is not None and len(times) - stop > _MAX_REORDERING:
                # Frames shown before the one to stop at are stored up to this many places after it.
                kept = [i for i, time in enumerate(times) if time <= times[stop]]
                return [times[i] for i in kept], [durations[i] for i in kept], untimed, False
    except av.error.FFmpegError:
        pass
    return times, durations, untimed, window is None or window.start <= 0


def _is_hidden(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """True if a packet holds a VP8 frame that is only there to be referred to (RFC 6386, 9.1: show_frame)."""
    return stream.codec_context.name == "vp8" and not (bytes(packet)[0] >> 4) & 1


def declared_rates(stream: VideoStream) -> list[Fraction]:
    """The frame rates that the file states, the likeliest first."""
    stated = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return [rate for rate in stated if rate is not None and 0 < rate <= 1000]


def _rate(times: npt.NDArray[np.float64], declared: list[Fraction], tick: float) -> tuple[Fraction, bool]:
    """The frame rate of sorted `times`, a stated or usual one where it fits, and True if it is constant."""
    steps = np.arange(len(times))
    interval = float(times[-1] - times[0]) / (len(times) - 1)
    rounding = 0.51 * tick if tick < 0.75 * interval else 0.0

    def deviation(rate: float) -> float:
        late = (times - times[0]) - steps / rate
        return float(np.ptp(late)) / 2

    usual = [Fraction(round(1 / interval))] if interval < 1 else []
    usual += [Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)]
    for candidate in (*declared, *usual):
        if candidate and deviation(float(candidate)) <= max(rounding, interval / 20):
            return candidate, True
    return Fraction(1 / interval).limit_denominator(1000), deviation(1 / interval) <= max(rounding, interval / 8)


def declared_end(container: InputContainer, stream: VideoStream, origin: float) -> tuple[float, bool] | None:
    """End of the stream according to the file, in seconds from `origin`, and True if that is exact.

    None if the file does not say, as streams recorded live do not.
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
