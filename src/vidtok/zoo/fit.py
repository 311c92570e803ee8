"""Which models of the family a checkpoint is of, judged by a few names and shapes that tell them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from vidtok.models.config import AutoencoderConfig
from vidtok.zoo import registry
from vidtok.zoo.published import read_config

Shapes = Mapping[str, tuple[int, ...]]

# Levels at which encoder and decoder resample space and time.
_RESAMPLED = {
    "spatial_ds": re.compile(r"encoder\.down\.(\d+)\.downsample\."),
    "tempo_ds": re.compile(r"encoder\.down_temporal\.(\d+)\.downsample\."),
    "spatial_us": re.compile(r"decoder\.up\.(\d+)\.upsample\."),
    "tempo_us": re.compile(r"decoder\.up_temporal\.(\d+)\.upsample\."),
}


def fitting_models(shapes: Shapes) -> list[str]:
    """Names of the models whose checkpoints have these names and shapes.

    Versions 1.0 and 1.1 of a model have the same ones, so both may be named.
    """
    return [name for name, (signature, levels) in _signatures().items() if _matches(shapes, signature, levels)]


def _matches(shapes: Shapes, signature: Shapes, levels: Mapping[str, tuple[int, ...]]) -> bool:
    if any(shapes.get(name) != shape for name, shape in signature.items()):
        return False
    found = {
        key: tuple(sorted({int(match[1]) for match in map(pattern.match, shapes) if match}))
        for key, pattern in _RESAMPLED.items()
    }
    return found == levels


@cache
def _signatures() -> dict[str, tuple[Shapes, dict[str, tuple[int, ...]]]]:
    configs = {name: read_config(name).model for name in registry.models()}
    return {name: (_signature(config), _levels(config)) for name, config in configs.items()}


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
