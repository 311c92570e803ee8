"""Small media files for the tests of `vidtok.video`, made with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
SIZE = (32, 16 * BITS)


def numbered(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that shows `index` in binary, as black and white bars that survive any codec."""
    height, width = size
    bar = np.array([(index >> bit) & 1 for bit in range(BITS)], np.uint8) * 255
    row = bar[np.arange(width) * BITS // width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_of(pixels: np.ndarray) -> int:
    """The index that a frame of `numbered` shows."""
    width = pixels.shape[1]
    centres = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    bits = pixels[pixels.shape[0] // 2, centres].mean(-1) > 127
    return int((bits << np.arange(BITS)).sum())


def smooth(index: int, size: tuple[int, int]) -> np.ndarray:
    """A colourful frame with no sharp edges, moving with `index`."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    waves = [np.sin((x * a + y * b) / 20 + index / 5) for a, b in ((1, 0.3), (0.2, 1), (0.7, 0.7))]
    return np.stack([(wave * 90 + 128).astype(np.uint8) for wave in waves], -1)


def make_video(
    path: Path,
    frames: Sequence[np.ndarray | av.VideoFrame],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: Fraction | int = 30,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    sound: bool = False,
    sound_codec: str = "aac",
    **tags: Any,
) -> Path:
    """Encodes `frames`; `ticks`, in units of 1 / (fps * 10) s, are when each is shown, by default evenly."""
    rate = Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        pictures = [
            pixels if isinstance(pixels, av.VideoFrame) else av.VideoFrame.from_ndarray(pixels, format="rgb24")
            for pixels in frames
        ]
        stream.height, stream.width = pictures[0].height, pictures[0].width
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = 1 / rate / (1 if ticks is None else 10)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        audio = container.add_stream(sound_codec, rate=48000) if sound else None
        for index, frame in enumerate(pictures):
            frame.pts = index if ticks is None else ticks[index]
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            for packet in sound_packets(audio, len(frames) / float(rate)):
                container.mux(packet)
    return path


def sound_packets(stream: Any, seconds: float, click: float = 0.5) -> list[Any]:
    """Silence with one short click at `click` seconds, encoded by `stream`."""
    samples = np.zeros(int(48000 * seconds), np.float32)
    samples[int(48000 * click) : int(48000 * click) + 480] = 0.9
    packets = []
    for at in range(0, len(samples), 1024):
        piece = np.stack([samples[at : at + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
        resampled = av.AudioResampler(format=stream.format, layout="stereo", rate=48000).resample(frame)
        for ready in resampled:
            packets += stream.encode(ready)
    return [*packets, *stream.encode(None)]


def click_time(path: Path) -> float:
    """When the click is heard, in seconds after the first video frame is shown."""
    with av.open(str(path)) as container:
        first = next(container.decode(container.streams.video[0])).time
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            loud = np.abs(frame.to_ndarray().astype(float))
            if frame.format.name.startswith("s16"):
                loud /= 32768
            loud = loud.reshape(len(frame.layout.channels), -1) if frame.format.is_planar else loud.reshape(1, -1)
            over = np.flatnonzero(loud.max(0) > 0.3)
            if len(over):
                step = 1 if frame.format.is_planar else len(frame.layout.channels)
                return float(frame.time) + int(over[0]) / step / frame.sample_rate - first
    raise AssertionError("no click")
