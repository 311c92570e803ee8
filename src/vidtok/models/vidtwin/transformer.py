"""The space-time transformer of VidTwin (arXiv 2412.17726), for its encoder and its decoder.

Tokens are (B, T, S, C): frames, positions of a frame row by row, channels. A block has a learned table of six vectors
(shift, scale and gate, for attention and for the MLP) and computes:

    x += gate1 * attention within each frame of (norm(x) (1 + scale1) + shift1)
    x += gate1 * causal attention over the frames of each position
    x += gate2 * MLP(norm(x) (1 + scale2) + shift2)
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidtok.models.plain import is_plain
from vidtok.models.vidtwin.config import VidTwinConfig

_EPSILON = 1e-6
_LONGEST_WAVE = 10000.0

Table = npt.NDArray[np.float64]


class SelfAttention(nn.Module):
    """Multi-head self-attention within each frame, or at each position over time."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, *, over_time: bool = False) -> Tensor:
        """(B, T, S, C) -> (B, T, S, C), among the positions of a frame, or `over_time` among it and earlier frames."""
        batch, frames, positions, channels = x.shape
        qkv = self.qkv(x).view(batch, frames, positions, 3, self.heads, channels // self.heads)
        # (3, groups, heads, tokens of a group, channels of a head)
        order = (3, 0, 2, 4, 1, 5) if over_time else (3, 0, 1, 4, 2, 5)
        q, k, v = qkv.permute(order).flatten(1, 2)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=over_time)
        h = torch.unflatten(h, 0, (batch, -1)).permute((0, 3, 1, 2, 4) if over_time else (0, 1, 3, 2, 4))
        return cast(Tensor, self.proj(h.reshape(batch, frames, positions, channels)))


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x), approximate="tanh")))


class SpaceTimeBlock(nn.Module):
    """Attention in space, attention over time, MLP."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__()
        channels = config.hidden_size
        self.scale_shift_table = nn.Parameter(torch.randn(6, channels) / channels**0.5)
        self.attn = SelfAttention(channels, config.num_heads)
        self.attn_temp = SelfAttention(channels, config.num_heads)
        self.mlp = MLP(channels, int(channels * config.mlp_ratio))

    def forward(self, x: Tensor, frame_embedding: Tensor | None) -> Tensor:
        """(B, T, S, C) -> (B, T, S, C); `frame_embedding` (T, 1, C) is added to the input of attention over time."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.scale_shift_table.unbind(0)
        x = torch.addcmul(x, gate1, self.attn(modulated_norm(x, shift1, scale1)))
        placed = x if frame_embedding is None else x + frame_embedding
        x = torch.addcmul(x, gate1, self.attn_temp(placed, over_time=True))
        return torch.addcmul(x, gate2, self.mlp(modulated_norm(x, shift2, scale2)))


class PatchEmbedding(nn.Module):
    """A linear map of every patch, whose weight has the published shape of a convolution's."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__()
        self.patch = config.patch_size[1]
        size = config.patch_size
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, size, stride=size)  # type: ignore[arg-type]

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, T, S, C)."""
        if not is_plain(self.proj):
            return cast(Tensor, self.proj(video)).flatten(3).permute(0, 2, 3, 1).contiguous()
        split = torch.unflatten(torch.unflatten(video, 4, (-1, self.patch)), 3, (-1, self.patch))
        patches = split.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class FinalLayer(nn.Module):
    """Tokens to the pixels of their patches."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__()
        channels, self.patch, self.colours = config.hidden_size, config.patch_size[1], config.in_channels
        self.scale_shift_table = nn.Parameter(torch.randn(2, channels) / channels**0.5)
        self.linear = nn.Linear(channels, self.patch**2 * self.colours)

    def forward(self, x: Tensor, grid: int) -> Tensor:
        """(B, T, S, C) -> (B, 3, T, H, W), of frames with `grid` patches a side."""
        shift, scale = self.scale_shift_table.unbind(0)
        pixels = self.linear(modulated_norm(x, shift, scale))
        split = torch.unflatten(torch.unflatten(pixels, 3, (self.patch, self.patch, self.colours)), 2, (grid, grid))
        return split.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


class _Transformer(nn.Module):
    """Layers of both encoder and decoder; the published model has a patch embedding and a final layer in both."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__()
        self.config = config
        self.x_embedder = PatchEmbedding(config)
        self.blocks = nn.ModuleList(SpaceTimeBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)
        self.apply(_initialize)
        for block in self.blocks:
            nn.init.zeros_(cast(Any, block).attn_temp.proj.weight)

    def _run(self, x: Tensor) -> Tensor:
        channels, grid = x.shape[3], self.config.grid
        x = x + torch.from_numpy(position_embedding(channels, grid)).to(x)
        frames: Tensor | None = torch.from_numpy(frame_embedding(channels, x.shape[1])).to(x)
        for block in self.blocks:
            if self.config.use_checkpoint and torch.is_grad_enabled():
                x = cast(Tensor, checkpoint(block, x, frames, use_reentrant=False))
            else:
                x = block(x, frames)
            frames = None
        return x


class Encoder(_Transformer):
    """Video to features."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__(config)
        self.final_layer.requires_grad_(False)  # in the published checkpoint, but unused

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in -1..1 -> (B, T, S, C)."""
        return self._run(self.x_embedder(video))


class Decoder(_Transformer):
    """Features to video."""

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__(config)
        self.x_embedder.requires_grad_(False)  # in the published checkpoint, but unused

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, S, C) -> (B, 3, T, H, W), about -1..1."""
        return cast(Tensor, self.final_layer(self._run(features), self.config.grid))


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift, over the channels; the norm has no parameters of its own."""
    return F.layer_norm(x, x.shape[-1:], 1 + scale, shift, _EPSILON)


@cache
def position_embedding(channels: int, grid: int) -> Table:
    """Embedding of positions in a frame, (S, C): sines and cosines, half of the channels for x and half for y."""
    along = _waves(channels // 2, grid)
    x = np.broadcast_to(along[None], (grid, grid, channels // 2))
    y = np.broadcast_to(along[:, None], (grid, grid, channels // 2))
    return np.concatenate([x, y], axis=2).reshape(grid * grid, channels)


@cache
def frame_embedding(channels: int, frames: int) -> Table:
    """Embedding of frames, (T, 1, C), as sines and cosines."""
    return _waves(channels, frames)[:, None]


def _waves(channels: int, count: int) -> Table:
    """Embedding (count, channels) of the positions 0 to `count` - 1: sines of falling frequencies, then cosines."""
    half = channels // 2
    frequencies = _LONGEST_WAVE ** -(np.arange(half) / half)
    angles = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
