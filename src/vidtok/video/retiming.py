"""New times, at no constant rate, for the frames of a finished video."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vidtok.errors import VideoError
from vidtok.files import Aside, writing

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_FINEST = 1_000_000
_COARSEST = 1000
_MOST_TICKS = 2**29
"""Ticks between two frames at most: MP4 stores a frame's duration, and its delay by reordering, in 31 bits."""


def retime(
    source: str | os.PathLike[str], target: str | os.PathLike[str], fps: Fraction, times: Sequence[float]
) -> None:
    """Copy the video `source`, which `VideoWriter` wrote at `fps`, to `target`, frame i shown at `times[i]` seconds.

    Nothing is coded again, and sound keeps its times. `times` start at 0. They are kept exactly if they are multiples
    of a tick that a file can have, else to a microsecond, or more coarsely where a frame lasts for minutes (Matroska:
    to a millisecond). A frame that would not come after the frame before it is shown one tick after it. The last frame
    lasts as long as the one before it. `target` appears whole. Raises `VideoError` if there is not one time for each
    frame, or `target` cannot be written.
    """
    import av

    target, base = Path(target), _time_base(times)
    ticks = _rising([round(Fraction(time) / base) for time in times])
    with writing(target, VideoError, also=(av.error.FFmpegError,)):
        order = _order(source, fps)
        if sorted(order) != list(range(len(ticks))):
            raise VideoError(
                f"{len(ticks)} times were given for the {len(order)} frames of {target}; give one for each frame"
            )
        with av.open(os.fspath(source)) as reader, Aside(target) as path, _opened(path, base) as writer:
            _copy(reader, writer, order, ticks, base)


def _rising(ticks: list[int]) -> list[int]:
    """`ticks`, each raised to one more than the tick before it where it is not larger than that."""
    risen: list[int] = []
    for tick in ticks:
        risen.append(max(tick, risen[-1] + 1) if risen else tick)
    return risen


def _order(source: str | os.PathLike[str], fps: Fraction) -> list[int]:
    """Number of the frame in each packet, in decoding order; frames are numbered in display order."""
    import av

    with av.open(os.fspath(source)) as reader:
        order = [_frame_of(packet, fps) for packet in reader.demux(video=0) if packet.size]
    if len(set(order)) == len(order):
        return order
    # The clock of Matroska is coarser than some frame rates, so that only decoding gives the order.
    shown: list[int] = []
    with av.open(os.fspath(source)) as reader:
        for place, packet in enumerate(reader.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = place
            shown += [frame.pts for frame in packet.decode() if frame.pts is not None]
    frames = {place: frame for frame, place in enumerate(shown)}
    return [frames.get(place, -1) for place in range(len(order))]


def _copy(
    reader: InputContainer, writer: OutputContainer, order: Sequence[int], ticks: Sequence[int], base: Fraction
) -> None:
    """Copy all packets; video packet i holds frame `order[i]` and is shown at that frame's tick, in units of `base`."""
    delay = max(place - frame for place, frame in enumerate(order))
    stream = writer.add_stream_from_template(reader.streams.video[0])
    stream.time_base = base
    sounds = {sound.index: writer.add_stream_from_template(sound) for sound in reader.streams.audio}
    place = 0
    for packet in reader.demux():
        if not packet.size:
            continue
        if packet.stream.index in sounds:
            packet.stream = sounds[packet.stream.index]
        else:
            frame = order[place]
            packet.pts, packet.dts = ticks[frame], _decoded_at(ticks, place - delay)
            packet.duration, packet.time_base = _duration(ticks, frame), base
            packet.stream = stream
            place += 1
        writer.mux(packet)


def _frame_of(packet: Packet[VideoStream], fps: Fraction) -> int:
    """Number of the frame in a packet, in display order."""
    return round((packet.pts or 0) * (packet.time_base or 0) * fps)


def _opened(target: Path, base: Fraction) -> OutputContainer:
    import av

    if target.suffix.lower() == ".mkv":
        options = {"fflags": "+bitexact"}  # or Matroska files get a random number each
    else:
        # By default, FFmpeg multiplies a clock of fewer than 10,000 ticks a second.
        options = {"movflags": "+faststart", "video_track_timescale": str(base.denominator)}
    return av.open(os.fspath(target), "w", container_options=options)


def _decoded_at(ticks: Sequence[int], place: int) -> int:
    """Tick at which the frame stored at `place` is decoded; a `place` below 0 is decoded before the first tick."""
    return ticks[place] if place >= 0 else ticks[0] + place


def _duration(ticks: Sequence[int], frame: int) -> int:
    if len(ticks) == 1:
        return 0
    following = min(frame + 1, len(ticks) - 1)
    return ticks[following] - ticks[following - 1]


def _time_base(times: Sequence[float]) -> Fraction:
    """Seconds of a tick, at most a millisecond, of which all `times` are multiples; else a microsecond.

    The tick is longer where a frame would last more ticks than a file can store.
    """
    longest = max((late - early for early, late in pairwise(times)), default=0.0)
    finest = min(_FINEST, 10 ** int(math.log10(max(1.0, _MOST_TICKS / max(longest, 1.0)))))
    common = 1
    for time in times:
        nearest = Fraction(time).limit_denominator(100_000)
        common = math.lcm(common, nearest.denominator)
        if abs(float(nearest) - time) > 1e-9 or common > finest:
            return Fraction(1, finest)
    return Fraction(1, common * math.ceil(min(_COARSEST, finest) / common))
