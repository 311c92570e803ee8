"""One media file as a source of frames that starts anywhere; each frame has its time in the whole stream."""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import dropwhile
from typing import TYPE_CHECKING

import numpy as np

from vidtok.errors import DamagedVideoError, VideoError
from vidtok.video.clock import FrameClock
from vidtok.video.colour import RGBConverter
from vidtok.video.container import (
    MediaSlice,
    VideoInfo,
    is_still_format,
    open_container,
    read_head,
    timestamp,
    video_stream,
    video_streams,
)
from vidtok.video.decoder import StreamDecoder
from vidtok.video.frames import Pixels
from vidtok.video.layout import GUESSED_FORMATS, lay_out, restarts
from vidtok.video.orientation import Orientation, exif_orientation, frame_orientation
from vidtok.video.packets import OPEN_ENDED_FORMATS, Mark, Packets, Stamps, Window, read_packets, seek
from vidtok.video.timing import Timing, declared_end, measure, traits_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FOLDER_FPS = Fraction(25)
"""Frames per second that a folder of pictures counts as."""
EXIF_WITHIN = 1 << 17
_MAX_DISORDER = 32
_STEPS_BACK = (0.0, 1.0, 10.0)
"""Seconds before the wanted frame to seek a key frame at, tried in this order."""
_MISSED_BY_SEEKING = ("wtv",)
"""Formats in which FFmpeg seeks to packets between key frames."""
_KEYS_TRIED = 3
_SCANS_KEPT = 4

_Timed = Iterator[tuple[float, "VideoFrame"]]


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame, not yet converted: frames that are not used are spared more than half of the work."""

    time: float
    """Time at which the frame is first shown, in seconds from the start of the video."""
    load: Callable[[], Pixels]
    """Returns the frame's (H, W, 3) uint8 RGB pixels, upright."""


