"""Reenactment: the structure of one video with the dynamics of another, from files to a file.

Follows section 4 of arXiv 2412.17726.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidtok.errors import VideoError, VidTokError
from vidtok.models.base import VideoModel
from vidtok.runtime.limits import Progress, check_finite, computing, frame_size, frames_at_a_time
from vidtok.video import Pixels, VideoReader, VideoWriter, to_float, to_uint8
from vidtok.video.source import check_apart


@dataclass(frozen=True, kw_only=True)
class Reenactment:
    """A reenactment that was written, and its figures."""

    output: Path
    frames: int
    height: int
    width: int
    """Size of the result alone, without the sources beside it."""
    fps: Fraction
    sources: tuple[str, ...]
    """The parts that were decoded: `structure`, `dynamics` or both."""
    seconds: float
    """Time from the first frame read to the output at its path."""


class ReenactmentJob:
    """A reenactment from files to a file; inputs and output are checked here, before a model is needed.

    Args:
        output: a path that ends in .mp4, .mov or .mkv.
        structure: input whose structure is decoded, anything that `VideoReader` reads; None: no structure.
        dynamics: input whose dynamics are decoded, of the same kinds; None: no dynamics.
        fps: frames per second to sample from each input; None: every frame, paired in order.
        start: seconds into each input to start at.
        max_frames: stop after this many frames; the result ends with the shorter input in any case.
        side_by_side: put the inputs to the left of the result.
        allow_truncated: let a damaged video end where the damage begins, instead of raising.

    Raises:
        VideoError: an input cannot be read, or the output cannot be written.
        VidTokError: neither a structure nor dynamics are given.
    """

    def __init__(
        self,
        output: str | os.PathLike[str],
        *,
        structure: str | os.PathLike[str] | None = None,
        dynamics: str | os.PathLike[str] | None = None,
        fps: float | None = None,
        start: float = 0.0,
        max_frames: int | None = None,
        side_by_side: bool = True,
        allow_truncated: bool = False,
    ) -> None:
        given = {name: path for name, path in (("structure", structure), ("dynamics", dynamics)) if path is not None}
        if not given:
            raise VidTokError("there is nothing to decode; give --structure, --dynamics or both (structure, dynamics)")
        for path in given.values():
            check_apart(Path(output), Path(path))
        if Path(output).suffix.lower() == ".png":
            raise VideoError(f"{output} is a picture; give an output that ends in .mp4, .mov or .mkv")
        VideoWriter(output, 1).abort()
        self._readers = {
            name: VideoReader(
                path, sample_fps=fps, max_frames=max_frames, start=start, allow_truncated=allow_truncated
            )
            for name, path in given.items()
        }  # fmt: skip
        first = next(iter(self._readers.values()))
        self._writer = VideoWriter(output, first.fps)
        self._side_by_side = side_by_side

    @property
    def frame_estimate(self) -> int | None:
        """Frames of the shorter video, as far as the files say."""
        estimates = [reader.frame_estimate for reader in self._readers.values()]
        return min((estimate for estimate in estimates if estimate is not None), default=None)

    def run(self, model: VideoModel, progress: Progress | None = None) -> Reenactment:
        """Write the reenactment; a job runs only once. `progress` is called with the number of frames done.

        Raises `VidTokError` if `model` does not keep structure and dynamics apart, if it gives values that are not
        finite, or if memory is too small, and `VideoError` if a video breaks off; nothing is left behind then.
        """
        model.recombine(None, None)  # refuses before any work
        for reader in self._readers.values():
            reader.fit(*frame_size(model, None, None))
        height, width = next(iter(self._readers.values())).size
        started, done = time.perf_counter(), 0
        with computing(), self._writer as writer:
            for sources in self._clips(frames_at_a_time(model.config, (height, width), None)):
                latents = {name: model.encode(to_float(clip), sample=False) for name, clip in sources.items()}
                latent = model.recombine(latents.get("structure"), latents.get("dynamics"))
                frames = len(next(iter(sources.values())))
                video = model.decode(latent)[:, :, :frames].float()
                check_finite(video, model)
                shown = [*(sources.values() if self._side_by_side else ()), to_uint8(video)]
                writer.write(np.concatenate(shown, axis=2))
                done += frames
                if progress is not None:
                    progress(done)
        return Reenactment(
            output=writer.path,
            frames=done,
            height=height,
            width=width,
            fps=writer.fps,
            sources=tuple(self._readers),
            seconds=time.perf_counter() - started,
        )

    def _clips(self, length: int) -> Iterator[dict[str, Pixels]]:
        """Clips of all inputs, by part, with equal numbers of frames."""
        try:
            for clips in zip(*(reader.chunks(length) for reader in self._readers.values()), strict=False):
                frames = min(map(len, clips))
                yield {name: clip[:frames] for name, clip in zip(self._readers, clips, strict=True)}
        finally:
            for reader in self._readers.values():
                reader.close()
