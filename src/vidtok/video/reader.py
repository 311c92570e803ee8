"""Frames of a video, one at a time, chosen, resized and cropped as in the published preprocessing."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vidtok.errors import DamagedVideoError, VideoError
from vidtok.video.container import VideoInfo, reading
from vidtok.video.frames import Fit, Frame, Pixels, as_rate
from vidtok.video.media import DecodedFrame
from vidtok.video.packets import Window
from vidtok.video.source import FrameSource, open_source

if TYPE_CHECKING:
    from torch import Tensor

# Seconds beyond the wanted frames whose packets are read for the timing too.
_MARGIN = 2.0


class VideoReader:
    """The frames of a video, an animation, a picture or a folder of pictures.

    Frames are decoded as they are asked for, so memory does not grow with the length; the reader can be iterated over
    any number of times, and closes its files at the end of its `with` block.

    Without `sample_fps`, every frame is taken. With it, a video of constant rate gives every
    `max(1, round(fps / sample_fps))`-th frame in display order. A video of varying rate gives the frame shown at each
    multiple of `1 / sample_fps` seconds after `start`, so that a frame may come several times or never. The first frame
    is the one shown at `start`. A folder of pictures counts as 25 frames per second.

    Size: see `Fit.plan`; with neither `height` nor `width`, as stored (after rotation, pixels taken for square).

    Args:
        path: a file or a folder.
        sample_fps: frames per second wanted.
        height: rows after resize and crop; the same as `width` if only that is given.
        width: columns after resize and crop; the same as `height` if only that is given.
        enlarge: enlarge frames that are narrower than the crop until they fill it; False: black at their sides.
        max_frames: stop after this many frames.
        start: seconds into the video to start at.
        allow_truncated: let a damaged video end where the damage begins, and set `truncated`, instead of raising.
        threads: number of decoding threads; FFmpeg chooses by default.
        stream: number of the video stream in the file, from 0 on; the one that FFmpeg takes by default.

    Raises:
        VideoError: a value out of range; no such file; not a video; no video in it; no frames; no decoder.
        DamagedVideoError: while iterating, where the video breaks off or cannot be decoded.
    """

    info: VideoInfo
    """Properties of the file."""
    fps: Fraction
    """Frames per second of the frames that this reader yields: the stream's, divided by the step; `sample_fps` for a
    video of variable rate (its average if there is no `sample_fps`); 1 for a picture."""
    size: tuple[int, int]
    """(height, width) of the frames that this reader yields."""
    frame_estimate: int | None
    """Number of frames that this reader will yield, as far as the file says."""
    truncated: bool
    """After iterating with `allow_truncated`: True if the video broke off."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample_fps: float | None = None,
        height: int | None = None,
        width: int | None = None,
        max_frames: int | None = None,
        start: float = 0.0,
        allow_truncated: bool = False,
        threads: int | None = None,
        stream: int | None = None,
        enlarge: bool = True,
    ) -> None:
        wanted = None if sample_fps is None else as_rate(sample_fps)
        if max_frames is not None and max_frames < 1:
            raise VideoError(f"max_frames is {max_frames}; expected at least 1")
        if not (math.isfinite(start) and start >= 0):
            raise VideoError(f"start is {start}; expected seconds from the start of the video, at least 0")
        Fit.plan((1, 1), height, width)
        self._start = start
        self._enlarge = enlarge
        self._max_frames = max_frames
        self._taken: tuple[int, ...] | None = None
        self._allow_truncated = allow_truncated
        self._iterators: weakref.WeakSet[Generator[Frame, None, None]] = weakref.WeakSet()
        window = None
        if max_frames is not None:
            # Rounding the step to a whole number makes it at most 1.5 times as long as asked for.
            span = float(max_frames / wanted) * 1.5 if wanted else 0.0
            window = Window(start, start + span + _MARGIN, max_frames)
        self._source: FrameSource = open_source(path, window, threads, stream)
        self.info = self._source.info
        timing = self._source.timing
        if self.info.is_picture:
            self._start = 0.0
        elif start >= timing.end:
            raise VideoError(
                f"start is {start:g} s, but {path} ends after {timing.end:.2f} s; expected an earlier start"
            )
        self._grid = wanted if wanted is not None and not timing.constant else None
        self._step = 1 if wanted is None else max(1, round(timing.rate / wanted))
        self.fps = Fraction(1) if self.info.is_picture else self._grid or timing.rate / self._step
        self._stored = (self.info.height, self.info.width)
        self.fit(height, width)
        self.frame_estimate = self._estimate()
        self.truncated = False

    def _estimate(self) -> int | None:
        timing = self._source.timing
        if self.info.is_picture:
            return 1
        if self._grid:
            count = math.ceil((timing.end - self._start - timing.tolerance) * self._grid)
        else:
            before = max(0, math.floor((self._start - timing.start + timing.tolerance) * timing.rate))
            count = math.ceil((timing.frame_count - before) / self._step)
        return max(1, count if self._max_frames is None else min(count, self._max_frames))

    @property
    def rate_varies(self) -> bool:
        """True if no constant frame rate gives the times of the stored frames."""
        return not self._source.timing.constant

    def __iter__(self) -> Iterator[Frame]:
        """The chosen frames in display order, from the first one again at each call."""
        iterator = self._frames()
        self._iterators.add(iterator)
        return iterator

    def chunks(self, frames: int, times: list[float] | None = None) -> Iterator[Pixels]:
        """The chosen frames as arrays of (T, H, W, 3) uint8 with T = `frames`, fewer in the last one only.

        Their times, in seconds, are appended to `times`. Raises `VideoError` if `frames` is below 1.
        """
        if frames < 1:
            raise VideoError(f"a chunk of {frames} frames was asked for; expected at least 1")
        chunk: list[Pixels] = []
        for frame in self:
            chunk.append(frame.pixels)
            if times is not None:
                times.append(frame.time)
            if len(chunk) == frames:
                yield np.stack(chunk)
                chunk = []
        if chunk:
            yield np.stack(chunk)

    def fit(self, height: int | None, width: int | None) -> None:
        """Yield frames of another size from now on, as if `height` and `width` had been given at the start."""
        self._fit = Fit.plan(self._stored, height, width, enlarge=self._enlarge)
        self.size = self._fit.cropped
        self._fits = (height, width)

    @property
    def fitting(self) -> Fit:
        """The resize and crop of the frames that this reader yields."""
        return self._fit

    def take(self, numbers: Sequence[int]) -> None:
        """Yield the stored frames of these rising `numbers` from now on, whatever `sample_fps` and `max_frames` say.

        They count from the frame that is shown at `start`, 0; the frames between are decoded and not converted.
        """
        self._taken = tuple(numbers)
        self.frame_estimate = len(self._taken)

    def close(self) -> None:
        """End all iterations that are under way, and close their files."""
        for iterator in list(self._iterators):
            iterator.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _frames(self) -> Generator[Frame, None, None]:
        self.truncated = False
        chosen = self._chosen(_from(self._unbroken(), self._start, self._source.timing.tolerance))
        count = 0
        last: tuple[DecodedFrame, Pixels] | None = None
        for decoded in chosen:
            # A frame that is sampled several times is converted once.
            pixels = last[1] if last is not None and last[0] is decoded else self._fitted(decoded)
            last = (decoded, pixels)
            yield Frame(pixels, decoded.time)
            count += 1
            if count == (self._max_frames if self._taken is None else len(self._taken)):
                return
        if count == 0:
            raise VideoError(f"{self.info.path} has no frames from {self._start:g} s on; expected at least one")

    def _unbroken(self) -> Iterator[DecodedFrame]:
        try:
            with reading(self.info.path):
                yield from self._source.frames(self._start)
        except DamagedVideoError as damage:
            if not self._allow_truncated or damage.frames == 0:
                raise
            self.truncated = True

    def _chosen(self, frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
        if self._taken is not None:
            numbers = frozenset(self._taken)
            yield from (frame for index, frame in enumerate(frames) if index in numbers)
            return
        if self._grid is None:
            yield from (frame for index, frame in enumerate(frames) if index % self._step == 0)
            return
        tolerance = self._source.timing.tolerance
        target = 0
        current: DecodedFrame | None = None
        for frame in frames:
            while current is not None and self._start + target / self._grid < frame.time - tolerance:
                yield current
                target += 1
            current = frame
        end = self._source.timing.end
        while current is not None and self._start + target / self._grid < max(end, current.time) - tolerance:
            yield current
            target += 1

    def _fitted(self, decoded: DecodedFrame) -> Pixels:
        with reading(self.info.path):
            pixels = decoded.load()
        stored = (pixels.shape[0], pixels.shape[1])
        if stored == self._stored:
            return self._fit(pixels)
        if self._fits == (None, None):
            raise VideoError(
                f"{self.info.path} changes its size from {self._stored[1]} x {self._stored[0]} "
                f"to {stored[1]} x {stored[0]} at {decoded.time:.2f} s; "
                "give a height and width to bring all frames to one size"
            )
        return Fit.plan(stored, *self._fits, enlarge=self._enlarge)(pixels)


def _from(frames: Iterator[DecodedFrame], start: float, tolerance: float) -> Iterator[DecodedFrame]:
    """`frames` from the one that is shown at `start` seconds on."""
    if start <= 0:
        yield from frames
        return
    current: DecodedFrame | None = None
    for frame in frames:
        if current is not None and frame.time > start + tolerance:
            yield current
        current = frame
    if current is not None:
        yield current


def read_video(
    path: str | os.PathLike[str],
    *,
    sample_fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    max_frames: int | None = None,
    start: float = 0.0,
    allow_truncated: bool = False,
    stream: int | None = None,
) -> Tensor:
    """All frames that a `VideoReader` with these arguments yields, as one tensor (T, H, W, 3) uint8 RGB."""
    with VideoReader(
        path,
        sample_fps=sample_fps,
        height=height,
        width=width,
        max_frames=max_frames,
        start=start,
        allow_truncated=allow_truncated,
        stream=stream,
    ) as reader:
        import torch

        return torch.from_numpy(np.stack([frame.pixels for frame in reader]))
