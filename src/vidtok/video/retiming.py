"""Frames of a finished video shown at other times than a constant rate gives."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from vidtok.errors import VideoError

if TYPE_CHECKING:
    from av.container import OutputContainer

_FINEST = 1_000_000


def retime(source: str | os.PathLike[str], target: str | os.PathLike[str], times: Sequence[float]) -> None:
    """Copy the video `source`, one that `VideoWriter` wrote, to `target`, with frame i shown at `times[i]` seconds.

    Nothing is coded again; sound is copied as it is. `times` rise, and the first is 0; they are kept to the tick where
    they are fractions with a denominator that a file can have, else to a microsecond. The last frame is shown as long
    as the one before it. Raises `VideoError` if `times` are not one for each frame, or `target` cannot be written.
    """
    import av

    base = _time_base(times)
    ticks = [round(Fraction(time) / base) for time in times]
    if any(late <= early for early, late in pairwise(ticks)):
        raise VideoError(f"the times for {target} do not rise; expected each frame to be shown after the one before")
    try:
        with av.open(os.fspath(source)) as reader, _opened(target) as writer:
            video = reader.streams.video[0]
            rate = video.average_rate or Fraction(25)
            new = writer.add_stream_from_template(video)
            new.time_base = base
            others = {s.index: writer.add_stream_from_template(s) for s in reader.streams.audio}
            count = 0
            # Packets come in the order of decoding, `delay` frames ahead of that in which frames are shown.
            delay: int | None = None
            for packet in reader.demux():
                if not packet.size or packet.pts is None:
                    continue
                if packet.stream.index in others:
                    packet.stream = others[packet.stream.index]
                    writer.mux(packet)
                    continue
                frame = round(packet.pts * packet.time_base * rate)
                if delay is None:
                    delay = frame - round((packet.dts or 0) * packet.time_base * rate)
                if not 0 <= frame < len(ticks):
                    raise VideoError(f"{len(ticks)} times were given for more frames than that of {source}")
                packet.pts = ticks[frame]
                packet.dts = _before(ticks, count - delay)
                packet.duration = _duration(ticks, frame)
                packet.time_base = base
                packet.stream = new
                count += 1
                writer.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{target} cannot be written: {reason}") from error
    if count != len(ticks):
        raise VideoError(f"{len(ticks)} times were given for the {count} frames of {source}")


def _opened(target: str | os.PathLike[str]) -> OutputContainer:
    import av

    matroska = os.fspath(target).lower().endswith(".mkv")
    return av.open(os.fspath(target), "w", container_options={} if matroska else {"movflags": "+faststart"})


def _before(ticks: Sequence[int], place: int) -> int:
    """When the frame at `place` is decoded: as it is shown, those ahead of the first evenly before it."""
    return ticks[place] if place >= 0 else ticks[0] + place


def _duration(ticks: Sequence[int], frame: int) -> int:
    if len(ticks) == 1:
        return 0
    following = min(frame + 1, len(ticks) - 1)
    return ticks[following] - ticks[following - 1]


def _time_base(times: Sequence[float]) -> Fraction:
    """The coarsest clock that has a tick at each of `times`, or microseconds."""
    common = 1
    for time in times:
        nearest = Fraction(time).limit_denominator(100_000)
        common = math.lcm(common, nearest.denominator)
        if abs(float(nearest) - time) > 1e-9 or common > _FINEST:
            return Fraction(1, _FINEST)
    return Fraction(1, max(common, 1000))
