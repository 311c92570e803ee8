"""Parts of a video, given by times or by frame numbers."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np

from vidtok.fields import shown
from vidtok.tokens import TokenFile, TokenFileError
from vidtok.tokens.reader import Times

Timestamp = str | float | Fraction | None
"""Seconds, as a number or as text such as "1.5" or "1:02.5", or a frame, as in "100f"; None: the very start or end."""

_FRAME = re.compile(r"(\d{1,15})f")
_CLOCK = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})")
_EPSILON = 1e-9


def frame_range(file: TokenFile, start: Timestamp, end: Timestamp, *, skip_damaged: bool = False) -> tuple[int, int]:
    """The frames of `file` that are shown from `start` to before `end`, as (first, after the last).

    The first is the frame that is being shown at `start`. An `end` beyond the last frame means the end of the file.
    With `skip_damaged`, damaged times count as regular ones. Raises `TokenFileError` if a timestamp cannot be read, or
    no frames lie between them.
    """
    times: Times | None = None
    if file.frames and file.timed and any(_seconds(timestamp) is not None for timestamp in (start, end)):
        times = file.times(skip_damaged=skip_damaged)
        times = times - times[0]
    first = _frame(file, start, times, ends=False) if start is not None else 0
    last = min(file.frames, _frame(file, end, times, ends=True)) if end is not None else file.frames
    if first >= file.frames:
        raise TokenFileError(
            f"{file.path} has {file.frames} frames, {float(file.frames / file.header.video.fps):.2f} s, and ends "
            f"before {start}; expected an earlier start (a number is in seconds, 100f is a frame)"
        )
    if last <= first:
        raise TokenFileError(f"there are no frames from {start or '0f'} to {end} in {file.path}; expected a later end")
    return first, last


def check_timestamp(timestamp: Timestamp) -> None:
    """Raise `TokenFileError` if `timestamp` cannot be read."""
    _seconds(timestamp)


def _frame(file: TokenFile, timestamp: Timestamp, times: Times | None, *, ends: bool) -> int:
    seconds = _seconds(timestamp)
    if seconds is None:
        match = _FRAME.fullmatch(str(timestamp))
        assert match is not None
        return int(match[1])
    if times is None:
        place = seconds * file.header.video.fps
        return math.ceil(place) if ends else math.floor(place)
    if ends:
        return int(np.searchsorted(times, float(seconds) - _EPSILON, "left"))
    beyond = float(seconds) >= times[-1] + 1 / float(file.header.video.fps)
    return len(times) if beyond else int(np.searchsorted(times, float(seconds) + _EPSILON, "right")) - 1


def _seconds(timestamp: Timestamp) -> Fraction | None:
    """The seconds that `timestamp` stands for, exactly; None for a frame or for none."""
    if timestamp is None or (isinstance(timestamp, str) and _FRAME.fullmatch(timestamp)):
        return None
    match = _CLOCK.fullmatch(str(timestamp)) if not isinstance(timestamp, Fraction) else None
    if match:
        hours, minutes, seconds = match.groups()
        return Fraction(seconds) + 60 * int(minutes or 0) + 3600 * int(hours or 0)
    if isinstance(timestamp, Fraction) and timestamp >= 0:
        return timestamp
    if isinstance(timestamp, float) and math.isfinite(timestamp) and timestamp >= 0:
        return Fraction(repr(timestamp))
    raise TokenFileError(
        f"{shown(timestamp)} is no place in a video; expected seconds (1.5 or 1:02.5) or a frame (100f)"
    )
