"""Layers within a frame: norms, 2D convolutions, spatial resampling, attention.

Everything here takes and returns channels-last activations, (B, T, H, W, C) and contiguous, so that LayerNorm reads
contiguous channels and a 2D convolution sees its (B T, C, H, W) input in channels-last memory without a copy.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.models.plain import in_eager_inference, is_plain, plain_layer
from vidtok.models.state import StreamState
from vidtok.models.vidtok import winograd

NORM_EPS = 1e-6
NORM_GROUPS = 32

NormScope = Literal["position", "frame", "time", "clip"]


def activated(norm: nn.Module, conv: nn.Module, x: Tensor, *state: StreamState) -> Tensor:
    """conv(SiLU(norm(x))), with the activation in place, or inside the convolution, if nobody can see that."""
    normed: Tensor = norm(x)
    out: Tensor
    if in_eager_inference() and is_plain(norm) and is_plain(conv):
        out = conv(normed, *state, activate=True)
    else:
        out = conv(F.silu(normed), *state)
    return out


def add(x: Tensor, y: Tensor, maker: nn.Module) -> Tensor:
    """x + y; written into `x`, the output of `maker`, if nobody else can see it."""
    return x.add_(y) if in_eager_inference() and x.dtype == y.dtype and is_plain(maker) else x + y


def as_images(x: Tensor) -> Tensor:
    """(B, T, H, W, C) as (B T, C, H, W) in channels-last memory: a view."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def as_clip(images: Tensor, batch: int) -> Tensor:
    """(B T, C, H, W) as (B, T, H, W, C), contiguous: a view of channels-last memory."""
    frames = images.permute(0, 2, 3, 1).contiguous()
    return frames.view(batch, -1, *frames.shape[1:])


@plain_layer
class LayerNorm(nn.Module):
    """LayerNorm over the channels at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


@plain_layer
class GroupNorm(nn.GroupNorm):
    """GroupNorm with statistics over `scope`.

    "position": one position of one frame; "frame": one frame; "time": one position over time; "clip": the whole clip.
    """

    def __init__(self, channels: int, scope: NormScope) -> None:
        super().__init__(NORM_GROUPS, channels, eps=NORM_EPS)
        self.scope = scope

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width, channels = x.shape
        if self.scope == "position":
            return super().forward(x.reshape(-1, channels)).view(x.shape)
        if self.scope == "frame":
            return as_clip(super().forward(as_images(x)), batch)
        if self.scope == "clip":
            return super().forward(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).contiguous()
        normed = super().forward(x.permute(0, 2, 3, 4, 1).flatten(0, 2))  # (B H W, C, T)
        return normed.view(batch, height, width, channels, -1).permute(0, 4, 1, 2, 3).contiguous()


def init_convolution(weight: Tensor, bias: Tensor) -> None:
    """Initialise `weight` and `bias` as PyTorch does for a convolution."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(weight[0].numel())
    nn.init.uniform_(bias, -bound, bound)


@plain_layer
class Conv2d(nn.Module):
    """A convolution of every frame, zero-padded at stride 1; `weight` is (out, in, k, k)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.stride = stride
        self.padding = kernel // 2 if stride == 1 else 0
        init_convolution(self.weight, self.bias)

    def forward(self, x: Tensor, *, activate: bool = False) -> Tensor:
        """Convolve `x` (B, T, H, W, C); if `activate`, put it through SiLU first, which may overwrite it."""
        weight, bias = self.weight, self.bias
        if self.padding and self.stride == 1 and winograd.pays(x, weight):
            frames = winograd.convolve(x.flatten(0, 1), weight, bias, winograd.three_taps(), activate=activate)
            return frames.view(*x.shape[:2], *frames.shape[1:])
        if activate:
            x = F.silu(x, inplace=in_eager_inference())
        images = F.conv2d(as_images(x), weight, bias, stride=self.stride, padding=self.padding)
        return as_clip(images, x.shape[0])


@plain_layer
class Pointwise(nn.Module):
    """A 1x1x1 convolution: the same linear map at every position. `weight` is (out, in, 1, …) with `dims` ones."""

    def __init__(self, in_channels: int, out_channels: int, *, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[1] * dims))
        self.bias = nn.Parameter(torch.empty(out_channels))
        init_convolution(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class SpatialDownsample(nn.Module):
    """Half the height and width: one zero row below and one zero column to the right, then 3x3 with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 0, 0, 1, 0, 1)))
        return out


class SpatialUpsample(nn.Module):
    """Twice the height and width: every row and column twice, then 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if is_plain(self.conv) and winograd.pays(x, self.conv.weight):
            frames = winograd.convolve(x.flatten(0, 1), self.conv.weight, self.conv.bias, winograd.upsampled())
            return frames.view(*x.shape[:2], *frames.shape[1:])
        images = F.interpolate(as_images(x), scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv(as_clip(images, x.shape[0]))
        return out


class Attention(nn.Module):
    """Single-head self-attention over the positions of each frame, added to its input.

    `q`, `k`, `v` and `proj_out` are pointwise maps, named below `.conv` in the causal variants (`wrapped`).
    """

    def __init__(self, channels: int, norm: nn.Module, *, wrapped: bool) -> None:
        super().__init__()
        self.norm = norm
        for name in ("q", "k", "v", "proj_out"):
            linear = Pointwise(channels, channels, dims=3)
            self.add_module(name, Wrapped(linear) if wrapped else linear)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        normed = self.norm(x)
        q, k, v = (self.get_submodule(name)(normed).flatten(0, 1).flatten(1, 2) for name in ("q", "k", "v"))
        attended = F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)
        proj_out = self.get_submodule("proj_out")
        return add(proj_out(attended.view(x.shape)), x, proj_out)


@plain_layer
class Wrapped(nn.Module):
    """A layer as the child `conv`, as the published parameter names have it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out
