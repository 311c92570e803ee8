"""One stream of a video file: opened safely, described, timed and decoded to RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidtok.errors import VideoError
from vidtok.text import reason
from vidtok.video.frames import Pixels
from vidtok.video.orientation import Orientation, frame_orientation

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# AVColorSpace (what a stream is tagged with) to swscale's numbers; both 601 variants share one matrix.
_MATRIX_OF_TAG = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT601, _BT709 = 5, 1
_LIMITED, _FULL = 1, 2
_BILINEAR, _FULL_CHROMA, _ACCURATE_ROUNDING = 0x2, 0x2000, 0x40000
# Asked to report damage, these refuse sound files too, their own encoder's among them.
_PEDANTIC_DECODERS = ("tiff",)
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


@dataclass(frozen=True)
class MediaSlice:
    """A media file that lies, uncompressed, inside another one, such as a member of a .tar; goes where a path goes."""

    file: str
    """The file around it."""
    offset: int
    """Its first byte."""
    size: int
    """Its length in bytes."""
    name: str
    """Its name inside the file."""

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
    """The media file at `path`; closed at the end. Only that file is read: playlists cannot reach others or a network.

    Raises `VideoError` if there is no such file, it may not be read, or it is not media.
    """
    import av

    place = Path(path.file if isinstance(path, MediaSlice) else path)
    if not os.path.exists(place):
        raise VideoError(f"{path}: no such file; check the path")
    if place.is_dir():
        raise VideoError(f"{path} is a folder; expected a file")
    try:
        # "file:" keeps a name such as `a:b.mp4` from being taken for a protocol, the second option one such as
        # `%d.png` from being taken for a pattern.
        options = {"protocol_whitelist": "file", "pattern_type": "none"}
        url = f"file:{place.absolute()}"
        if isinstance(path, MediaSlice):
            options["protocol_whitelist"] = "file,subfile"
            url = f"subfile,,start,{path.offset},end,{path.offset + path.size},,:{url}"
        container = av.open(url, container_options=options)
    except PermissionError as error:
        raise VideoError(f"{path} may not be read: permission denied; make it readable for this user") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path} is neither a video nor a picture, or is cut off before the index that it ends with "
            f"({reason(error)}); expected a file such as .mp4, .mov, .mkv, .webm, .gif, .png or .jpg that plays"
        ) from error
    with container:
        if container.format.name in _NOT_VIDEO_FORMATS:
            raise VideoError(f"{path} is text, not a video; expected a file such as .mp4, .mov, .mkv, .webm or .png")
        yield container


def video_stream(container: InputContainer, path: str | os.PathLike[str], threads: int | None = None) -> VideoStream:
    """The first video stream that is not a cover picture, set up to decode on several threads and to report damage.

    `threads` is the number of decoding threads. Raises `VideoError` if there is no such stream, or no decoder for it.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(sorted({s.type for s in container.streams if s not in container.streams.video}))
        raise VideoError(f"{path} has no video in it, only {others or 'a header'}; expected a video or a picture")
    stream = streams[0]
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


def is_still_format(container: InputContainer) -> bool:
    """True if the file is of a kind that holds one picture."""
    name = container.format.name
    return (
        name == "image2" or name.endswith("_pipe") or container.metadata.get("major_brand") in ("avif", "heic", "mif1")
    )


def timestamp(frame: VideoFrame) -> float | None:
    """Time of a frame, in seconds on the clock of the file; None if the file does not say."""
    pts = frame.pts if frame.pts is not None else frame.dts
    return None if pts is None or frame.time_base is None else float(pts * frame.time_base)


class RGBConverter:
    """Decoded frames as RGB, upright. Keeps the converter of one stream ready between frames.

    The stream's tags say which matrix and range its colours use. Without tags, players' assumptions hold: BT.709
    from 1280 columns or 577 rows on, BT.601 below, limited range. Grey counts as full range and alpha is left out, as
    FFmpeg does both. There is no tone mapping of high dynamic range, and no deinterlacing.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, orientation: Orientation | None = None) -> Pixels:
        """(H, W, 3) uint8, turned and mirrored as `orientation`, or else the frame itself, asks for."""
        flags = _BILINEAR | _FULL_CHROMA | _ACCURATE_ROUNDING
        if frame.format.is_rgb or "pal8" in frame.format.name:
            rgb = self._reformatter.reformat(frame, format="rgb24", interpolation=flags)
        else:
            hd = frame.width >= 1280 or frame.height > 576
            limited = frame.color_range != _FULL and not frame.format.name.startswith("yuvj")
            rgb = self._reformatter.reformat(
                frame,
                format="rgb24",
                interpolation=flags,
                src_colorspace=_MATRIX_OF_TAG.get(frame.colorspace, _BT709 if hd else _BT601),
                src_color_range=_LIMITED if limited else _FULL,
                dst_color_range=_FULL,
            )
        return (orientation or frame_orientation(frame))(rgb.to_ndarray().astype(np.uint8, copy=False))
