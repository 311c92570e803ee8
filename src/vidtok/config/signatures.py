"""What tells the models of a family apart by the names and shapes of their weights: a few of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtwin.config import VidTwinConfig

Shapes = Mapping[str, tuple[int, ...]]

# Levels at which encoder and decoder resample space and time.
_RESAMPLED = {
    "spatial_ds": re.compile(r"encoder\.down\.(\d+)\.downsample\."),
    "tempo_ds": re.compile(r"encoder\.down_temporal\.(\d+)\.downsample\."),
    "spatial_us": re.compile(r"decoder\.up\.(\d+)\.upsample\."),
    "tempo_us": re.compile(r"decoder\.up_temporal\.(\d+)\.upsample\."),
}
_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(\d+)\.attn\.qkv\.weight")


def fits_autoencoder(config: AutoencoderConfig, shapes: Shapes) -> bool:
    """Whether weights of these names and shapes are of a VidTok model of `config`.

    Versions 1.0 and 1.1 of a model have the same ones.
    """
    if not _has(shapes, _signature(config)):
        return False
    found = {
        key: tuple(sorted({int(match[1]) for match in map(pattern.match, shapes) if match}))
        for key, pattern in _RESAMPLED.items()
    }
    return found == _levels(config)


def fits_vidtwin(config: VidTwinConfig, shapes: Shapes) -> bool:
    """Whether weights of these names and shapes are of a VidTwin model of `config`."""
    channels, qformer = config.hidden_size, config.qformer
    widest = config.init_ch << config.cont_num_blocks
    signature = {
        "encoder.x_embedder.proj.weight": (channels, config.in_channels, *config.patch_size),
        "temporal_qformer.query_embeds": (qformer.num_queries, qformer.hidden_size),
        "bottle_down.weight": (2 * config.expect_ch, widest, 3, 3),
        "cont_emb.2.weight": (config.frames, qformer.num_queries, 1),
        "motion_head.weight": (2 * config.d_dim, channels, 3, 3),
        "up_motion.0.weight": (config.grid, config.dynamics_grid),
    }
    blocks = {(match[1], int(match[2])) for match in map(_BLOCK.match, shapes) if match}
    return _has(shapes, signature) and blocks == {
        (part, i) for part in ("encoder", "decoder") for i in range(config.depth)
    }


def _has(shapes: Shapes, signature: Shapes) -> bool:
    return all(shapes.get(name) == shape for name, shape in signature.items())


def _signature(config: AutoencoderConfig) -> Shapes:
    """Names and shapes of the first and last convolutions and of the last norm."""
    deepest = config.ch * config.ch_mult[-1]
    first = config.ch * config.ch_mult[0]
    # Causal convolutions wrap the convolution proper.
    conv = "conv.weight" if config.is_causal else "weight"
    norm = "norm.weight" if config.norm_type == "layernorm" else "weight"
    kernel = (3, 3, 3)
    return {
        f"encoder.conv_in.{conv}": (config.ch, config.in_channels, *kernel),
        f"encoder.conv_out.{conv}": (config.moments_channels, deepest, *kernel),
        f"decoder.conv_in.{conv}": (deepest, config.z_channels, *kernel),
        f"decoder.conv_out.{conv}": (config.out_ch, first, *kernel),
        f"encoder.norm_out.{norm}": (deepest,),
    }


def _levels(config: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    return {key: tuple(sorted(getattr(config, key))) for key in _RESAMPLED}
