"""Rescaling of a network's residual stream to order one, with the same output.

Residual branches, attention and the output read the stream through a norm, which does not see its scale (apart from the
norm's epsilon). Only shortcuts and resampling convolutions see the scale, and they are linear. So a stream that they
have made huge can be made small, together with the branches' additions, and the output stays the same.

A huge stream does harm in two ways. float16 ends at 65,504. And where the stream is a million times as large as a
branch's addition, the branch is lost in rounding and has no effect. Muon without weight decay leads there, since every
step makes those convolutions a little larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from vidtok.models.vidtok.networks import Decoder, Encoder, ResidualBlock
from vidtok.models.vidtok.spatial import Attention, SpatialDownsample, SpatialUpsample


@torch.no_grad()
def rescale(coder: Encoder | Decoder, example: Tensor) -> None:
    """Change the weights of `coder` in place so that its residual stream is of order one on `example`, an input of it.

    All factors are powers of two, so that no weight is rounded (except subnormal numbers in half precision) and the
    output differs only by the norms' epsilons. Any clip will do as `example`; its content hardly matters.
    """
    sizes = _measured(coder, example)
    scale = 1.0
    for module in _along_the_stream(coder):
        before = scale
        if module is coder.conv_in or hasattr(module, "nin_shortcut") or _resamples_space(module):
            scale = _towards_one(sizes[module])
        if module is coder.conv_in:
            _multiply(module, scale, scale)
        elif isinstance(module, ResidualBlock):
            _multiply(module.conv2, scale, scale)
            if hasattr(module, "nin_shortcut"):
                _multiply(cast(nn.Module, module.nin_shortcut), scale / before, scale)
        elif isinstance(module, Attention):
            _multiply(module.get_submodule("proj_out"), scale, scale)
        else:
            _multiply(module.get_submodule("conv"), scale / before, scale)


def _along_the_stream(coder: Encoder | Decoder) -> Iterator[nn.Module]:
    """Modules that make the residual stream or add to it, in the order of computation."""
    mid = cast(Any, coder.mid)
    yield coder.conv_in
    if isinstance(coder, Decoder):
        yield from (mid.block_1, mid.attn_1, mid.block_2)
        levels = list(zip(coder.up, coder.up_temporal, strict=True))[::-1]
    else:
        levels = list(zip(coder.down, coder.down_temporal, strict=True))
    for level, temporal in cast(Any, levels):
        for blocks in zip(level.block, temporal.block, strict=True):
            yield from blocks
        for part, name in ((part, name) for name in ("downsample", "upsample") for part in (level, temporal)):
            if hasattr(part, name):
                yield getattr(part, name)
    if isinstance(coder, Encoder):
        yield from (mid.block_1, mid.attn_1, mid.block_2)


def _resamples_space(module: nn.Module) -> bool:
    return isinstance(module, SpatialDownsample | SpatialUpsample)


def _measured(coder: Encoder | Decoder, example: Tensor) -> dict[nn.Module, float]:
    """The root mean square of the stream after each module, on `example`."""
    squares: dict[nn.Module, list[Tensor]] = {}

    def note(module: nn.Module, _: Any, stream: Tensor) -> None:
        squares.setdefault(module, []).append(stream.double().square().mean())

    hooks = [module.register_forward_hook(note) for module in _along_the_stream(coder)]
    try:
        coder(example)
    finally:
        for hook in hooks:
            hook.remove()
    return {module: float(torch.stack(found).mean().sqrt()) for module, found in squares.items()}


def _towards_one(size: float) -> float:
    """The power of two that brings `size` nearest to 1; 1 if none does."""
    return 2.0 ** -round(math.log2(size)) if 0 < size < math.inf else 1.0


def _multiply(layer: nn.Module, weight: float, bias: float) -> None:
    for parameter in layer.parameters():
        parameter.mul_(weight if parameter.dim() > 1 else bias)
