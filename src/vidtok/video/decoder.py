"""One pass of a decoder over a stream, to its end or up to damage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from vidtok.errors import DamagedVideoError
from vidtok.video.clock import FrameClock
from vidtok.video.packets import MAX_REORDERING, OPEN_ENDED_FORMATS, tick_of
from vidtok.video.timing import declared_end

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LOOKED_AT = MAX_REORDERING + 2


class StreamDecoder:
    """Decodes one stream once.

    Args:
        path: the file, for messages.
        container, stream: the open file, and its stream to decode.
        rate: frames per second, on average.
        origin: start of the stream by the file's clock, in seconds.
        clock: source of the frames' times; None: each frame starts at the end of the one before.
        packets: the packets to decode; None: all from the container's position on.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: InputContainer,
        stream: VideoStream,
        rate: Fraction,
        origin: float = 0.0,
        clock: FrameClock | None = None,
        packets: Iterable[Packet[VideoStream]] | None = None,
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._interval = 1 / float(rate)
        # Where the clock is coarser than the frames, even an end that is stated exactly is off by up to a tick.
        self._tick = max(0.0, tick_of(stream) - self._interval)
        self._origin = origin
        self._clock = clock
        self._source = iter(container.demux(stream) if packets is None else packets)
        self._end = 0.0
        self._frames = 0
        self._packets = 0

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """The frames from the start of the stream on, each as (time in seconds, frame).

        Raises `DamagedVideoError` where the stream breaks off.
        """
        yield from self._timed(self.pictures())
        self._check_end(from_start=True)

    def frames_from_key(self) -> Iterator[tuple[float, VideoFrame]]:
        """As `frames`, but from a key frame on; nothing where the times of the frames after it are unknown."""
        clock, pictures = self._clock, self.pictures()
        head: list[VideoFrame] = []
        damage: DamagedVideoError | None = None
        if clock is not None and clock.by_output:
            try:
                for picture in pictures:
                    head.append(picture)
                    if len(head) == _LOOKED_AT:
                        break
            except DamagedVideoError as error:
                damage = error
            if not clock.skip_lost([-1 if picture.pts is None else picture.pts for picture in head]):
                return
        yield from self._timed(chain(head, pictures))
        if damage is not None:
            raise damage
        self._check_end(from_start=False)

    def _timed(self, pictures: Iterable[VideoFrame]) -> Iterator[tuple[float, VideoFrame]]:
        for frame in pictures:
            time = None if self._clock is None else self._clock.time(frame)
            time = self._end if time is None else time
            lasting = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            self._end = max(self._end, time + (lasting or self._interval))
            yield time, frame

    def pictures(self) -> Iterator[VideoFrame]:
        """Frames in the decoder's output order, without times. Raises `DamagedVideoError` at damage."""
        import av

        while True:
            try:
                packet = next(self._source, None)
                if packet is not None and self._clock is not None:
                    self._clock.enter(packet)
                decoded = [] if packet is None else packet.decode()
            except av.error.FFmpegError as error:
                if self._frames == 0 and self._container.format.name in OPEN_ENDED_FORMATS:
                    # A recording cut out of a broadcast may begin with frames that refer to earlier ones.
                    continue
                raise self._damage(str(error.strerror)) from error
            if packet is None:
                return
            self._packets += bool(packet.size)
            for frame in decoded:
                if frame.is_corrupt:
                    raise self._damage("a frame is corrupt")
                self._frames += 1
                yield frame

    def _check_end(self, *, from_start: bool) -> None:
        expected = declared_end(self._container, self._stream, self._origin)
        if expected is None or self._frames == 0:
            return
        seconds, exact = expected
        missing = seconds - self._end
        counted = self._stream.frames if from_start else 0
        if counted:
            broken = self._packets < counted and missing > self._interval / 2
        else:
            broken = missing > (self._interval * 0.6 + self._tick if exact else max(0.5, 2 * self._interval))
        if broken:
            raise self._damage(f"it ends after {self._end:.2f} of {seconds:.2f} s")

    def _damage(self, reason: str) -> DamagedVideoError:
        if self._frames == 0:
            return DamagedVideoError(
                f"{self._path} is damaged, or of a kind that this FFmpeg cannot decode (such as animated WebP): "
                f"{reason}; no frame could be decoded; get an undamaged copy, or convert it",
                0,
            )
        announced = f" of {self._stream.frames}" if self._stream.frames else ""
        return DamagedVideoError(
            f"{self._path} is cut off or damaged: {reason}; {self._frames}{announced} frames could be decoded; "
            "to use only those, give --allow-truncated (allow_truncated=True)",
            self._frames,
        )
