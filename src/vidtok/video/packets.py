"""Times and key frames of a video stream, gathered from its packets without decoding them."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

Seconds = npt.NDArray[np.float64]

OPEN_ENDED_FORMATS = ("mpegts", "mpeg")
"""Transport and program streams. They may start anywhere, state no reliable length, are entered at a byte and not at a
time, and may hold several recordings in a row."""
NO_PRESENTATION_TIMES = ("avi", "asf")
"""Formats that store decoding times only. FFmpeg makes up presentation times, wrongly where frames are reordered."""
MAX_REORDERING = 16
"""Largest number of frames stored between a frame and the frame shown just before it."""


@dataclass(frozen=True)
class Window:
    """A stretch of a stream from `start` to `until` seconds, or longer if it needs that to hold `frames` frames."""

    start: float
    until: float
    frames: int


class Mark(NamedTuple):
    """Fingerprint of a key frame's packet, equal wherever reading began: CRC-32, size, and byte position if known."""

    checksum: int
    size: int
    position: int | None

    @classmethod
    def of(cls, packet: Packet[VideoStream], format: str) -> Mark:
        # FFmpeg gives a packet's position in a program stream or not, depending on where reading began.
        return cls(zlib.crc32(packet), packet.size, packet.pos if format == "mpegts" else None)


@dataclass(frozen=True)
class Packets:
    """Packets that hold one frame each, N in all, in storage order."""

    times: Seconds
    """(N,) times of the frames by the file's clock, in seconds from the origin; NaN where the file does not say."""
    durations: Seconds
    """(N,) seconds; 0 where the file does not say."""
    keys: npt.NDArray[np.bool_]
    """(N,) True for key frames, which decode without any frame before them."""
    marks: dict[Mark, int]
    """Packet number of each key frame whose mark is unique; in open-ended formats only."""
    positions: dict[int, int]
    """Byte at which a packet begins, by packet number, as far as known; in open-ended formats only."""
    complete: bool
    """True if these are all packets of the stream."""

    def __len__(self) -> int:
        return len(self.times)


def seek(container: InputContainer, stream: VideoStream, timestamp: float) -> None:
    """Move to the last key frame at or before `timestamp`, in seconds of the file's clock.

    A container that cannot seek stays where it is.
    """
    import av

    with suppress(av.error.FFmpegError, OverflowError):
        container.seek(int(timestamp / float(stream.time_base or 1)), stream=stream)


@dataclass(frozen=True)
class Stamps:
    """Rules for reading frame times from the packets of one stream."""

    codec: str
    tick: float
    """Resolution of timestamps in seconds."""
    origin: float
    """Time of the file's clock that counts as 0, in seconds."""
    by_dts: bool
    """True if the format stores decoding times only."""

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, origin: float) -> Stamps:
        by_dts = container.format.name in NO_PRESENTATION_TIMES
        return cls(stream.codec_context.name, tick_of(stream), origin, by_dts)

    def time(self, packet: Packet[VideoStream]) -> float | None:
        """Time of a packet's frame in seconds from the origin; None if the file does not say."""
        first, second = (packet.dts, packet.pts) if self.by_dts else (packet.pts, packet.dts)
        stamp = second if first is None else first
        return None if stamp is None else stamp * self.tick - self.origin

    def holds_frame(self, packet: Packet[VideoStream]) -> bool:
        """True if a packet holds a frame that is shown.

        Some VP8 frames are references only and never shown (RFC 6386, 9.1: show_frame).
        """
        if not packet.size or packet.is_discard:
            return False
        return self.codec != "vp8" or bool((bytes(packet)[0] >> 4) & 1)


def tick_of(stream: VideoStream) -> float:
    """Resolution of a stream's timestamps in seconds; a millisecond if the file does not say."""
    return float(stream.time_base) if stream.time_base else 1e-3


def read_packets(
    container: InputContainer, stream: VideoStream, origin: float, window: Window | None = None
) -> Packets:
    """The packets of the stream, or of a `window` of it, with times in seconds from `origin`.

    Damage ends the reading without an error, since decoding reports it.
    """
    import av

    gathered = _Gathered(Stamps.of(container, stream, origin), container.format.name)
    if window is not None and window.start > 0:
        seek(container, stream, origin + window.start)
    inside = 0
    stop: int | None = None
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if not gathered.add(packet):
                continue
            time = gathered.times[-1]
            if window is not None and stop is None:
                inside += time >= window.start
                if time > window.until and inside >= window.frames:
                    stop = len(gathered.times) - 1
            elif stop is not None and len(gathered.times) - stop > MAX_REORDERING:
                return gathered.up_to(gathered.times[stop])
    return gathered.all(complete=window is None or window.start <= 0)


class _Gathered:
    def __init__(self, stamps: Stamps, format: str) -> None:
        self._stamps = stamps
        self._format = format
        self._marked = format in OPEN_ENDED_FORMATS
        self.times: list[float] = []
        self._durations: list[float] = []
        self._keys: list[bool] = []
        self._marks: dict[Mark, int | None] = {}
        self._positions: dict[int, int] = {}

    def add(self, packet: Packet[VideoStream]) -> bool:
        """Add a packet if it holds a frame; return True if it does."""
        if not self._stamps.holds_frame(packet):
            return False
        number = len(self.times)
        time = self._stamps.time(packet)
        self.times.append(np.nan if time is None else time)
        self._durations.append((packet.duration or 0) * self._stamps.tick)
        self._keys.append(packet.is_keyframe)
        if self._marked:
            if packet.pos is not None:
                self._positions[number] = packet.pos
            if packet.is_keyframe:
                mark = Mark.of(packet, self._format)
                self._marks[mark] = None if mark in self._marks else number
        return True

    def all(self, *, complete: bool) -> Packets:
        return self._packets(np.ones(len(self.times), np.bool_), complete=complete)

    def up_to(self, time: float) -> Packets:
        """The packets whose frames are shown up to `time`; some are stored after packets of later frames."""
        return self._packets(~(np.asarray(self.times) > time), complete=False)

    def _packets(self, kept: npt.NDArray[np.bool_], *, complete: bool) -> Packets:
        return Packets(
            np.asarray(self.times, np.float64)[kept],
            np.asarray(self._durations, np.float64)[kept],
            np.asarray(self._keys, np.bool_)[kept],
            {mark: number for mark, number in self._marks.items() if number is not None},
            self._positions,
            complete,
        )
