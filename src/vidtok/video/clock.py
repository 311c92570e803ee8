"""Times of decoded frames, found through the packets that they come from."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidtok.video.layout import Layout
from vidtok.video.packets import Stamps

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_KEPT = 512


class FrameClock:
    """Numbers packets on their way into a decoder, and finds the times of the frames that come out by these numbers.

    A decoder hands the timestamp of a packet on to its frame. A count takes the place of the file's timestamp: it is
    never missing, and no two packets have the same.

    Args:
        stamps: rules by which the packets of the stream are read.
        layout: the times of all frames of the stream; None: each packet's own time holds.
        by_output: `Layout.by_output`, where no `layout` is given.
    """

    def __init__(
        self,
        stamps: Stamps,
        layout: Layout | None = None,
        *,
        by_output: bool = False,
    ) -> None:
        self.by_output = by_output if layout is None else layout.by_output
        self._stamps = stamps
        self._layout = layout
        self._first = self._number = 0
        # A stream cut out of another begins with frames before the origin, which cannot be decoded.
        self._rank = 0 if layout is None else int((layout.times < -stamps.tick / 2).sum())
        self._waiting: list[float] = []
        self._times: dict[int, float] = {}
        self._last: int | None = None

    def start_at(self, number: int) -> None:
        """Give the next packet the number `number`, its place in the whole stream; later packets count on from it."""
        self._first = self._number = self._rank = number

    def enter(self, packet: Packet[VideoStream]) -> None:
        """Replace the timestamps of `packet`, the next one into the decoder, by its number."""
        if not self._stamps.holds_frame(packet):
            return
        if self._layout is None:
            time = self._stamps.time(packet)
            if time is not None and self.by_output:
                heapq.heappush(self._waiting, time)
            elif time is not None:
                self._times[self._number] = time
        packet.pts = packet.dts = self._number
        self._number += 1

    def skip_lost(self, numbers: Sequence[int]) -> bool:
        """Account for frames shown before the first packet's and stored after it, which cannot be decoded.

        `numbers` are the numbers of the frames that came out first, as many as a decoder may hold back. Returns True if
        the first packet's frame leads them; otherwise no frame's place in the order is known.
        """
        if not numbers or numbers[0] != self._first:
            return False
        lost = min((number for number in numbers[1:]), default=self._first + 1) - self._first - 1
        self._rank += lost
        for _ in range(min(lost, len(self._waiting))):
            heapq.heappop(self._waiting)
        return lost >= 0

    def time(self, frame: VideoFrame) -> float | None:
        """Time of `frame` in seconds; None if it is unknown, so that the frame starts at the end of the one before."""
        number, again = frame.pts, frame.pts == self._last
        self._last = number
        if self.by_output:
            return self._next()
        if number is None or again:
            return None
        if self._layout is not None:
            return float(self._layout.times[number]) if 0 <= number < len(self._layout.times) else None
        if len(self._times) > _KEPT:
            for old in [old for old in self._times if old < number - _KEPT // 2]:
                del self._times[old]
        return self._times.pop(number, None)

    def _next(self) -> float | None:
        """Take the earliest time that no frame has had yet; None if there is none."""
        if self._layout is None:
            return heapq.heappop(self._waiting) if self._waiting else None
        self._rank += 1
        return float(self._layout.times[self._rank - 1]) if self._rank <= len(self._layout.times) else None
