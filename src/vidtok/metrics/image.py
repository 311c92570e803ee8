"""Fidelity of pictures and frames: PSNR and SSIM, as the published scores of the VidTok family define them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.errors import VidTokError

_WINDOW = 11
SSIM_SMALLEST_SIDE = _WINDOW
"""Pixels: SSIM is not defined for frames with a smaller side."""
_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_CPU_FRAMES = 2
_SSIM_SIDE = 256
"""Before SSIM is computed, larger pictures are averaged down towards this shorter side."""


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame, in dB.

    Both are pictures (N, C, H, W), giving (N,), or video (B, C, T, H, W), giving (B, T); float, -1..1. The mean
    squared error is taken in 0..1 and raised by 1e-8, so equal frames score 80 dB. A video's score is the mean of its
    frames'. Raises `VidTokError` if the shapes differ.
    """
    check_pair(prediction, target, "PSNR")
    error = torch.mean(((prediction.float() - target.float()) / 2) ** 2, dim=(1, -2, -1))
    return -10 * torch.log10(error + 1e-8)


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004) of each frame, at most 1.

    Both are pictures (N, C, H, W), giving (N,), or video (B, C, T, H, W), giving (B, T); float, -1..1. Gaussian window
    of 11 pixels and sigma 1.5 without padding, k1 0.01, k2 0.03, mean over positions and channels. If
    f = round(shorter side / 256) is above 1, both are first averaged over f x f pixels. Raises `VidTokError` if the
    shapes differ or a side is below 11 pixels.
    """
    check_pair(prediction, target, "SSIM", smallest_side=SSIM_SMALLEST_SIDE)
    x, y = as_frames(prediction), as_frames(target)
    count = max(1, len(y))
    # On a CPU, few frames at a time stay in its caches.
    step = _CPU_FRAMES if target.device.type == "cpu" else count
    with torch.autocast(device_type=target.device.type, enabled=False):
        scores = torch.cat([_ssim(x[i : i + step], y[i : i + step]) for i in range(0, count, step)])
    return scores.view(target.shape[0], -1) if target.ndim == 5 else scores


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (N,) of pictures (N, C, H, W) in -1..1."""
    x, y = ((pictures.float() + 1) / 2 for pictures in (x, y))
    factor = round(min(y.shape[-2:]) / _SSIM_SIDE)
    if factor > 1:
        x, y = F.avg_pool2d(x, factor), F.avg_pool2d(y, factor)
    mean_x, mean_y, square_x, square_y, product = _blur(x, y, x * x, y * y, x * y)
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (luminance * (2 * covariance + _C2) / (variances + _C2)).mean(dim=(1, 2, 3))


def check_pair(
    prediction: Tensor, target: Tensor, metric: str, *, channels: int | None = None, smallest_side: int = 1
) -> None:
    """Raise `VidTokError` unless both are pictures, or both video, of one shape, and large enough for `metric`."""
    if prediction.shape != target.shape or target.ndim not in (4, 5):
        raise VidTokError(
            f"prediction is {tuple(prediction.shape)} and target {tuple(target.shape)}; {metric} expects two of one "
            "shape, (N, C, H, W) or (B, C, T, H, W)"
        )
    if channels not in (None, target.shape[1]):
        raise VidTokError(f"frames have {target.shape[1]} channels; {metric} expects {channels}, red, green and blue")
    height, width = target.shape[-2:]
    if min(height, width) < smallest_side:
        raise VidTokError(
            f"frames are {height} x {width} pixels; {metric} expects at least {smallest_side} a side: give larger ones"
        )


def as_frames(video: Tensor) -> Tensor:
    """Video (B, C, T, H, W) as pictures (B T, C, H, W); pictures are returned unchanged."""
    return video.movedim(2, 1).flatten(0, 1) if video.ndim == 5 else video


def _blur(*maps: Tensor) -> tuple[Tensor, ...]:
    """The maps (N, C, H, W) under the Gaussian window, without padding: along columns, then along rows.

    As sums of shifted maps: on a CPU, several times as fast as convolutions of one channel.
    """
    offsets = torch.arange(_WINDOW, dtype=torch.float32) - _WINDOW // 2
    window: list[float] = torch.softmax(-(offsets**2) / (2 * _SIGMA**2), dim=0).tolist()
    blurred = torch.stack(maps)
    for axis in (-2, -1):
        length = blurred.shape[axis] - _WINDOW + 1
        total = blurred.narrow(axis, 0, length) * window[0]
        for start, weight in enumerate(window[1:], 1):
            total.add_(blurred.narrow(axis, start, length), alpha=weight)
        blurred = total
    return blurred.unbind(0)