class FileSource:
    """One video, animation or picture file; arguments as for `open_source`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        window: Window | None = None,
        threads: int | None = None,
        stream: int | None = None,
    ) -> None:
        self.path = path
        self._threads = threads
        self._chosen = stream
        first = first_frame(path, threads, stream)
        self._origin = _origin(path, stream, first)
        with open_container(path) as container:
            video = video_stream(container, path, number=stream)
            self._still = is_still_format(container)
            self._open_ended = container.format.name in OPEN_ENDED_FORMATS
            self._traits = traits_of(container, video)
            self._packets = self._read(container, video, window)
            self._layout = lay_out(self._packets, self._traits)
            self._guessed = self._layout.by_output and self._traits.format in GUESSED_FORMATS
            if self._guessed:
                self._look_through()
            self.timing = measure(video, self._layout, complete=self._packets.complete)
            audio = bool(container.streams.audio)
            codec = video.codec_context.name
            ratio = video.sample_aspect_ratio or Fraction(1)
            frame_count, duration = _length(container, video, self.timing, self._origin)
            streams = video_streams(container)
            number, count = streams.index(video), len(streams)
        self._still_orientation = exif_orientation(read_head(path, EXIF_WITHIN)) if self._still else None
        picture = self._still or (frame_count == 1 and codec in ("gif", "apng"))
        orientation = self._orientation(first)
        height, width = first.height, first.width
        if orientation.transpose:
            height, width, ratio = width, height, 1 / ratio
        self.info = VideoInfo(
            path=os.fspath(path),
            width=width,
            height=height,
            fps=None if picture else self.timing.rate,
            duration=None if picture else duration,
            frame_count=1 if picture else frame_count,
            rotation=orientation.rotation,
            codec=codec,
            pixel_format=first.format.name,
            has_audio=audio,
            is_picture=picture,
            sample_aspect_ratio=ratio,
            stream=number,
            stream_count=count,
        )

    @property
    def shifts(self) -> tuple[float, ...]:
        """Seconds to add to the file's clock, for each stretch with a clock of its own, to start the video at 0."""
        return tuple(shift - self._origin for shift in self._layout.shifts)

    def _read(self, container: InputContainer, video: VideoStream, window: Window | None) -> Packets:
        # Starting inside an open-ended stream takes the packets of all of it, and a bare one has no times to start by.
        if window is None or self._traits.bare or (self._open_ended and window.start > 0):
            return self._all_packets()
        packets = read_packets(container, video, self._origin, window)
        # Some formats, such as bare H.264 without a container, give no packets after a seek.
        if not len(packets) or (not packets.complete and restarts(packets, self._traits)):
            return self._all_packets()
        return packets

    def _look_through(self) -> None:
        """Read all packets, so that the times of the whole stream are known."""
        if not self._packets.complete:
            self._packets = self._all_packets()
            self._layout = lay_out(self._packets, self._traits)

    def _all_packets(self) -> Packets:
        file = self.path.file if isinstance(self.path, MediaSlice) else os.fspath(self.path)
        status = os.stat(file)
        return _scanned(
            self.path if isinstance(self.path, MediaSlice) else file,
            (status.st_size, status.st_mtime_ns),
            self._chosen,
            self._origin,
        )

    def _orientation(self, frame: VideoFrame) -> Orientation:
        return self._still_orientation or frame_orientation(frame)

    def frames(self, start: float) -> Iterator[DecodedFrame]:
        convert = RGBConverter()

        def decoded(time: float, frame: VideoFrame) -> DecodedFrame:
            return DecodedFrame(time, lambda: convert(frame, self._orientation(frame)))

        damage: DamagedVideoError | None = None
        waiting: list[tuple[float, int, VideoFrame]] = []
        depth = min(self.timing.disorder, _MAX_DISORDER)
        try:
            for number, (time, frame) in enumerate(self._decode(start)):
                heapq.heappush(waiting, (time, number, frame))
                if len(waiting) > depth:
                    time, _, frame = heapq.heappop(waiting)
                    yield decoded(time, frame)
        except DamagedVideoError as error:
            damage = error
        while waiting:
            time, _, frame = heapq.heappop(waiting)
            yield decoded(time, frame)
        if damage is not None:
            raise damage

    def _decode(self, start: float) -> _Timed:
        """Frames with their times in decoding order, from a key frame at or before `start` if one is found."""
        if start > 0:
            for entry in self._entries(start):
                with self._opened() as (container, stream):
                    frames = entry(container, stream)
                    try:
                        first = next(frames, None)
                    except DamagedVideoError:
                        # Frames just after a key frame may refer to frames before it; an earlier entry has those.
                        first = None
                    if first is not None and first[0] <= start + self.timing.tolerance:
                        yield first
                        yield from frames
                        return
            self._look_through()
        with self._opened() as (container, stream):
            layout = self._layout if self._packets.complete else None
            clock = FrameClock(self._stamps(container, stream), layout, by_output=self._layout.by_output)
            yield from self._decoder(container, stream, clock).frames()

    def _decoder(
        self,
        container: InputContainer,
        stream: VideoStream,
        clock: FrameClock,
        packets: Iterable[Packet[VideoStream]] | None = None,
    ) -> StreamDecoder:
        return StreamDecoder(self.path, container, stream, self.timing.rate, self._origin, clock, packets)

    def _stamps(self, container: InputContainer, stream: VideoStream) -> Stamps:
        return Stamps.of(container, stream, self._origin)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        with open_container(self.path) as container:
            yield container, video_stream(container, self.path, self._threads, self._chosen)

    def _entries(self, start: float) -> Iterator[Callable[[InputContainer, VideoStream], _Timed]]:
        """Functions that decode from a key frame at or before `start`, the nearest first."""
        if self._open_ended:
            for key in self._keys_before(start):
                yield lambda container, stream, key=key: self._from_mark(container, stream, key)  # type: ignore[misc]
            return
        lost = self._traits.format in _MISSED_BY_SEEKING or self._guessed
        if self._layout.timed and len(self._layout.shifts) == 1 and not lost:
            for back in _STEPS_BACK:
                if start - back > 0:
                    yield lambda container, stream, time=start - back: self._from_time(container, stream, time)  # type: ignore[misc]

    def _from_time(self, container: InputContainer, stream: VideoStream, time: float) -> _Timed:
        seek(container, stream, self._origin + time)
        clock = FrameClock(self._stamps(container, stream), by_output=self._layout.by_output)
        packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
        return self._decoder(container, stream, clock, packets).frames_from_key()

    def _keys_before(self, start: float) -> list[int]:
        """Packet numbers of the last key frames that are shown at or before `start` and have a mark, latest first."""
        times, limit = self._layout.times, start + self.timing.tolerance
        numbers = np.sort(np.fromiter(self._packets.marks.values(), np.int64))
        if self._layout.by_output:
            early = numbers[numbers < np.searchsorted(times, limit, side="right")]
        else:
            early = numbers[times[numbers] <= limit]
        return [int(number) for number in early[::-1][:_KEYS_TRIED] if number > 0]

    def _from_mark(self, container: InputContainer, stream: VideoStream, key: int) -> _Timed:
        known = sorted(self._packets.positions)
        place = bisect_right(known, key)
        if place == 0 or not _seek_byte(container, self._packets.positions[known[place - 1]]):
            return iter(())
        clock = FrameClock(self._stamps(container, stream), self._layout)
        packets = _from_known(container, stream, self._packets.marks, key, clock)
        return self._decoder(container, stream, clock, packets).frames_from_key()


