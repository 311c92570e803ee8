"""Times of all frames of a stream, laid out from its packets, also where its clock restarts, stalls or is missing."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidtok.video.packets import MAX_REORDERING, NO_PRESENTATION_TIMES, OPEN_ENDED_FORMATS, Packets, Seconds

GUESSED_FORMATS = (*OPEN_ENDED_FORMATS, "asf")
"""Formats whose missing times FFmpeg guesses, with other guesses where reading begins elsewhere."""
_LEAST_STEP_BACK = 3
"""Frames by which a time has to step back to count as a restart of the clock."""
_LEAST_LEAP = 10.0
_LEAP_FRAMES = 50
"""Seconds, and frames, by which an open-ended stream has to leap ahead to count as a restart; FFmpeg takes 10 s too."""
_MOST_MISGUESSED = 8
"""Frames by which a time that FFmpeg guessed is off at most."""


@dataclass(frozen=True)
class Traits:
    """Properties of a stream that its frame times depend on."""

    format: str
    """FFmpeg's name of the container's format."""
    bare: bool
    """True for a bare stream without a container, which stores no times; FFmpeg may make some up."""
    reorders: bool
    """True if display order differs from storage order."""
    intra_only: bool
    """True if the codec makes every frame a key frame."""
    rate: Fraction
    """Frames per second, as the file states or as assumed."""


@dataclass(frozen=True)
class Layout:
    """The times at which frames are shown, by a clock that never goes back."""

    times: Seconds
    """(N,) seconds: in storage order, or with `by_output` in the decoder's output order, which rises."""
    by_output: bool
    """True if the file does not say which time is which frame's, so that only decoding gives the frames' order."""
    last: float
    """Seconds that the last frame is shown for; 0 if the file does not say."""
    shifts: tuple[float, ...] = (0.0,)
    """Seconds to add to the file's clock, for each stretch of the stream that has a clock of its own."""
    timed: bool = True
    """True if the file stores times."""


def lay_out(packets: Packets, traits: Traits) -> Layout:
    """Times of the frames of `packets`; where the clock restarts, the new stretch follows the one before it."""
    known = np.isfinite(packets.times)
    guessed = not known.all() or len(np.unique(packets.times)) < len(packets)
    open_ended = traits.format in OPEN_ENDED_FORMATS
    if traits.bare or not known.any() or (traits.reorders and not known.all() and not open_ended):
        return Layout(np.arange(len(packets)) / float(traits.rate), True, 0.0, timed=False)
    times = _filled(packets.times, known, 1 / float(traits.rate))
    starts = _starts(times, packets, traits)
    by_output = _by_output(times, starts, known, traits)
    interval = 1 / float(traits.rate)
    mended = traits.format == "mpeg" or (
        guessed and ((open_ended and not traits.reorders) or (by_output and traits.format in GUESSED_FORMATS))
    )
    shifts: list[float] = []
    end = lasting = 0.0
    for first, stop in zip(starts, [*starts[1:], len(times)], strict=True):
        stretch = times[first:stop]
        lasting = float(packets.durations[first + int(stretch.argmax())])
        if by_output:
            stretch.sort()
        if mended:
            stretch[:] = _mended(stretch, interval)
        shift = end - float(stretch.min()) if shifts else 0.0
        shifts.append(shift)
        stretch += shift
        steps = np.diff(np.unique(stretch))
        end = float(stretch.max()) + (float(np.median(steps)) if len(steps) else interval)
    return Layout(times, by_output, lasting, tuple(shifts))


def restarts(packets: Packets, traits: Traits) -> bool:
    """True if the clock restarts within `packets`."""
    known = np.isfinite(packets.times)
    return bool(known.any()) and len(_starts(_filled(packets.times, known, 0.0), packets, traits)) > 1


def _filled(times: Seconds, known: np.ndarray[tuple[int], np.dtype[np.bool_]], interval: float) -> Seconds:
    """A copy of `times` in which each missing time is `interval` seconds after the one before it."""
    filled: Seconds = times.copy()
    before = -interval
    for number in np.flatnonzero(~known):
        before = float(filled[number - 1]) if number else -interval
        filled[number] = before + interval
    return filled


def _starts(times: Seconds, packets: Packets, traits: Traits) -> list[int]:
    """The numbers of the packets at which a clock starts."""
    # In storage order, reordered frames are about two intervals apart.
    steps = np.abs(np.diff(times)) / 2
    interval = max(
        (float(np.median(each[each > 0])) for each in (steps, packets.durations) if (each > 0).any()), default=0.0
    )
    all_keys = traits.intra_only or bool(packets.keys.all())
    back = interval * (MAX_REORDERING if all_keys else _LEAST_STEP_BACK)
    leap = max(_LEAST_LEAP, _LEAP_FRAMES * interval) if traits.format in OPEN_ENDED_FORMATS else np.inf
    starts = [0]
    highest = before_key = -np.inf
    for number, (time, is_key) in enumerate(zip(times.tolist(), packets.keys.tolist(), strict=True)):
        # A key frame, and each frame stored after it, is shown after all frames stored before it.
        if is_key:
            before_key = highest
        if interval and number and (time < before_key - back or time > highest + leap):
            starts.append(number)
            highest = before_key = -np.inf
        highest = max(highest, time)
    return starts


def _by_output(
    times: Seconds, starts: list[int], known: np.ndarray[tuple[int], np.dtype[np.bool_]], traits: Traits
) -> bool:
    """True if `times` cannot be the display times of the frames, one by one."""
    if not traits.reorders:
        return False
    if traits.format in NO_PRESENTATION_TIMES or not known.all():
        return True
    stretches = np.split(times, starts[1:])
    if any(len(np.unique(stretch)) < len(stretch) for stretch in stretches):
        return True
    # The display times of reordered frames do not rise throughout in storage order.
    return len(times) > 2 and all(bool((np.diff(stretch) > 0).all()) for stretch in stretches)


def _mended(times: Seconds, interval: float) -> Seconds:
    """`times` on a grid of `interval` seconds, in place of FFmpeg's guesses, which give different frames one time.

    Times that are far from the grid stay as they are.
    """
    order = np.argsort(times, kind="stable")
    grid = times[order[0]] + np.arange(len(times)) * interval
    if bool((np.abs(times[order] - grid) > _MOST_MISGUESSED * interval).any()):
        return times
    mended = np.empty_like(times)
    mended[order] = grid
    return mended
