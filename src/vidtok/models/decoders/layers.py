"""Layers of decoders of their own. Activations are channels-last, (B, T, H, W, C)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.models.decoders.config import Blocks
from vidtok.models.plain import in_eager_inference, plain_layer
from vidtok.models.state import StreamState
from vidtok.models.vidtok.spatial import Conv2d, Pointwise, as_clip, as_images, init_convolution
from vidtok.models.vidtok.temporal import TimeLayer


@plain_layer
class Depthwise(nn.Module):
    """A 3x3 convolution of every channel by itself; `weight` is (C, 1, 3, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        init_convolution(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        images = F.conv2d(as_images(x), self.weight, self.bias, padding=1, groups=x.shape[-1])
        return as_clip(images, x.shape[0])


class FrameBlock(TimeLayer):
    """A residual block of convolutions within the frame, which sees some channels of the frame before beside its own.

    ::

        x, past channels -> 3x3 convolution ----------- ReLU -> 3x3 convolution -> + x        (dense)
        x, past channels -> depthwise 3x3 -> pointwise, ReLU -> pointwise -------> + x        (depthwise)

    The last convolution begins at zero, so that a new block changes nothing. Before the first frame is a copy of it.
    """

    def __init__(self, channels: int, *, blocks: Blocks, past: float) -> None:
        super().__init__()
        self.past = round(past * channels)
        inputs = channels + self.past
        if blocks == "dense":
            self.layers = nn.ModuleList([Conv2d(inputs, channels, 3), Conv2d(channels, channels, 3)])
        else:
            wide = 2 * channels
            self.layers = nn.ModuleList(
                [Depthwise(inputs), Pointwise(inputs, wide, dims=2), Pointwise(wide, channels, dims=2)]
            )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, T, H, W, C) -> the same shape; T may be 0."""
        if not x.shape[1]:
            return x
        h = x
        if self.past:
            seen = self._with_past(x[..., : self.past], state, "first_frame", keep=1, start=1)
            h = torch.cat([x, seen[:, :-1]], -1)
        *first, last = self.layers
        for layer in first:
            h = layer(h)
        h = cast(Tensor, last(F.relu(h, inplace=in_eager_inference())))
        return h.add_(x) if in_eager_inference() and h.dtype == x.dtype else h + x


class Expand(TimeLayer):
    """A pointwise map to `frames` x `side` x `side` positions for each one, in time and space.

    With `lead`, the first input frame of a stream stands for one frame alone, the last of its group. With `apart` too,
    it has weights of its own, `first`.
    """

    def __init__(
        self, channels_in: int, channels: int, *, frames: int, side: int, lead: bool, apart: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.frames, self.side, self.lead = channels, frames, side, lead
        self.map = Pointwise(channels_in, frames * side * side * channels, dims=2)
        self.first = Pointwise(channels_in, side * side * channels, dims=2) if apart and lead else None

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, T, H, W, C) -> (B, T frames, H side, W side, channels), less at the start of a stream with `lead`."""
        if not x.shape[1]:
            return x.new_empty(x.shape[0], 0, x.shape[2] * self.side, x.shape[3] * self.side, self.channels)
        starts = self.lead and self.slot not in state.past
        state.keep(self.slot, x[:, :0].clone())
        if not starts:
            return self._placed(self.map(x), self.frames)
        if self.first is None:
            return self._placed(self.map(x), self.frames)[:, self.frames - 1 :]
        alone = self._placed(self.first(x[:, :1]), 1)
        rest = x[:, 1:]
        return torch.cat([alone, self._placed(self.map(rest), self.frames)], 1) if rest.shape[1] else alone

    def _placed(self, h: Tensor, frames: int) -> Tensor:
        batch, count, rows, columns, _ = h.shape
        side = self.side
        cut = h.view(batch, count, rows, columns, frames, side, side, self.channels)
        placed = cut.permute(0, 1, 4, 2, 5, 3, 6, 7)
        return placed.reshape(batch, count * frames, rows * side, columns * side, self.channels)
