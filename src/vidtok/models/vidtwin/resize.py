"""Frames of any size to the one size that a model takes: the published resize and centre crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_frames(video: Tensor, size: tuple[int, int]) -> Tensor:
    """`video` (B, 3, T, H, W) with the shorter side resized to the side of `size`, a square, and the centre cropped.

    The resize is bilinear and antialiased, in float32, as in `VideoReader`; frames of the right size stay as they are.
    """
    side = size[0]
    height, width = video.shape[3:]
    if (height, width) == size:
        return video
    shorter = min(height, width)
    resized = (side * height // shorter, side * width // shorter)
    frames = video.movedim(2, 1).flatten(0, 1).float()
    frames = F.interpolate(frames, size=resized, mode="bilinear", align_corners=False, antialias=True)
    top, left = (round((have - side) / 2) for have in resized)
    cropped = frames[:, :, top : top + side, left : left + side].to(video.dtype)
    return torch.unflatten(cropped, 0, (video.shape[0], -1)).movedim(1, 2)
