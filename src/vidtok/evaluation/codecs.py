"""Classical video codecs as baselines: H.264, H.265 and AV1, in memory, frame by frame, at a given number of bits.

    RGB -> YUV (BT.709) -> encoder -> packets, counted -> decoder -> RGB

Sizes count the elementary stream: no container, and not the note about itself that x264 puts in front. Encoders run at
their common presets and default tuning, for eyes and not for PSNR. 4:2:0 halves the colours' resolution, as in nearly
all video, and that loss counts.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from vidtok.errors import VidTokError
from vidtok.runtime.passes import Pair
from vidtok.video import Pixels, to_float
from vidtok.video.colour import RGBConverter, YUVConverter

_NO_KEY_FRAMES = 100_000
_TOLERANCE = 0.02
_MOST_TRIALS = 8
_AT_A_TIME = 16
_SEI_UNIT = 6


@dataclass(frozen=True)
class Codec:
    """An encoder, its decoder, and their settings."""

    name: str
    label: str
    encoder: str
    decoder: str
    pixel_format: str
    finest: float
    coarsest: float
    """The range of `crf`, the constant rate factor that trades quality for bits."""
    whole_steps: bool
    """True if `crf` must be a whole number."""
    options: dict[str, str] = field(default_factory=dict)
    talks: bool = False
    """True if the stream holds a note of the encoder about itself, as H.264 supplemental enhancement information."""


# On several threads, x264's bytes depend on the number of cores, and differ from run to run where its look-ahead is
# late. One thread gives the same bytes on any machine, and no more of them; figures are computed at the same time.
_X264 = {"preset": "medium", "threads": "1"}
_X265 = {"preset": "medium", "x265-params": "log-level=none:info=0:open-gop=0"}
CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "H.264 (x264, medium)", "libx264", "h264", "yuv420p", 1, 51, False, _X264, True),
        Codec(
            "h264-444", "H.264 4:4:4 (x264, medium)", "libx264", "h264", "yuv444p", 1, 51, False,
            _X264, True,
        ),
        Codec("h265", "H.265 (x265, medium)", "libx265", "hevc", "yuv420p", 1, 51, False, _X265),
        Codec("h265-444", "H.265 4:4:4 (x265, medium)", "libx265", "hevc", "yuv444p", 1, 51, False, _X265),
        Codec("av1", "AV1 (SVT-AV1, preset 6)", "libsvtav1", "libdav1d", "yuv420p", 1, 63, True, {"preset": "6"}),
    )
}  # fmt: skip
"""Codecs by the names that `--baseline` takes."""


class Coding:
    """One pass of frames, all of one size, through an encoder and, unless only the size is wanted, its decoder.

    Args:
        codec: the codec.
        crf: its rate factor.
        size: (height, width) of the frames.
        fps: frames per second; encoders weigh frames against each other by it.
        key_interval: frames from a key frame to the next, at most; None: only the first one is a key frame, unless the
            encoder sees a cut.
        decode: decode too; without it only the size is counted.

    Raises `VidTokError` if this FFmpeg lacks the encoder or decoder, or cannot use them on such frames.
    """

    def __init__(
        self, codec: Codec, crf: float, size: tuple[int, int], fps: Fraction, *,
        key_interval: int | None = None, decode: bool = True,
    ) -> None:  # fmt: skip
        self.bits = 0
        self._size = size
        self._codec = codec
        self._fps = fps
        self._count = 0
        self._to_yuv = YUVConverter(*size, codec.pixel_format)
        self._encoder = _encoder(codec, crf, self._to_yuv, fps, key_interval)
        self._decoder = _context(codec.decoder, "r", codec) if decode else None
        self._to_rgb = RGBConverter()

    def push(self, pixels: Pixels) -> list[Pixels]:
        """Code the next frame, (H, W, 3) uint8; returns the decoded frames that are ready."""
        frame = self._to_yuv(pixels)
        frame.pts, frame.time_base = self._count, 1 / self._fps
        self._count += 1
        return self._code(frame)

    def flush(self) -> list[Pixels]:
        """End the pass; returns the rest of the decoded frames."""
        return self._code(None)

    def _code(self, frame: Any) -> list[Pixels]:
        with _coding_errors(self._codec, self._size):
            decoded: list[Any] = []
            for packet in self._encoder.encode(frame):
                self.bits += 8 * self._counted(packet)
                decoded += [] if self._decoder is None else self._decoder.decode(packet)
            if frame is None and self._decoder is not None:
                decoded += self._decoder.decode(None)
        height, width = self._size
        return [np.ascontiguousarray(self._to_rgb(each)[:height, :width]) for each in decoded]

    def _counted(self, packet: Any) -> int:
        """Bytes of `packet` that decoding needs."""
        return int(packet.size) - (_note_bytes(bytes(packet)) if self._codec.talks else 0)


def coded_pairs(coding: Coding, chunks: Iterable[Pixels]) -> Iterator[Pair]:
    """Pairs of a video, (T, H, W, 3) uint8 in pieces, and its reconstruction, as frames come out of the codec."""
    waiting: deque[Pixels] = deque()
    ready: list[Pixels] = []

    def pairs(at_least: int) -> Iterator[Pair]:
        while len(ready) >= max(at_least, 1):
            decoded = [ready.pop(0) for _ in range(min(len(ready), _AT_A_TIME))]
            source = np.stack([waiting.popleft() for _ in decoded])
            yield Pair(source, to_float(np.stack(decoded)), 0)

    for chunk in chunks:
        for frame in chunk:
            waiting.append(frame)
            ready += coding.push(frame)
        yield from pairs(_AT_A_TIME)
    ready += coding.flush()
    yield from pairs(1)


class RateSearch:
    """Finds the rate factors at which a codec spends given numbers of bits on one video; keeps all trials."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._tried: dict[float, int] = {}

    def find(self, bits: float, measure: Callable[[float], int]) -> float:
        """The rate factor that comes closest to `bits`: within 2%, if the codec's steps and range allow it.

        `measure` codes the video at a rate factor and returns the bits.
        """
        low, high = self._codec.finest, self._codec.coarsest
        guess = (low + high) / 2
        for _ in range(_MOST_TRIALS):
            guess = self._rounded(min(high, max(low, self._interpolated(bits, guess))))
            if guess in self._tried:
                break
            self._tried[guess] = measure(guess)
            if abs(self._tried[guess] / bits - 1) <= _TOLERANCE:
                break
        return min(self._tried, key=lambda crf: abs(float(np.log(self._tried[crf] / bits))))

    def _rounded(self, crf: float) -> float:
        return float(round(crf)) if self._codec.whole_steps else round(crf * 8) / 8

    def _interpolated(self, bits: float, first: float) -> float:
        """The factor for `bits`: log(bits) is taken as linear in the factor between the nearest two trials."""
        if not self._tried:
            return first
        finer = max((crf for crf, size in self._tried.items() if size >= bits), default=None)
        coarser = min((crf for crf, size in self._tried.items() if size < bits), default=None)
        if finer is None or coarser is None:
            known = coarser if finer is None else finer
            assert known is not None
            # About six steps of the factor halve the bits; half a step more puts the next trial beyond the target.
            return known + 6 * float(np.log2(self._tried[known] / bits)) + (0.5 if coarser is None else -0.5)
        above, below = np.log(self._tried[finer]), np.log(self._tried[coarser])
        share = 0.5 if above == below else float((above - np.log(bits)) / (above - below))
        return finer + share * (coarser - finer)


