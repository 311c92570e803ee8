"""Receptive fields of encoders and decoders over time, derived from their layers: the past that they need."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtok.temporal import CausalConv


def first_exact_frame(decoder: nn.Module, latent: int) -> int:
    """The first frame of video that comes out exact where a causal `decoder` starts at the latent frame `latent`.

    A decoder that starts there with a fresh state sees padding where latent frames stood; every frame from the one
    returned on depends on none of that. Frames are counted from the start of the whole video; the result may lie beyond
    its end. For `latent` 0 it is 0: there is nothing before.

    The number follows from the layers in the order in which they are passed: a convolution that looks k frames back
    spoils the next k frames, and each temporal upsampling doubles the count. That linear interpolation looks at the
    frame before as well makes no difference: the frames it draws from were counted already.
    """
    if latent <= 0:
        return 0
    coder = cast(Any, decoder)
    config: AutoencoderConfig = coder.config
    if not config.is_causal:
        raise ValueError("a non-causal decoder sees whole clips; there is no frame to start at inside of one")
    spoiled: int = _reach(coder.conv_in) + _reach(coder.mid.block_1) + _reach(coder.mid.block_2)
    for level in reversed(coder.up_temporal):
        spoiled += sum(_reach(block) for block in level.block)
        if hasattr(level, "upsample"):
            spoiled = 2 * spoiled + _reach(level.upsample)
    spoiled += _reach(coder.conv_out)
    # Version 1.0 decodes f frames of the first latent frame too and drops all but the last, as 1.1 never makes them.
    dropped = config.temporal_factor - 1 if config.temporal_padding == "zeros" else 0
    return latent * config.temporal_factor + spoiled - dropped


def unsettled_latents(encoder: nn.Module) -> int:
    """Latent frames that differ from the video's at most, where a causal `encoder` starts inside of a video.

    It starts with a group of f frames, and a state that is marked as `started` but remembers nothing. A convolution
    that looks k frames back spoils k frames more; a temporal downsampling also looks at the frame before each pair,
    and so makes 1 + s // 2 spoiled frames of s.
    """
    coder = cast(Any, encoder)
    if not coder.config.is_causal:
        raise ValueError("a non-causal encoder sees whole clips; there is no frame to start at inside of one")
    spoiled = _reach(coder.conv_in)
    for level in coder.down_temporal:
        spoiled += sum(_reach(block) for block in level.block)
        if hasattr(level, "downsample"):
            spoiled = (spoiled + 2) // 2
    return spoiled + _reach(coder.mid.block_1) + _reach(coder.mid.block_2) + _reach(coder.conv_out)


def _reach(module: nn.Module) -> int:
    """Frames that the convolutions inside `module`, one after another, look back."""
    return sum(layer.reach for layer in module.modules() if isinstance(layer, CausalConv))
