"""The configuration of diffusers' `AutoencoderVidTok` (0.42.1), as data: no import of diffusers.

That class is a port of version 1.1: parameters have the published names and shapes, so a folder of it differs from one
of this package in its configuration and in the weights' file name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidtok.config.families import FAMILIES
from vidtok.errors import ConfigError
from vidtok.fields import shown
from vidtok.models.config import FSQConfig, KLConfig, ModelConfig
from vidtok.models.vidtok.config import AutoencoderConfig

PREFIX = "diffusers:"
"""Start of the names of autoencoders that diffusers computes, `diffusers:FOLDER_OR_REPO[:SUBFOLDER]`."""
CLASS_NAME = "AutoencoderVidTok"
ADAPTER_NAME = "VidTokVAE"
"""The class `vidtok.interop.vae.VidTokVAE`, whose configuration holds a model of any family under `TOKENIZER`."""
TOKENIZER = "tokenizer"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
LEVELS = 8
"""Levels of every channel of a token."""

_SAME = ("in_channels", "ch", "ch_mult", "z_channels", "num_res_blocks", "dropout")
_PLACES = ("spatial_ds", "spatial_us", "tempo_ds", "tempo_us")
_FIXED: dict[str, tuple[Any, str]] = {
    "temporal_padding": ("first_frame", "is of version 1.0 or not causal, and that class has version 1.1 alone"),
    "interpolation": ("linear", "repeats frames where that class interpolates between them"),
    "norm_type": ("layernorm", "has another norm than layernorm, the only one of that class"),
    "patch_size": (1, "takes patches of pixels, which that class lacks"),
    "block_transform": (False, "has a block transform beside the network, which that class lacks"),
}
_DEFAULTS: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "z_channels": 4, "double_z": True,
    "num_res_blocks": 2, "spatial_ds": None, "spatial_us": None, "tempo_ds": None, "tempo_us": None, "dropout": 0.0,
    "regularizer": "kl", "codebook_size": LEVELS**6, "is_causal": True,
}  # fmt: skip


def adapter_values(config: ModelConfig, name: str) -> dict[str, Any]:
    """The value of `TOKENIZER` for the model of `config`: plain values, which `model_of` reads."""
    return {"model_type": config.family, "name": name, **config.to_dict()}


def model_of(values: Mapping[str, Any]) -> tuple[ModelConfig, str]:
    """Configuration and name of the model in a diffusers folder whose `config.json` has `values`.

    The name is empty if the file has none. Raises `ConfigError` if the class is neither `AutoencoderVidTok` nor
    `VidTokVAE`, or the values are not valid.
    """
    kind = values.get("_class_name")
    if kind == CLASS_NAME:
        return from_diffusers({key: value for key, value in values.items() if not key.startswith("_")}), ""
    if kind == ADAPTER_NAME:
        return tokenizer_of(values.get(TOKENIZER))
    raise ConfigError(
        f"_class_name is {shown(kind)}; expected {CLASS_NAME!r} or {ADAPTER_NAME!r}: other autoencoders of diffusers "
        "can be measured (`vidtok evaluate --model diffusers:FOLDER`), not loaded"
    )


def tokenizer_of(values: object) -> tuple[ModelConfig, str]:
    """The configuration and name in plain `values` of `adapter_values`. Raises `ConfigError` for any others."""
    family = values.get("model_type") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(
            f"{TOKENIZER} is {shown(values)}; expected a model's configuration with model_type "
            f"{' or '.join(map(repr, FAMILIES))}"
        )
    name = values.get("name", "")
    if not isinstance(name, str):
        raise ConfigError(f"{TOKENIZER}.name is {shown(name)}; expected the model's name")
    config = FAMILIES[family].from_dict({k: v for k, v in values.items() if k not in ("model_type", "name")})
    return config, name


def to_diffusers(config: AutoencoderConfig) -> dict[str, Any]:
    """The arguments of `AutoencoderVidTok` for a model of `config`.

    Raises `ConfigError`, with the reason, if that class has no such model.
    """
    for name, (value, reason) in _FIXED.items():
        if getattr(config, name) != value:
            raise ConfigError(f"the model {reason} ({name} is {shown(getattr(config, name))})")
    bottleneck = config.bottleneck
    discrete = isinstance(bottleneck, FSQConfig)
    if not discrete and not isinstance(bottleneck, KLConfig):
        raise ConfigError(f"the model has the bottleneck {bottleneck.kind}; that class has kl and fsq")
    if isinstance(bottleneck, FSQConfig) and set(bottleneck.levels) != {LEVELS}:
        raise ConfigError(
            f"the model's tokens have levels {list(bottleneck.levels)}; that class has {LEVELS} a channel and no other"
        )
    plain = config.to_dict()
    return {
        **{name: plain[name] for name in (*_SAME, *_PLACES)},
        "out_channels": config.out_ch,
        "double_z": not discrete,
        "regularizer": "fsq" if discrete else "kl",
        "codebook_size": bottleneck.codebook_size or _DEFAULTS["codebook_size"],
        "is_causal": True,
    }


def from_diffusers(values: Mapping[str, Any]) -> AutoencoderConfig:
    """The configuration of an `AutoencoderVidTok` of these arguments; those left out have that class's defaults.

    Raises `ConfigError` for arguments that the class does not have, that contradict each other, and for a model that
    is not causal.
    """
    unknown = sorted(values.keys() - _DEFAULTS.keys())
    if unknown:
        raise ConfigError(f"{CLASS_NAME} has no argument {unknown[0]!r}; expected some of {', '.join(_DEFAULTS)}")
    known = {**_DEFAULTS, **values}
    if known["is_causal"] is not True:
        raise ConfigError(
            f"is_causal is {shown(known['is_causal'])}; expected true, as {CLASS_NAME} computes a model that is not "
            "causal in another way than the published code"
        )
    kind = known["regularizer"]
    if kind not in ("kl", "fsq"):
        raise ConfigError(f"regularizer is {shown(kind)}; expected 'kl' or 'fsq'")
    if known["double_z"] is not (kind == "kl"):
        raise ConfigError(f"double_z is {shown(known['double_z'])}; expected {kind == 'kl'} for regularizer {kind!r}")
    channels = known["z_channels"]
    if kind == "fsq":
        _check_codebook(known["codebook_size"], channels)
    bottleneck = {"kind": "kl"} if kind == "kl" else {"kind": "fsq", "levels": [LEVELS] * channels}
    places = {name: known[name] for name in _PLACES if known[name] is not None}
    return AutoencoderConfig.from_dict(
        {**{name: known[name] for name in _SAME}, **places, "out_ch": known["out_channels"], "bottleneck": bottleneck}
    )


def _check_codebook(size: Any, channels: Any) -> None:
    counts = type(size) is int and type(channels) is int and 1 <= channels < 11
    if not counts or size != LEVELS**channels:
        raise ConfigError(
            f"codebook_size is {shown(size)} and z_channels {shown(channels)}; expected {LEVELS} to the power of "
            "z_channels"
        )
