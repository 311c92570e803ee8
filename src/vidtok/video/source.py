"""Sources of frames: a media file or a folder of pictures, behind one interface."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vidtok.errors import DamagedVideoError, VideoError
from vidtok.video.container import (
    RGBConverter,
    VideoInfo,
    is_still_format,
    open_container,
    read_head,
    timestamp,
    video_stream,
)
from vidtok.video.frames import Pixels
from vidtok.video.library import PICTURE_SUFFIXES, is_media
from vidtok.video.orientation import Orientation, exif_orientation, frame_orientation
from vidtok.video.timing import OPEN_ENDED_FORMATS, Timing, Window, declared_end, scan, seek

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FOLDER_FPS = Fraction(25)
"""Frames per second that a folder of pictures counts as."""
_MAX_DISORDER = 32
_EXIF_WITHIN = 1 << 17


@dataclass(frozen=True)
class DecodedFrame:
    """A frame that was decoded; `load` gives its (H, W, 3) uint8 RGB pixels, upright.

    Frames that are not used are never converted, which saves more than half of the work.
    """

    time: float
    load: Callable[[], Pixels]


class FrameSource(Protocol):
    """Frames in the order in which they are shown, again from the start at every call of `frames`."""

    info: VideoInfo
    timing: Timing

    def frames(self, start: float) -> Iterator[DecodedFrame]:
        """The frames from some point at or before `start` seconds on.

        Raises `DamagedVideoError`, after the frames before it, where the video breaks off or cannot be decoded.
        """


def open_source(path: str | os.PathLike[str], window: Window | None = None, threads: int | None = None) -> FrameSource:
    """The file or folder at `path`; of a file, only the timing of `window` is read if one is given.

    `threads` decode it; FFmpeg chooses their number by default. Raises `VideoError` if it cannot be read.
    """
    return FolderSource(path) if Path(path).is_dir() else FileSource(path, window, threads)


class FileSource:
    """One video, animation or picture file."""

    def __init__(self, path: str | os.PathLike[str], window: Window | None = None, threads: int | None = None) -> None:
        self.path = path
        self._threads = threads
        first = first_frame(path, threads)
        self._origin = timestamp(first) or 0.0
        with open_container(path) as container:
            stream = video_stream(container, path)
            self._still = is_still_format(container)
            self.timing = scan(container, stream, self._origin, window)
            if self.timing.frame_count == 0:
                # Some formats, such as bare H.264 with no container, end up nowhere when asked to seek.
                with open_container(path) as again:
                    self.timing = scan(again, video_stream(again, path), self._origin)
            audio = bool(container.streams.audio)
            codec = stream.codec_context.name
            ratio = stream.sample_aspect_ratio or Fraction(1)
            frame_count, duration = _length(container, stream, self.timing, self._origin)
        self._still_orientation = exif_orientation(read_head(path, _EXIF_WITHIN)) if self._still else None
        picture = self._still or (frame_count == 1 and codec in ("gif", "apng"))
        orientation = self._orientation(first)
        height, width = first.height, first.width
        if orientation.transpose:
            height, width, ratio = width, height, 1 / ratio
        self.info = VideoInfo(
            path=os.fspath(path),
            width=width,
            height=height,
            fps=None if picture else self.timing.rate,
            duration=None if picture else duration,
            frame_count=1 if picture else frame_count,
            rotation=orientation.rotation,
            codec=codec,
            pixel_format=first.format.name,
            has_audio=audio,
            is_picture=picture,
            sample_aspect_ratio=ratio,
        )

    def _orientation(self, frame: VideoFrame) -> Orientation:
        return self._still_orientation or frame_orientation(frame)

    def frames(self, start: float) -> Iterator[DecodedFrame]:
        convert = RGBConverter()

        def decoded(time: float, frame: VideoFrame) -> DecodedFrame:
            return DecodedFrame(time, lambda: convert(frame, self._orientation(frame)))

        damage: DamagedVideoError | None = None
        waiting: list[tuple[float, int, VideoFrame]] = []
        depth = min(self.timing.disorder, _MAX_DISORDER)
        try:
            for number, (time, frame) in enumerate(self._decode(start)):
                heapq.heappush(waiting, (time, number, frame))
                if len(waiting) > depth:
                    time, _, frame = heapq.heappop(waiting)
                    yield decoded(time, frame)
        except DamagedVideoError as error:
            damage = error
        while waiting:
            time, _, frame = heapq.heappop(waiting)
            yield decoded(time, frame)
        if damage is not None:
            raise damage

    def _decode(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Decoded frames with their times, from the key frame before `start` if the file can be entered there."""
        if start:
            with open_container(self.path) as container:
                stream = video_stream(container, self.path, self._threads)
                seek(container, stream, self._origin + start)
                frames = self._decoder(container, stream, from_start=False).frames()
                try:
                    first = next(frames, None)
                except DamagedVideoError:
                    # Frames just after a key frame may refer to some before it; decoding from the start has those.
                    first = None
                if first is not None and first[0] <= start + self.timing.tolerance:
                    yield first
                    yield from frames
                    return
        with open_container(self.path) as container:
            stream = video_stream(container, self.path, self._threads)
            yield from self._decoder(container, stream, from_start=True).frames()

    def _decoder(self, container: InputContainer, stream: VideoStream, *, from_start: bool) -> _StreamDecoder:
        return _StreamDecoder(self.path, container, stream, self._origin, self.timing.rate, from_start=from_start)