def _origin(path: str | os.PathLike[str], stream: int | None, first: VideoFrame) -> float:
    """Start of the stream by the file's clock, in seconds; `first` is its first frame."""
    with open_container(path) as container:
        video = video_stream(container, path, number=stream)
        stamps = Stamps.of(container, video, 0.0)
        if stamps.by_dts:
            return next((stamps.time(packet) or 0.0 for packet in container.demux(video)), 0.0)
    return timestamp(first) or 0.0


@lru_cache(_SCANS_KEPT)
def _scanned(path: str | os.PathLike[str], stamp: tuple[int, int], stream: int | None, origin: float) -> Packets:
    """All packets of a stream; `stamp` changes when the file does, so that the cache is not out of date."""
    with open_container(path) as container:
        return read_packets(container, video_stream(container, path, number=stream), origin)


def _seek_byte(container: InputContainer, position: int) -> bool:
    import av

    with suppress(av.error.FFmpegError):
        container.seek(position, unsupported_byte_offset=True)
        return True
    return False


def _from_known(
    container: InputContainer, stream: VideoStream, marks: dict[Mark, int], last: int, clock: FrameClock
) -> Iterator[Packet[VideoStream]]:
    """Packets from the first key frame with a known mark on, where `clock` starts; none if it comes after `last`."""
    started = False
    for packet in container.demux(stream):
        if not started:
            if not (packet.size and packet.is_keyframe):
                continue
            number = marks.get(Mark.of(packet, container.format.name))
            if number is None:
                continue
            if number > last:
                return
            clock.start_at(number)
            started = True
        yield packet


def _length(
    container: InputContainer, stream: VideoStream, timing: Timing, origin: float
) -> tuple[int | None, float | None]:
    """Number of frames and seconds of the whole stream: measured, or as the file states if only a part was read."""
    if timing.complete:
        return timing.frame_count, timing.end
    stated = declared_end(container, stream, origin)
    return stream.frames or None, stated[0] if stated else None


def first_frame(path: str | os.PathLike[str], threads: int | None = None, stream: int | None = None) -> VideoFrame:
    """The first frame that a file's decoder gives, not converted. Raises `VideoError` if there is none."""
    with open_container(path) as container:
        video = video_stream(container, path, threads, stream)
        found = next(StreamDecoder(path, container, video, FOLDER_FPS).pictures(), None)
        if found is None:
            raise VideoError(f"{path} has no frames; expected a video or a picture with at least one")
        return found
