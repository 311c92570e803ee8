"""One stream of a video file: opened safely, described and timed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vidtok.errors import VideoError, VidTokError
from vidtok.text import EMPTY, reason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Told to report damage, these decoders refuse intact files too, even those of FFmpeg's own encoder.
_PEDANTIC_DECODERS = ("tiff",)
_LISTS = {
    b"ffconcat version": "an ffconcat script",
    b"#extm3u": "an M3U playlist",
    b"[playlist]": "a PLS playlist",
    b"[reference]": "an ASX playlist",
}
_XML_LISTS = {
    b"<mpd": "a DASH manifest",
    b"<smil": "a SMIL playlist",
    b"<asx": "an ASX playlist",
    b"<playlist": "an XSPF playlist",
    b"<smoothstreamingmedia": "a Smooth Streaming manifest",
}
_LIST_FORMATS = ("concat", "hls", "dash", "imf", "sdp", "rtsp")
_LIST_WITHIN = 2048
_REASON_WITHIN = 300
_DEFAULT_COUNTS = 5_000_000
"""Pixels that FFmpeg adds to the size of the default stream where it chooses the largest stream."""
# Text that FFmpeg would draw as a picture of a terminal.
_NOT_VIDEO_FORMATS = ("tty", "bin", "xbin", "adf", "idf", "sbg")


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, a picture or a folder of pictures, after rotation and before any resize."""

    path: str
    width: int
    height: int
    fps: Fraction | None
    """Frames per second, the average where the rate varies; None for a still picture."""
    duration: float | None
    """Seconds of video; None for a still picture."""
    frame_count: int | None
    """Number of frames in the container; None if unknown. A damaged file may yield fewer."""
    rotation: int
    """Degrees (0, 90, 180, 270) by which the stored frames are turned clockwise to be shown."""
    codec: str
    pixel_format: str
    has_audio: bool
    is_picture: bool
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width to height of one pixel, after rotation. Frames are read as stored, with no stretching."""
    stream: int = 0
    """Number of this stream among the file's video streams, from 0 on; cover pictures do not count."""
    stream_count: int = 1
    """Number of the file's video streams."""

    @property
    def other_streams(self) -> str:
        """A note about the other video streams of the file, for the user; empty if there are none."""
        if self.stream_count == 1:
            return ""
        return (
            f"video stream {self.stream} of {self.stream_count} (0 to {self.stream_count - 1}); "
            "another one: --stream N (stream=N)"
        )


@dataclass(frozen=True)
class MediaSlice:
    """A media file stored uncompressed inside another file, such as a member of a .tar; accepted where paths are."""

    file: str
    """Path of the containing file."""
    offset: int
    """Byte of the containing file at which the media file begins."""
    size: int
    """Length of the media file in bytes."""
    name: str
    """Name of the media file inside the containing file."""

    def __fspath__(self) -> str:
        return f"{self.file}/{self.name}"

    def __str__(self) -> str:
        return os.fspath(self)


def read_head(path: str | os.PathLike[str], size: int) -> bytes:
    """The first `size` bytes of a media file, fewer if it is shorter."""
    if isinstance(path, MediaSlice):
        with open(path.file, "rb") as file:
            file.seek(path.offset)
            return file.read(min(size, path.size))
    with open(path, "rb") as file:
        return file.read(size)


