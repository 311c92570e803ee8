"""Sources of frames: a media file or a folder of pictures, behind one interface."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vidtok.errors import VideoError
from vidtok.video.colour import RGBConverter
from vidtok.video.container import VideoInfo, read_head, reading
from vidtok.video.frames import Pixels
from vidtok.video.library import PICTURE_SUFFIXES, is_media
from vidtok.video.media import EXIF_WITHIN, FOLDER_FPS, DecodedFrame, FileSource, first_frame
from vidtok.video.orientation import exif_orientation
from vidtok.video.packets import Window
from vidtok.video.timing import Timing


class FrameSource(Protocol):
    """Frames of a video in display order; every call of `frames` reads them anew."""

    info: VideoInfo
    timing: Timing

    def frames(self, start: float) -> Iterator[DecodedFrame]:
        """The frames from some point at or before `start` seconds on.

        Raises `DamagedVideoError` where the video breaks off or cannot be decoded, after all frames before that.
        """


def open_source(
    path: str | os.PathLike[str], window: Window | None = None, threads: int | None = None, stream: int | None = None
) -> FrameSource:
    """The media file, or the folder of pictures, at `path` as a source of frames.

    With a `window`, only the timing of that stretch of a file is read. `threads` is the number of decoding threads;
    FFmpeg chooses by default. `stream` is the number of a video stream, as for `video_stream`. Raises `VideoError` if
    the path cannot be read.
    """
    with reading(path):
        if Path(path).is_dir():
            if stream:
                raise VideoError(f"{path} is a folder of pictures, which has no stream {stream}; leave --stream out")
            return FolderSource(path)
        return FileSource(path, window, threads, stream)


class FolderSource:
    """The pictures of a folder as the frames of a video, in natural order (`2.png` before `10.png`), 25 a second."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        try:
            entries = [e for e in Path(path).iterdir() if is_media(e.name, PICTURE_SUFFIXES) and e.is_file()]
        except PermissionError as error:
            raise VideoError(f"{path} may not be read: permission denied; make it readable for this user") from error
        self._pictures = sorted(entries, key=_natural_order)
        if not self._pictures:
            raise VideoError(
                f"{path} is a folder with no pictures in it; expected files that end in {', '.join(PICTURE_SUFFIXES)}, "
                "or the path of one video (`vidtok encode` takes a folder of videos where the output is a folder too)"
            )
        count = len(self._pictures)
        duration = float(count / FOLDER_FPS)
        self.timing = Timing(FOLDER_FPS, True, count, 0.0, duration, 0, float(1 / FOLDER_FPS))
        first = FileSource(self._pictures[0]).info
        self.info = replace(
            first, path=os.fspath(path), fps=FOLDER_FPS, duration=duration, frame_count=count, is_picture=False
        )

    def frames(self, start: float) -> Iterator[DecodedFrame]:
        skip = max(0, int(start * FOLDER_FPS + self.timing.tolerance) - 1)
        for index, picture in enumerate(self._pictures[skip:], skip):
            yield DecodedFrame(float(index / FOLDER_FPS), lambda picture=picture: self._load(picture))  # type: ignore[misc]

    def _load(self, picture: Path) -> Pixels:
        pixels = load_picture(picture)
        if pixels.shape[:2] != (self.info.height, self.info.width):
            raise VideoError(
                f"{picture} is {pixels.shape[1]} x {pixels.shape[0]}, but {self._pictures[0].name} is "
                f"{self.info.width} x {self.info.height}; expected pictures of one size "
                "in a folder that is read as a video"
            )
        return pixels


def load_picture(path: str | os.PathLike[str]) -> Pixels:
    """The (H, W, 3) uint8 RGB pixels of a picture file, upright. Raises `VideoError` if it cannot be read whole."""
    return RGBConverter()(first_frame(path), exif_orientation(read_head(path, EXIF_WITHIN)))


def check_apart(output: Path, input: Path) -> None:
    """Raise `VideoError` if writing `output` would touch `input`, a file or a folder of pictures."""
    if _is_same(output, input):
        raise VideoError(f"{output} is the input itself; give another output")
    if output.suffix.lower() in PICTURE_SUFFIXES and _is_same(output.parent, input):
        raise VideoError(f"{output} would be one of the pictures of {input}, the input; give an output elsewhere")


def _is_same(first: Path, second: Path) -> bool:
    """True if both paths exist and name the same file; errors over a path are left to the code that opens it."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Properties of the video, picture or folder of pictures at `path`.

    Reads all of a file, and decodes its first frame. Raises `VideoError` if it cannot be read, or has no video or no
    frames.
    """
    return open_source(path).info