def _length(
    container: InputContainer, stream: VideoStream, timing: Timing, origin: float
) -> tuple[int | None, float | None]:
    """Frames and seconds of the whole stream, from the file's own statements where only a part was looked through."""
    if timing.complete:
        return timing.frame_count, timing.end
    stated = declared_end(container, stream, origin)
    return stream.frames or None, stated[0] if stated else None


class _StreamDecoder:
    """Decodes one stream once, and tells if it breaks off."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: InputContainer,
        stream: VideoStream,
        origin: float,
        rate: Fraction,
        *,
        from_start: bool,
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._origin = origin
        self._interval = 1 / float(rate)
        self._from_start = from_start
        self._frames = 0
        self._packets = 0

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        import av

        end = 0.0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                decoded = [] if packet is None else packet.decode()
            except av.error.FFmpegError as error:
                if self._frames == 0 and self._container.format.name in OPEN_ENDED_FORMATS:
                    # Cut out of a broadcast, it may begin with frames that refer to what came before.
                    continue
                raise self._damage(str(error.strerror)) from error
            if packet is None:
                break
            self._packets += bool(packet.size)
            for frame in decoded:
                if frame.is_corrupt:
                    raise self._damage("a frame is corrupt")
                stamp = timestamp(frame)
                time = end if stamp is None else stamp - self._origin
                lasting = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                end = max(end, time + (lasting or self._interval))
                self._frames += 1
                yield time, frame
        self._check_end(end)

    def _check_end(self, end: float) -> None:
        expected = declared_end(self._container, self._stream, self._origin)
        if expected is None or self._frames == 0:
            return
        seconds, exact = expected
        missing = seconds - end
        counted = self._stream.frames if self._from_start else 0
        if counted:
            broken = self._packets < counted and missing > self._interval / 2
        else:
            broken = missing > (self._interval * 0.6 if exact else max(0.5, 2 * self._interval))
        if broken:
            raise self._damage(f"it ends after {end:.2f} of {seconds:.2f} s")

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
    return RGBConverter()(first_frame(path), exif_orientation(read_head(path, _EXIF_WITHIN)))


def first_frame(path: str | os.PathLike[str], threads: int | None = None) -> VideoFrame:
    """The first frame of a file, as it is stored. Raises `VideoError` if there is none."""
    with open_container(path) as container:
        stream = video_stream(container, path, threads)
        found = next(_StreamDecoder(path, container, stream, 0.0, FOLDER_FPS, from_start=True).frames(), None)
        if found is None:
            raise VideoError(f"{path} has no frames; expected a video or a picture with at least one")
        return found[1]


def check_apart(output: Path, input: Path) -> None:
    """Raise `VideoError` if writing `output` would touch `input`, a file or a folder of pictures."""
    if _is_same(output, input):
        raise VideoError(f"{output} is the input itself; give another output")
    if output.suffix.lower() in PICTURE_SUFFIXES and _is_same(output.parent, input):
        raise VideoError(f"{output} would be one of the pictures of {input}, the input; give an output elsewhere")


def _is_same(first: Path, second: Path) -> bool:
    """True if both are there and the same; other faults of a path are for those who open it."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Properties of the video, picture or folder of pictures at `path`. Reads it through, decoding one frame.

    Raises `VideoError` if it cannot be read, has no video, or no frames.
    """
    return open_source(path).info
