"""Sound of one file, copied into another file as it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidtok.errors import VideoError
from vidtok.video.container import open_container
from vidtok.video.media import FileSource

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

# Codecs that players take in each container, by FFmpeg's decoder names. Other sound is coded again as AAC.
_MP4_CODECS = ("aac", "mp3", "mp3float", "opus", "libopus", "flac", "ac3", "eac3", "alac")
_CODECS = {
    "mp4": _MP4_CODECS,
    "mov": ("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"),
    "matroska": (*_MP4_CODECS, "vorbis", "pcm_s16le", "pcm_s24le", "pcm_f32le"),
}
_PAUSE, _STEP_BACK, _LEAP = 0.1, 0.1, 10.0
"""Seconds. A longer gap in the sound is a pause; a longer step back, or leap ahead, of its clock starts a new clock."""
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class AudioCopy:
    """Copies the first audio track of a file, packet by packet, in step with the video that is being written."""

    def __init__(
        self, source: InputContainer, output: OutputContainer, kind: str, shifts: tuple[float, ...], files: ExitStack
    ) -> None:
        self._files = files
        self._output = output
        self._stream: AudioStream = source.streams.audio[0]
        # Seconds to add to the sound's times, for each stretch of the file with a clock of its own.
        self._shifts = shifts
        self._stretch = 0
        self._latest: float | None = None
        # Matroska has no edit lists: a packet before zero would move the video instead.
        self._earliest = 0.0 if kind == "matroska" else -1.0
        self._copied = self._stream.codec_context.name in _CODECS[kind]
        self._target: Any
        if self._copied:
            self._target = output.add_stream_from_template(self._stream)
        else:
            rate = self._stream.codec_context.sample_rate
            self._target = output.add_stream("aac", rate=rate if rate in _AAC_RATES else 48000)
            self._target.layout = "mono" if self._stream.codec_context.channels == 1 else "stereo"
        self._packets: Iterator[Any] = self._copies(source) if self._copied else self._recoded(source)
        self._next: Any = None

    @classmethod
    def start(
        cls, path: str | os.PathLike[str], output: OutputContainer, kind: str, stream: int | None = None
    ) -> AudioCopy | None:
        """Add an audio stream to `output`, whose format is `kind`, for the sound of the file at `path`.

        Returns None, and adds nothing, if the file has no audio or no decoder for it. `stream` is the number of the
        video stream that the sound goes with, as for `video_stream`. Raises `VideoError` if the file cannot be read.
        """
        with ExitStack() as files:
            source = files.enter_context(open_container(path))
            if not source.streams.audio or source.streams.audio[0].codec_context is None:
                return None
            return cls(source, output, kind, _shifts(path, stream), files.pop_all())

    def copy_until(self, seconds: float | None) -> None:
        """Write the packets that begin before `seconds` of the output; None: all that are left."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None or (seconds is not None and self._next[0] >= seconds):
                return
            self._output.mux(self._next[1])
            self._next = None

    def close(self) -> None:
        """Close the file that the sound comes from."""
        self._files.close()

    def _copies(self, source: InputContainer) -> Iterator[tuple[float, Any]]:
        last: int | None = None
        for packet in _readable(source, self._stream):
            pts = packet.pts + round(self._shift(float(packet.pts * packet.time_base)) / packet.time_base)
            begin = float(pts * packet.time_base)
            # No format takes timestamps that stand still or go back, as a damaged file's may.
            if begin < self._earliest or (last is not None and pts <= last):
                continue
            last = packet.pts = packet.dts = pts
            packet.stream = self._target
            yield begin, packet

    def _recoded(self, source: InputContainer) -> Iterator[tuple[float, Any]]:
        import av

        context = self._target.codec_context
        resampler = av.AudioResampler(format="fltp", layout=self._target.layout, rate=context.sample_rate)
        at: int | None = None
        for packet in _readable(source, self._stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                time = float(frame.time or 0.0)
                place = round((time + self._shift(time)) * context.sample_rate)
                # A pause in the sound is kept; a smaller difference is only what the resampler holds back.
                if at is None or place - at > _PAUSE * context.sample_rate:
                    at = place
                for piece in resampler.resample(frame):
                    piece.pts, piece.time_base = at, Fraction(1, context.sample_rate)
                    at += piece.samples
                    yield from self._encoded(piece)
        yield from self._encoded(None)

    def _shift(self, time: float) -> float:
        """Seconds to add to `time` of the file's clock; a leap in the times starts the next stretch."""
        latest, self._latest = self._latest, time
        leaps = latest is not None and not -_STEP_BACK < time - latest < _LEAP
        if leaps and self._stretch + 1 < len(self._shifts):
            self._stretch += 1
        return self._shifts[self._stretch]

    def _encoded(self, piece: Any) -> Iterator[tuple[float, Any]]:
        for packet in self._target.encode(piece):
            yield float((packet.pts or 0) * packet.time_base), packet


def _shifts(path: str | os.PathLike[str], stream: int | None) -> tuple[float, ...]:
    """Seconds to add to a file's clock, per stretch, so that the video starts at 0 and runs on; 0 without video."""
    try:
        return FileSource(path, stream=stream).shifts
    except VideoError:
        return (0.0,)


def _readable(source: InputContainer, stream: AudioStream) -> Iterator[Any]:
    """The packets of a stream up to its end, or to the damage: damaged sound is no reason to lose the video."""
    packets = source.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except Exception:  # damaged bytes can make the bindings raise anything
            return
        if packet is None:
            return
        if packet.size and packet.pts is not None:
            yield packet
