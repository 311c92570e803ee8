"""Writing of videos that play in a browser, and of pictures; files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vidtok.errors import VideoError
from vidtok.files import Aside, check_place, writing
from vidtok.video.audio import AudioCopy
from vidtok.video.colour import YUVConverter
from vidtok.video.container import open_container
from vidtok.video.frames import Pixels, as_rate
from vidtok.video.library import OUTPUT_SUFFIXES
from vidtok.video.retiming import retime

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_MOST_THREADS = 128
_SLOW = Fraction(1, 1000)


class VideoWriter:
    """Writes frames as H.264 (`.mp4`, `.mov`, `.mkv`), or one frame as `.png`. Use it in a `with` block.

    The file appears at `path`, whole, when the block ends; until then an older file stays there. If the block raises,
    nothing is left behind. H.264 is written as yuv420p in BT.709, limited range, and tagged so. An odd height or width
    is made even by repeating the last row or column. The first frames set the size.

    Args:
        path: the file to write.
        fps: frames per second; see `as_rate` for 29.97 and the like.
        crf: constant rate factor of x264, 0 (best) to 51.
        preset: x264's trade of time for size, one of `PRESETS`.
        threads: threads of x264. One gives the same bytes on every run and on any number of cores; more are faster
            where nothing else computes, but the bytes then depend on their number, and sometimes on the run.
        audio_from: a media file whose first audio track is copied: unchanged if the format holds its codec and browsers
            play it, else coded as AAC. It is shifted so that the first video frame of that file coincides with the
            first one here. A file without audio adds none; a `.png` takes none.
        sample_aspect_ratio: width to height of one pixel.
        times: a function, called at the end, that returns the time of each frame in seconds from any start; for frames
            at no constant rate, of which `fps` is then the average. See `retime`. Sound keeps its own times.
        stream: number of the video stream of `audio_from` that its sound goes with; the default is `VideoReader`'s.

    Raises:
        VideoError: a suffix or value that cannot be used, a folder that does not exist or cannot be written, frames of
            a changing size, no frames, more than one frame for a picture, an encoder that is missing, or a full disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        *,
        crf: int = 18,
        preset: str = "medium",
        threads: int = 1,
        audio_from: str | os.PathLike[str] | None = None,
        sample_aspect_ratio: Fraction = Fraction(1),
        times: Callable[[], Sequence[float]] | None = None,
        stream: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = as_rate(fps)
        self.frame_count = 0
        suffix = self.path.suffix.lower()
        if suffix not in OUTPUT_SUFFIXES:
            raise VideoError(
                f"{path} ends in {repr(suffix) if suffix else 'no suffix'}; "
                f"expected one of {', '.join(OUTPUT_SUFFIXES)}"
            )
        if not 0 <= crf <= 51:
            raise VideoError(f"crf is {crf}; expected 0 (best) to 51 (smallest)")
        if preset not in PRESETS:
            raise VideoError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
        if not 1 <= threads <= _MOST_THREADS:
            raise VideoError(f"threads is {threads}; expected 1 to {_MOST_THREADS}")
        check_place(self.path, VideoError, "output.mp4")
        picture = suffix == ".png"
        _check_encoder("png" if picture else "libx264", self.path)
        if audio_from is not None:
            with open_container(audio_from):
                pass
        self._aside = Aside(self.path)
        self._output: _H264Output | _PNGOutput | None = None
        self._options = {"crf": str(crf), "preset": preset, "threads": str(threads)}
        self._audio_from = audio_from
        self._audio_stream = stream
        self._times = times
        self._ratio = sample_aspect_ratio
        self._picture = picture
        self._size: tuple[int, ...] = ()
        self._closed = False

    def write(self, frames: Pixels) -> None:
        """Append `frames`, (T, H, W, 3) uint8 RGB, T >= 0."""
        if self._closed:
            raise VideoError(f"{self.path} is closed; open another writer to write more")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
            raise VideoError(f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 (T, H, W, 3)")
        if len(frames) == 0:
            return
        if self._size and frames.shape[1:3] != self._size:
            was, now = (f"{width} x {height}" for height, width in (self._size, frames.shape[1:3]))
            raise VideoError(f"frames for {self.path} change from {was} to {now}; expected one size throughout")
        if self._picture and self.frame_count + len(frames) > 1:
            raise VideoError(f"{self.path} is a picture, which holds one frame; give a path that ends in .mp4 for more")
        self._size = frames.shape[1:3]
        with _writing(self.path):
            if self._output is None:
                self._output = self._open()
            for frame in frames:
                self._output.write(frame)
        self.frame_count += len(frames)

    def _open(self) -> _H264Output | _PNGOutput:
        self._aside.make()  # here and not by FFmpeg, so that it has the permissions of any new file
        height, width = self._size
        if self._picture:
            return _PNGOutput(self._aside.path, height, width)
        audio = (
            None if self._audio_from is None else partial(AudioCopy.start, self._audio_from, stream=self._audio_stream)
        )
        return _H264Output(self._aside.path, self.fps, height, width, self._options, self._ratio, audio)

    def close(self) -> None:
        """Finish the file and move it to `path`. Raises `VideoError` if no frame was written."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._output is None:
                raise VideoError(f"no frames were written to {self.path}; expected at least one")
            with _writing(self.path):
                self._output.finish()
            self._place()
        except BaseException:
            self._discard()
            raise

    def _place(self) -> None:
        times = [] if self._times is None or self._picture else self._times()
        if len(times) < 2:
            with _writing(self.path):
                self._aside.commit()
        else:
            retime(self._aside.path, self.path, self.fps, [float(time - times[0]) for time in times])
            self._aside.discard()

    def abort(self) -> None:
        """Give up, and remove the unfinished file."""
        self._closed = True
        self._discard()

    def _discard(self) -> None:
        if self._output is not None:
            self._output.abandon()
        self._aside.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _H264Output:
    """A file with one H.264 stream and, if asked for, one audio stream."""

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        height: int,
        width: int,
        options: dict[str, str],
        ratio: Fraction,
        audio: Callable[[OutputContainer, str], AudioCopy | None] | None,
    ) -> None:
        import av

        kind = _CONTAINERS[path.suffix.lower()]
        # Without "bitexact", Matroska files get a random number each.
        muxing = {"fflags": "+bitexact"} if kind == "matroska" else {"movflags": "+faststart"}
        if kind != "matroska" and fps < _SLOW:
            # By default FFmpeg counts at least 10,000 ticks a second, more than the format has room for.
            muxing["video_track_timescale"] = "1000"
        self._fps = fps
        self._written = 0
        self._to_yuv = YUVConverter(height, width, "yuv420p")
        self._container: OutputContainer = av.open(os.fspath(path), "w", format=kind, container_options=muxing)
        stream: VideoStream = self._container.add_stream("libx264", rate=fps, options=options)
        context = stream.codec_context
        self._to_yuv.set_up(context)
        context.time_base = 1 / fps
        context.sample_aspect_ratio = ratio
        self._stream = stream
        self._audio = None if audio is None else audio(self._container, kind)

    def write(self, pixels: Pixels) -> None:
        frame = self._to_yuv(pixels)
        frame.pts, frame.time_base = self._written, 1 / self._fps
        self._written += 1
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        packets = self._stream.encode(frame)
        if self._audio is not None:
            self._audio.copy_until(float(self._written / self._fps))
        self._container.mux(packets)

    def finish(self) -> None:
        self._mux(None)
        if self._audio is not None:
            self._audio.copy_until(None)
            self._audio.close()
        self._container.close()

    def abandon(self) -> None:
        with contextlib.suppress(Exception):
            if self._audio is not None:
                self._audio.close()
        with contextlib.suppress(Exception):
            self._container.close()


class _PNGOutput:
    """A file with one PNG picture."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        self._path = path
        self._size = (height, width)

    def write(self, pixels: Pixels) -> None:
        import av
        from av.video.frame import VideoFrame

        context: Any = av.CodecContext.create("png", "w")
        context.height, context.width = self._size
        context.pix_fmt = "rgb24"
        context.time_base = Fraction(1)
        frame: Any = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = 0
        self._path.write_bytes(b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None))))

    def finish(self) -> None:
        """Do nothing: the picture was written with its frame."""

    def abandon(self) -> None:
        """Do nothing: no file is open."""


def _check_encoder(name: str, path: Path) -> None:
    import av

    try:
        av.Codec(name, "w")
    except ValueError as error:
        raise VideoError(
            f"{path} cannot be written: this FFmpeg has no encoder {name}; install the `av` package from PyPI, "
            "which has it"
        ) from error


def _writing(path: Path) -> AbstractContextManager[None]:
    """Turn errors of FFmpeg and of the file system into `VideoError`s that name the file at `path`."""
    import av

    return writing(path, VideoError, also=(av.error.FFmpegError,))
