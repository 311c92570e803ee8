"""Frames as arrays and tensors, in the ranges and sizes that the models expect.

Pixels are `(T, H, W, 3)` uint8 RGB outside of the models and `(B, 3, T, H, W)` float in -1..1 inside of them.

Functions import PyTorch where they need it, so that commands can look at videos before it is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidtok.errors import VideoError

if TYPE_CHECKING:
    from torch import Tensor

_NTSC_NOMINAL = (12, 15, 24, 30, 48, 60, 120, 240)
_LARGEST_SIDE = 2**16 - 1
"""Pixels of a frame's side at most, the limit of JPEG."""
_LARGEST_DENOMINATOR = 100_000
"""Largest denominator of a frame rate as a fraction; rates below its inverse are refused."""
_FASTEST = 2**32
"""Frames per second at most, since MP4 counts time in no smaller steps."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    pixels: Pixels
    """(H, W, 3) uint8, RGB."""
    time: float
    """Time at which the frame is first shown, in seconds from the start of the video."""


def to_float(frames: npt.NDArray[Any] | Tensor) -> Tensor:
    """`(T, H, W, 3)` uint8, array or tensor, as `(1, 3, T, H, W)` float32 in -1..1.

    `to_uint8` undoes it exactly. Raises `VideoError` for another shape or type.
    """
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[-1] != 3:
        raise VideoError(f"frames are {tensor.dtype} of shape {tuple(tensor.shape)}; expected uint8 (T, H, W, 3)")
    return tensor.permute(3, 0, 1, 2).unsqueeze(0).to(torch.float32).div(127.5).sub(1.0)


def to_uint8(video: Tensor) -> Pixels:
    """`(1, 3, T, H, W)` or `(3, T, H, W)` in -1..1, of any float type and device, as `(T, H, W, 3)` uint8.

    Values out of range are clamped, the others rounded to the nearest level. Raises `VideoError` for NaN or
    another shape.
    """
    if video.ndim == 5 and video.shape[0] == 1:
        video = video[0]
    if video.ndim != 4 or video.shape[0] != 3 or not video.is_floating_point():
        shape = tuple(video.shape)
        raise VideoError(f"video is {video.dtype} of shape {shape}; expected float (1, 3, T, H, W) or (3, T, H, W)")
    if bool(video.isnan().any()):
        raise VideoError("the video has pixels that are NaN; expected values in -1..1")
    import torch

    levels = video.detach().to(torch.float32).add(1.0).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    pixels: Pixels = levels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return pixels


@dataclass(frozen=True)
class Fit:
    """A resize that keeps the aspect ratio, then a centre crop, from frames of one size to frames of another."""

    resized: tuple[int, int]
    """(height, width) after the resize."""
    cropped: tuple[int, int]
    """(height, width) after the crop; what is wider than `resized` is black at both sides."""

    @classmethod
    def plan(cls, size: tuple[int, int], height: int | None, width: int | None, *, enlarge: bool = True) -> Fit:
        """The fit of frames of `size` (height, width) to `height` x `width`.

        The shorter side is resized to `height`, the longer one in proportion, rounded down; then the centre is cropped.
        Frames that come out narrower than `width` are enlarged to that width instead, or, without `enlarge`, get black
        at both sides, as published. With only one of `height` and `width` given, the crop is a square; with neither,
        the size stays. Raises `VideoError` for a height or width that is not in 1..65535.
        """
        if height is None and width is None:
            return cls(size, size)
        for name, side in (("height", height), ("width", width)):
            if side is not None and not 1 <= side <= _LARGEST_SIDE:
                expected = "at least 1 pixel" if side < 1 else f"at most {_LARGEST_SIDE} pixels"
                raise VideoError(f"{name} is {side}; expected {expected}")
        height, width = height or width or 1, width or height or 1
        rows, columns = size
        shorter = min(rows, columns)
        resized = (int(height * rows / shorter), int(height * columns / shorter))
        if resized[1] < width and enlarge:
            resized = (max(height, int(width * rows / columns)), width)
        return cls(resized, (height, width))

    @property
    def kept(self) -> float:
        """The share of the picture that the crop leaves, from above 0 to 1."""
        sides = zip(self.resized, self.cropped, strict=True)
        return math.prod(min(1.0, cropped / resized) for resized, cropped in sides)

    def __call__(self, pixels: Pixels) -> Pixels:
        """`pixels`, (H, W, 3) uint8 of the size planned for, resized (bilinear, antialiased) and cropped.

        The resize computes in floating point and rounds to uint8 once, so that each value is within half a level of
        the same resize of float pixels.
        """
        if pixels.shape[:2] != self.resized:
            import torch

            planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0).to(torch.float32)
            planes = torch.nn.functional.interpolate(
                planes, size=self.resized, mode="bilinear", align_corners=False, antialias=True
            )
            levels = planes.round_().clamp_(0, 255).to(torch.uint8)
            pixels = levels[0].permute(1, 2, 0).numpy()
        missing = self.cropped[1] - self.resized[1]
        if missing > 0:
            pixels = np.pad(pixels, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)))
        top, left = (round((have - want) / 2.0) for have, want in zip(pixels.shape[:2], self.cropped, strict=True))
        cropped: Pixels = pixels[top : top + self.cropped[0], left : left + self.cropped[1]]
        return np.ascontiguousarray(cropped)


def resize_and_crop(frames: Pixels, height: int | None = None, width: int | None = None) -> Pixels:
    """Frames `(T, H, W, 3)` or one frame `(H, W, 3)`, uint8, resized by the shorter side and cropped in the centre.

    See `Fit.plan` for the sizes: with `height == width` this is the published preprocessing, the shorter side resized
    to `height` and the centre `height` x `width` cut out.
    """
    fit = Fit.plan((frames.shape[-3], frames.shape[-2]), height, width)
    return fit(frames) if frames.ndim == 3 else np.stack([fit(frame) for frame in frames])


def as_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as an exact fraction; 23.976, 29.97 and the like become n * 1000/1001.

    Raises `VideoError` unless `fps` is from 1/100,000 to 2^32.
    """
    if not (fps <= _FASTEST and fps * _LARGEST_DENOMINATOR >= 1):
        raise VideoError(
            f"frame rate is {fps}; expected a positive number of frames per second, from 0.00001 to {_FASTEST}"
        )
    rate = Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)
    nominal = round(fps * 1001 / 1000)
    ntsc = Fraction(nominal * 1000, 1001)
    if nominal in _NTSC_NOMINAL and rate.denominator != 1 and abs(float(ntsc - rate)) < 0.005:
        return ntsc
    return rate