def check_codec(name: str, size: tuple[int, int] | None = None) -> Codec:
    """The codec called `name`, if this FFmpeg has it and codes frames of `size`. Raises `VidTokError` otherwise."""
    if name not in CODECS:
        raise VidTokError(f"there is no baseline {name!r}; expected one of {', '.join(CODECS)} and pca")
    codec = CODECS[name]
    _context(codec.encoder, "w", codec)
    _context(codec.decoder, "r", codec)
    if size is not None:
        trial = Coding(codec, codec.coarsest, size, Fraction(25))
        trial.push(np.zeros((*size, 3), np.uint8))
        trial.flush()
    return codec


def _context(name: str, mode: str, codec: Codec) -> Any:
    import av

    # Otherwise SVT-AV1 writes about itself to stderr.
    os.environ.setdefault("SVT_LOG", "1")
    try:
        return av.CodecContext.create(name, mode)  # type: ignore[call-overload]
    except ValueError as error:
        kind = "encoder" if mode == "w" else "decoder"
        raise VidTokError(
            f"the baseline {codec.name} cannot be measured: this FFmpeg has no {kind} {name}; install the `av` package "
            f"from PyPI, which has it, or leave out --baseline {codec.name}"
        ) from error


def _encoder(codec: Codec, crf: float, frames: YUVConverter, fps: Fraction, key_interval: int | None) -> Any:
    context = _context(codec.encoder, "w", codec)
    frames.set_up(context)
    context.framerate, context.time_base = fps, 1 / fps
    context.gop_size = key_interval or _NO_KEY_FRAMES
    context.options = {**codec.options, "crf": f"{crf:g}"}
    return context


def _note_bytes(packet: bytes) -> int:
    """Bytes of SEI units in an H.264 packet in the byte stream format (ITU-T H.264, annex B)."""
    starts = [match.start() for match in re.finditer(b"\x00?\x00\x00\x01", packet)]
    total = 0
    for start, end in zip(starts, [*starts[1:], len(packet)], strict=True):
        head = packet.index(b"\x01", start) + 1
        total += end - start if packet[head] & 0x1F == _SEI_UNIT else 0
    return total


@contextmanager
def _coding_errors(codec: Codec, size: tuple[int, int]) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise VidTokError(
            f"the baseline {codec.name} cannot code frames of {size[0]} x {size[1]} pixels ({error.strerror}); give "
            f"another size, or leave out --baseline {codec.name}"
        ) from error
