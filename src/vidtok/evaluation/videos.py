"""The videos of a folder, and the frames of one of them, hashed as they pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidtok.errors import VideoError
from vidtok.evaluation.options import EvaluationOptions
from vidtok.video import Pixels, VideoReader
from vidtok.video.container import reading
from vidtok.video.library import VIDEO_SUFFIXES, find_files, find_inputs, is_list, read_list


@dataclass(frozen=True)
class Video:
    """A video to measure on."""

    path: Path
    name: str
    """Its path below the folder, with forward slashes."""

    def stamp(self) -> str:
        """Size and time of the last change of the file, as text. Raises `VideoError` if the file is gone."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise VideoError(f"{self.path} cannot be read: {error.strerror}; check the path") from error
        return f"{status.st_size}-{status.st_mtime_ns}"


def find_videos(
    folder: str | os.PathLike[str],
    meta: str | os.PathLike[str] | None = None,
    *,
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES,
    named: str = "",
    meta_named: str = "--meta",
) -> list[Video]:
    """The videos below `folder`, as `find_files` finds them, or those that the meta file names.

    Args:
        folder: a folder, one video, or a list of videos as `find_inputs` reads it.
        meta: a list of paths relative to `folder`, as `read_list` reads it.
        suffixes: endings of the names of videos, in lower case.
        named, meta_named: the options that gave `folder` and `meta`, for messages.

    Raises:
        VideoError: there is no such folder, no video in it, or the meta file cannot be read or names none.
    """
    folder, place = Path(folder), f"{named} {folder}".strip()
    if is_list(folder) and not named:
        if meta is not None:
            raise VideoError(f"{folder} is a list, and {meta_named} is given too; leave one of them out")
        listed = find_inputs(folder, suffixes)
        return [Video(path, path.relative_to(listed.root).as_posix()) for path in listed.paths]
    if meta is not None:
        names = read_list(meta, meta_named)
        if not names:
            raise VideoError(f"{meta_named} {meta} names no videos; expected a column `videos`, filled in every row")
        return [Video(folder / name, Path(name).as_posix()) for name in dict.fromkeys(names)]
    if folder.is_file() and not named:
        return [Video(folder, folder.name)]
    kinds = f"{suffixes[0]} files" if len(suffixes) == 1 else "videos"
    if not folder.is_dir():
        raise VideoError(f"{place} is not a folder; expected one with {kinds} below it")
    found = [Path(path) for path in find_files(folder, suffixes)]
    if not found:
        what = f"no {suffixes[0]} file" if len(suffixes) == 1 else f"no video ({', '.join(suffixes)})"
        raise VideoError(f"there is {what} below {place}; give a folder with videos")
    return [Video(path, path.relative_to(folder).as_posix()) for path in found]


class FrameStream:
    """The frames of one video as `options` choose them, in pieces, hashed as they pass.

    Raises `VideoError`, at once or while iterating, if the video cannot be read to its end.
    """

    def __init__(self, video: Video, options: EvaluationOptions) -> None:
        self.video = video
        self.options = options
        with reading(video.path):
            self._reader = VideoReader(
                video.path,
                sample_fps=options.fps,
                height=options.height,
                width=options.width,
                enlarge=options.enlarge,
                max_frames=options.max_frames,
                start=options.start,
                allow_truncated=options.allow_truncated,
            )
        self.size = self._reader.size
        """(height, width)."""
        self.fps: Fraction = self._reader.fps
        self.frame_estimate = self._reader.frame_estimate
        self.frames = 0
        """The number of frames that have passed."""
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the frames that have passed: (height, width), then RGB of 8 bits, row by row."""
        return self._hash.hexdigest()

    def chunks(self, frames: int, *, fill: bool = False) -> Iterator[Pixels]:
        """The video in pieces (T, H, W, 3) uint8 of `frames` frames, fewer in the last.

        `fill` repeats the last frame until the last piece is as long as the others; the copies are counted and hashed.
        """
        self.frames = 0
        self._hash = hashlib.sha256(repr(self.size).encode())
        with reading(self.video.path), self._reader as reader:
            for chunk in self._wanted(reader.chunks(frames)):
                if fill and len(chunk) < frames:
                    chunk = np.concatenate([chunk, np.repeat(chunk[-1:], frames - len(chunk), axis=0)])
                self.frames += len(chunk)
                self._hash.update(np.ascontiguousarray(chunk).data)
                yield chunk

    def _wanted(self, chunks: Iterator[Pixels]) -> Iterator[Pixels]:
        """The frames up to the end of the last of `options.whole_chunks`. Raises `VideoError` if no chunk is whole."""
        if self.options.whole_chunks is None:
            yield from chunks
            return
        lead, size = self.options.whole_chunks
        held: Pixels | None = None
        passed = 0
        for chunk in chunks:
            held = chunk if held is None else np.concatenate([held, chunk])
            whole = (passed + len(held) - lead) // size * size + lead - passed
            if whole > 0 and passed + whole > lead:
                yield held[:whole]
                held, passed = held[whole:], passed + whole
        if not passed:
            count = 0 if held is None else len(held)
            raise VideoError(
                f"{self.video.path} has {count} frames; expected at least {lead + size}, for one whole chunk"
            )

    def close(self) -> None:
        self._reader.close()
