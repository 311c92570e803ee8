"""Receptive fields of encoders and decoders over time: the past frames that they need, derived from their layers."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtok.temporal import CausalConv


def first_exact_frame(decoder: nn.Module, latent: int) -> int:
    """The first frame of video that is exact if a causal `decoder` starts at the latent frame `latent`.

    A decoder that starts there with a fresh state sees padding in place of earlier latent frames; no frame from the
    returned one on depends on that padding. Frames are counted from the start of the whole video; the result may lie
    beyond its end. It is 0 for `latent` 0, which has no latent frames before it. Raises `ValueError` for a non-causal
    decoder.

    The number follows from the layers in the order of computation: a convolution that looks k frames back spoils the
    next k frames, and each temporal upsampling doubles the count. Linear interpolation, which also looks at the frame
    before, adds none, since its inputs are already counted.
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
    # Version 1.0 decodes the first latent frame to f frames and drops all but the last; version 1.1 decodes it to one.
    dropped = config.temporal_factor - 1 if config.temporal_padding == "zeros" else 0
    return latent * config.temporal_factor + spoiled - dropped


def unsettled_latents(encoder: nn.Module) -> int:
    """Largest number of latent frames that differ from a video's if a causal `encoder` starts inside of it.

    The encoder starts with a group of f frames, and a state that is marked as `started` but holds no frames. A
    convolution that looks k frames back spoils k frames more. A temporal downsampling also looks at the frame before
    each pair, and so turns s spoiled frames into 1 + s // 2. Raises `ValueError` for a non-causal encoder.
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
    """Number of frames that the convolutions inside `module`, one after another, look back."""
    return sum(layer.reach for layer in module.modules() if isinstance(layer, CausalConv))
