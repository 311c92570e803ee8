"""Padding of clips of any size to whole latent positions, and the crop that undoes it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.models.config import ModelConfig
from vidtok.models.plain import has_values

Size = tuple[int, int, int]
"""Frames, height and width of a clip."""
BRIGHTEST = 10.0
"""Largest value believed of a video in -1..1 without negative values, however it was sharpened or disturbed."""

Padding = Literal["end", "front"]
"""End of a clip at which copies of its outermost frame are added, until it makes whole latent frames."""


def front_copies(frames: int, config: ModelConfig) -> int:
    """Number of copies of the first frame that the published version 1.1 puts in front, for a multiple of f frames."""
    return -frames % config.temporal_factor


def pad_front(video: Tensor, copies: int) -> Tensor:
    """`video` (B, C, T, H, W) with `copies` copies of its first frame in front: (B, C, copies + T, H, W)."""
    return torch.cat([video[:, :, :1].expand(-1, -1, copies, -1, -1), video], 2) if copies else video


def padded_frames(frames: int, config: ModelConfig) -> int:
    """Number of frames after padding at the end: 1 + a multiple of f if causal, else a multiple of f."""
    lead = 1 if config.is_causal else 0
    return lead - (lead - frames) // config.temporal_factor * config.temporal_factor


def encoded_frames(frames: int, config: ModelConfig) -> int:
    """Number of latent frames of a clip of `frames`, padded at the end."""
    return -(-padded_frames(frames, config) // config.temporal_factor)


def pad_frames(video: Tensor, frames: int) -> Tensor:
    """`video` (B, C, T, H, W) with its last frame repeated until it has `frames` frames."""
    missing = frames - video.shape[2]
    return F.pad(video, (0, 0, 0, 0, 0, missing), mode="replicate") if missing else video


def pad_frame_size(video: Tensor, factor: int) -> Tensor:
    """`video` (B, C, T, H, W) with its last row and column repeated until both sizes are multiples of `factor`."""
    below, right = -video.shape[3] % factor, -video.shape[4] % factor
    return F.pad(video, (0, right, 0, below, 0, 0), mode="replicate") if below or right else video


def pad_clip(video: Tensor, config: ModelConfig) -> Tensor:
    """`video` (B, C, T, H, W), of any size, padded at its end, below and to the right; `crop` undoes it."""
    padded = pad_frames(video, padded_frames(video.shape[2], config))
    return pad_frame_size(padded, config.spatial_factor)


def crop(video: Tensor, size: Size, padding: Padding = "end") -> Tensor:
    """`video` (B, C, T, H, W) cropped to `size`: the first rows and columns, and the first frames.

    With `padding` "front", the last frames. Raises `ValueError` if `size` is larger than the video.
    """
    frames, height, width = size
    if frames > video.shape[2] or height > video.shape[3] or width > video.shape[4]:
        raise ValueError(f"size is {tuple(size)}, more than the {tuple(video.shape[2:])} that the latent decodes to")
    first = video.shape[2] - frames if padding == "front" else 0
    return video[:, :, first : first + frames, :height, :width]


def check_video(video: Tensor, config: ModelConfig) -> None:
    """Raise `ValueError` if `video` is not a clip that a model of `config` can encode."""
    expected = f"(B, {config.in_channels}, T, H, W) of float in -1..1"
    if not isinstance(video, Tensor):
        raise ValueError(f"the video is a {type(video).__name__}; expected a tensor, {expected}")
    if video.dim() != 5 or video.shape[1] != config.in_channels or 0 in video.shape:
        raise ValueError(f"the video has shape {tuple(video.shape)}; expected {expected}, no dimension empty")
    if not video.is_floating_point():
        raise ValueError(
            f"the video has dtype {video.dtype}; expected {expected}: vidtok.video.to_float converts uint8 frames"
        )
    if has_values(video):
        lowest, highest = (float(value) for value in torch.aminmax(video.detach()))
        if lowest >= 0 and highest > BRIGHTEST:
            raise ValueError(
                f"the video's values run from {lowest:g} to {highest:g}; expected -1..1: divide values of 0..255 by "
                "127.5 and subtract 1"
            )


def check_latent(z: Tensor, config: ModelConfig) -> None:
    """Raise `ValueError` if `z` is not a latent that a model of `config` can decode."""
    if z.dim() != 5 or z.shape[1] != config.z_channels or 0 in (*z.shape[:2], *z.shape[3:]):
        raise ValueError(
            f"the latent has shape {tuple(z.shape)}; expected (B, {config.z_channels}, T', H', W') "
            "(token indices, (B, T', H', W'), are decoded with decode_from_indices=True)"
        )
    if not z.is_floating_point():
        raise ValueError(f"the latent has dtype {z.dtype}; expected float")
