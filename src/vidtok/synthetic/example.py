"""A drawn example clip, so that a first try needs no file from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidtok.video import Pixels, VideoWriter

_Picture = npt.NDArray[np.float64]

CLIP_FPS = 24
CLIP_FRAMES = 49
CLIP_SIZE = (192, 256)
"""(height, width)."""

_SEED = 0


def write_clip(path: Path) -> Path:
    """Write the example's clip, two seconds of shapes that move over a landscape, to `path` and return it."""
    with VideoWriter(path, CLIP_FPS) as writer:
        for frame in draw_clip():
            writer.write(frame[None])
    return path


def draw_clip(frames: int = CLIP_FRAMES, size: tuple[int, int] = CLIP_SIZE) -> Iterator[Pixels]:
    """The clip's frames, (H, W, 3) uint8 RGB: hills passing by, a ball, a wheel and a falling square."""
    height, width = size
    ground = _texture(height, 2 * width)
    # Distances are in units of the height, from the centre; y points down.
    y, x = np.mgrid[0:height, 0:width] / height
    y, x = y - 0.5, x - width / height / 2
    for index in range(frames):
        t = index / max(1, frames - 1)
        shift = round(t * width / 2)
        picture = _landscape(ground[:, shift : shift + width], y)
        bounce = 0.22 - 0.45 * abs(np.sin(3 * np.pi * t))
        _ball(picture, x - (t - 0.5) * 0.9, y - bounce, 0.13)
        _wheel(picture, x - 0.38, y + 0.2, 0.16, 2 * np.pi * t)
        _square(picture, x + 0.42, y - (t - 0.5) * 0.8, 0.09, np.pi * t)
        yield np.round(picture.clip(0, 1) * 255).astype(np.uint8)


def _texture(height: int, width: int) -> _Picture:
    """Noise (H, W) in 0..1 whose amplitude falls with frequency, as in pictures of nature; it repeats at its edges."""
    noise = np.fft.rfft2(np.random.default_rng(_SEED).standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(noise / frequency**1.2, s=(height, width))
    lowest, highest = np.quantile(texture, (0.005, 0.995))
    normalised: _Picture = ((texture - lowest) / (highest - lowest)).clip(0, 1)
    return normalised


def _landscape(texture: _Picture, y: _Picture) -> _Picture:
    """Hills under a sky, (H, W, 3): the texture colours the hills and shapes their horizon."""
    horizon = 0.02 + 0.25 * (texture.mean(axis=0, keepdims=True) - 0.5)
    ground = _share(y - horizon)[..., None]
    depth = (y - horizon).clip(0)[..., None]
    shade = texture[..., None]
    hills = np.array([0.16, 0.30, 0.12]) + shade * np.array([0.42, 0.40, 0.20]) - 0.15 * depth
    clouds = np.array([0.36, 0.58, 0.86]) + (0.5 + y)[..., None] * 0.35 + 0.25 * (shade - 0.5).clip(0)
    picture: _Picture = ground * hills + (1 - ground) * clouds
    return picture


def _ball(picture: _Picture, x: _Picture, y: _Picture, radius: float) -> None:
    inside = np.hypot(x, y) / radius
    lit = np.exp(-3 * ((x / radius + 0.4) ** 2 + (y / radius + 0.4) ** 2))[..., None]
    colour = np.array([0.82, 0.16, 0.12]) * (1 - 0.5 * inside[..., None] ** 2) + 0.7 * lit
    _paint(picture, _share(radius - np.hypot(x, y)), colour)


def _wheel(picture: _Picture, x: _Picture, y: _Picture, radius: float, angle: float) -> None:
    spokes = np.sin(4 * (np.arctan2(y, x) - angle)) > 0
    colour = np.where(spokes[..., None], [0.96, 0.84, 0.25], [0.16, 0.18, 0.42])
    _paint(picture, _share(radius - np.hypot(x, y)), colour)


def _square(picture: _Picture, x: _Picture, y: _Picture, half: float, angle: float) -> None:
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    stripes = (np.floor(along / half * 4) % 2)[..., None]
    colour = 0.95 - stripes * np.array([0.75, 0.35, 0.15])
    _paint(picture, _share(half - np.maximum(abs(along), abs(across))), colour)


def _share(distance: _Picture) -> _Picture:
    """Share of a pixel inside an edge, by its distance to the edge; it makes edges smooth."""
    return (distance * CLIP_SIZE[0] + 0.5).clip(0, 1)


def _paint(picture: _Picture, share: _Picture, colour: _Picture) -> None:
    picture += share[..., None] * (colour - picture)