@contextmanager
def open_container(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """The media file at `path`, open for reading until the block ends.

    No other file is read: FFmpeg may not follow playlists to other files or a network. Raises `VideoError` if the file
    does not exist, may not be read, or is not media.
    """
    import av

    place = Path(path.file if isinstance(path, MediaSlice) else path)
    _check_is_file(place, path)
    try:
        head = read_head(path, _LIST_WITHIN)
        if not head:
            raise VideoError(f"{path} {EMPTY}")
        kind = _list_kind(head)
        if kind is not None:
            raise VideoError(f"{path} is {kind}, a list of other files, not a video; give the videos that it names")
        # "file:" keeps FFmpeg from taking a name such as `a:b.mp4` for a protocol, and "pattern_type" from taking one
        # such as `%d.png` for a pattern.
        options = {"protocol_whitelist": "file", "pattern_type": "none"}
        url = f"file:{place.absolute()}"
        if isinstance(path, MediaSlice):
            options["protocol_whitelist"] = "file,subfile"
            url = f"subfile,,start,{path.offset},end,{path.offset + path.size},,:{url}"
        # Titles and other metadata come in any text encoding, which is no reason to refuse the video.
        container = av.open(url, container_options=options, metadata_errors="replace")
    except VideoError:
        raise
    except PermissionError as error:
        raise VideoError(f"{path} may not be read: permission denied; make it readable for this user") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path} is neither a video nor a picture, or is cut off before the index that it ends with "
            f"({reason(error)}); expected a file such as .mp4, .mov, .mkv, .webm, .gif, .png or .jpg that plays"
        ) from error
    with container:
        if container.format.name in _LIST_FORMATS:
            raise VideoError(f"{path} is a list of other files, not a video; give the videos that it names")
        if container.format.name in _NOT_VIDEO_FORMATS:
            raise VideoError(f"{path} is text, not a video; expected a file such as .mp4, .mov, .mkv, .webm or .png")
        yield container


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any exception of the block into a `VideoError` that names the file at `path`.

    Damaged bytes can make decoders and their bindings raise anything, and one such file must not end work on others.
    A `VidTokError`, and an `OSError` about a path, pass unchanged.
    """
    try:
        yield
    except VidTokError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None and type(error).__module__ == "builtins":
            raise  # the system refuses the path, so the file's contents are not at fault
        what = f"{type(error).__name__}: {reason(error)[:_REASON_WITHIN]}"
        raise VideoError(f"{path} cannot be read ({what}); get an undamaged copy, or convert it") from error


def _check_is_file(place: Path, path: str | os.PathLike[str]) -> None:
    """Raise `VideoError` unless `place` is a regular file: only those can be read from any point, and again."""
    if not os.path.exists(place):
        raise VideoError(f"{path}: no such file; check the path")
    if place.is_dir():
        raise VideoError(f"{path} is a folder; expected a file")
    if not place.is_file():
        kind = "a pipe" if place.is_fifo() else "a device or socket"
        raise VideoError(
            f"{path} is {kind}, which can be read only once and in order; write the video to a file, and give that"
        )


def _list_kind(head: bytes) -> str | None:
    """Kind of the playlist or manifest that begins with `head`; None if it is neither.

    FFmpeg would follow such a list to other files, or call it invalid.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, kind in _LISTS.items():
        if text.startswith(begin):
            return kind
    if text.startswith((b"<?xml", b"<")):
        return next((kind for tag, kind in _XML_LISTS.items() if tag in text), None)
    return None


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of a file, without cover pictures."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def video_stream(
    container: InputContainer, path: str | os.PathLike[str], threads: int | None = None, number: int | None = None
) -> VideoStream:
    """A video stream, set up to decode on several threads and to report damage.

    `number` counts from 0, without cover pictures. By default, the stream is the one that FFmpeg takes: the largest,
    where the stream marked as default counts 5 million pixels more. `threads` is the number of decoding threads; FFmpeg
    chooses by default.

    Raises `VideoError` if there is no such stream, or no decoder for it.
    """
    streams = video_streams(container)
    if not streams:
        others = ", ".join(sorted({s.type for s in container.streams if s not in container.streams.video}))
        raise VideoError(f"{path} has no video in it, only {others or 'a header'}; expected a video or a picture")
    if number is not None and not 0 <= number < len(streams):
        numbers = "0" if len(streams) == 1 else f"0 to {len(streams) - 1}"
        raise VideoError(f"{path} has no video stream {number}; expected {numbers}, or leave --stream (stream) out")
    stream = max(streams, key=_score) if number is None else streams[number]
    if stream.codec_context is None:
        raise VideoError(
            f"{path} is coded in a format for which this FFmpeg has no decoder; "
            "convert it, for example to H.264, or install the `av` package from PyPI, which brings more decoders"
        )
    stream.thread_type = "AUTO"
    if threads is not None:
        stream.codec_context.thread_count = threads
    if stream.codec_context.name not in _PEDANTIC_DECODERS:
        # Without this, damage is painted over and passes for video.
        stream.codec_context.options = {"err_detect": "explode"}
    return stream


def _score(stream: VideoStream) -> int:
    from av.stream import Disposition

    context = stream.codec_context
    pixels = 0 if context is None else context.width * context.height
    return pixels + (_DEFAULT_COUNTS if stream.disposition & Disposition.default else 0)


def is_still_format(container: InputContainer) -> bool:
    """True if the file's format holds one picture."""
    name = container.format.name
    return (
        name == "image2" or name.endswith("_pipe") or container.metadata.get("major_brand") in ("avif", "heic", "mif1")
    )


def timestamp(frame: VideoFrame) -> float | None:
    """Time of a frame, in seconds on the clock of the file; None if the file does not say."""
    pts = frame.pts if frame.pts is not None else frame.dts
    return None if pts is None or frame.time_base is None else float(pts * frame.time_base)
