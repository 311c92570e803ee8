"""VidTok models in the published schema.

Values that stand twice must agree; unknown keys are refused (`dialect.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vidtok.config.dialect import (
    ENGINE,
    ENGINE_PARTS,
    ENGINE_TRAINING,
    ENGINE_WITHOUT_EFFECT,
    NOT_GIVEN,
    check_roles,
    given,
    look_up,
    mapping_at,
    params_of,
    part_target,
    require_fixed,
    warn_of_engine,
    warn_without_effect,
)
from vidtok.config.shapes import Shapes, has_weights
from vidtok.errors import ConfigError
from vidtok.fields import refuse_unknown, shown
from vidtok.models.vidtok.config import AutoencoderConfig, TemporalPadding

# The variants that targets of encoders, decoders and models name.
_PADDING: dict[str, TemporalPadding] = {"causal 1.0": "zeros", "causal 1.1": "first_frame", "non-causal": "both_sides"}

# Parameters of encoder and decoder that `AutoencoderConfig` has under the same name.
_STRUCTURE = (
    "z_channels", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "dropout", "norm_type", "use_checkpoint",
    "spatial_ds", "spatial_us", "tempo_ds", "tempo_us", "patch_size", "block_transform",
)  # fmt: skip
# Parameters in files of this lineage that have one value in all models of the family.
_NETWORK_FIXED: dict[str, Any] = {
    "init_pad_mode": "replicate",
    "attn_resolutions": [],
    "attn_type": "vanilla",
    "resamp_with_conv": True,
    "give_pre_end": False,
    "tanh_out": False,
}
_NETWORK_CHECKED = ("double_z", "time_downsample_factor", "is_causal", "interpolation_mode")
_NETWORK_TRAINING = ("fix_encoder", "fix_decoder")
_NETWORK_WITHOUT_EFFECT = ("resolution",)
_NETWORK_KEYS = (*_STRUCTURE, *_NETWORK_FIXED, *_NETWORK_CHECKED, *_NETWORK_TRAINING, *_NETWORK_WITHOUT_EFFECT)

_FSQ_KEYS = (
    "levels", "entropy_loss_weight", "entropy_loss_annealing_steps", "entropy_loss_annealing_factor",
    "commitment_loss_weight",
)  # fmt: skip
_FSQ_FIXED: dict[str, Any] = {"num_codebooks": 1, "keep_num_codebooks_dim": False, "scale": None}

_ENCODER = f"{ENGINE}.encoder_config"
_DECODER = f"{ENGINE}.decoder_config"
_REGULARIZER = f"{ENGINE}.regularizer_config"


# Levels at which encoder and decoder resample space and time, by the names of weights.
_RESAMPLED = {
    "spatial_ds": re.compile(r"encoder\.down\.(\d+)\.downsample\."),
    "tempo_ds": re.compile(r"encoder\.down_temporal\.(\d+)\.downsample\."),
    "spatial_us": re.compile(r"decoder\.up\.(\d+)\.upsample\."),
    "tempo_us": re.compile(r"decoder\.up_temporal\.(\d+)\.upsample\."),
}


def autoencoder_config(raw: Mapping[str, Any]) -> AutoencoderConfig:
    """The model of the sections `raw`: plain values that `model_target` has checked.

    Raises `ConfigError` for unknown keys and targets and for contradictions: between the variants that the targets
    name, between encoder and decoder, and between values given twice (factor and levels, `double_z` and bottleneck).
    """
    model = raw["model"]
    params = model["params"]
    refuse_unknown(params, (*ENGINE_PARTS, *ENGINE_TRAINING, *ENGINE_WITHOUT_EFFECT), ENGINE)
    warn_of_engine(params)
    check_roles(raw, params)

    variant = _variant(model, params)
    network = _network_params(params)
    try:
        config = AutoencoderConfig.from_dict(
            {
                **{key: network[key] for key in _STRUCTURE if key in network},
                "bottleneck": _bottleneck(mapping_at(params, "regularizer_config", ENGINE)),
                "temporal_padding": _PADDING[variant],
                "interpolation": _interpolation(network, variant),
            }
        )
    except ConfigError as error:
        raise ConfigError(f"{ENGINE}: {error}") from error
    _check_said_twice(network, params, config)
    return config


def _variant(model: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """The variant that encoder, decoder and model agree on."""
    encoder = part_target(params, "encoder_config", "encoder", AutoencoderConfig.family)
    decoder = part_target(params, "decoder_config", "decoder", AutoencoderConfig.family)
    engine = look_up(model, "model", "model")
    for place, target in ((_DECODER, decoder), ("model", engine)):
        if encoder.variants[0] not in target.variants:
            raise ConfigError(
                f"{_ENCODER}.target is for {encoder.variants[0]} models and {place}.target for "
                f"{' or '.join(target.variants)} ones; expected targets of one variant"
            )
    return encoder.variants[0]


def _network_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of encoder and decoder as one, checked; values not given are left out."""
    merged: dict[str, Any] = {}
    for part, place in (("encoder_config", _ENCODER), ("decoder_config", _DECODER)):
        values = params_of(params[part], place)
        refuse_unknown(values, _NETWORK_KEYS, f"{place}.params")
        require_fixed(values, _NETWORK_FIXED, f"{place}.params")
        for key, value in given(values).items():
            if key in merged and merged[key] != value:
                raise ConfigError(
                    f"{_ENCODER}.params.{key} is {shown(merged[key])} and {_DECODER}.params.{key} {shown(value)}; "
                    "expected the same (params: ${model.params.encoder_config.params} keeps them so)"
                )
            merged[key] = value
    for key in ("double_z", "is_causal", *_NETWORK_TRAINING):
        if not isinstance(merged.get(key, False), bool):
            raise ConfigError(f"{_ENCODER}.params.{key} is {shown(merged[key])}; expected true or false")
    warn_without_effect(merged, _NETWORK_WITHOUT_EFFECT, f"{_ENCODER}.params")
    return merged


def _interpolation(network: Mapping[str, Any], variant: str) -> str:
    """The variant's interpolation in time: 1.1 as `interpolation_mode` says, linear by default, others nearest."""
    meanings = {"trilinear": "linear", "nearest": "nearest"} if variant == "causal 1.1" else {"nearest": "nearest"}
    mode = network.get("interpolation_mode", next(iter(meanings)))
    if not isinstance(mode, str) or mode not in meanings:
        raise ConfigError(
            f"{_ENCODER}.params.interpolation_mode is {shown(mode)}; {variant} models know {' and '.join(meanings)}"
        )
    return meanings[mode]


def _bottleneck(section: Mapping[str, Any]) -> dict[str, Any]:
    """The regulariser as the values of a `KLConfig` or an `FSQConfig`."""
    kind = look_up(section, "regularizer", _REGULARIZER).kind
    params = params_of(section, _REGULARIZER)
    place = f"{_REGULARIZER}.params"
    if kind == "kl":
        refuse_unknown(params, ("sample",), place)
        return {"kind": "kl", **params}
    refuse_unknown(params, (*_FSQ_KEYS, "dim", *_FSQ_FIXED), place)
    require_fixed(params, _FSQ_FIXED, place)
    levels = params.get("levels", NOT_GIVEN)
    if levels == NOT_GIVEN:
        raise ConfigError(
            f"{place}.levels is missing; expected the number of values of each channel, such as [8, 8, 8]"
        )
    if params.get("dim") is not None and isinstance(levels, list) and params["dim"] != len(levels):
        raise ConfigError(
            f"{place}.dim is {shown(params['dim'])}; expected {len(levels)}, one a level of {shown(levels)}, or none"
        )
    return {"kind": "fsq", **{key: params[key] for key in _FSQ_KEYS if key in params}}


def _check_said_twice(network: Mapping[str, Any], params: Mapping[str, Any], config: AutoencoderConfig) -> None:
    """Raise `ConfigError` for values that contradict `config`, which follows from the others."""
    doubled = config.moments_channels == 2 * config.z_channels
    regularizer = str(params["regularizer_config"]["target"]).rpartition(".")[2]
    facts = (
        ("time_downsample_factor", config.temporal_factor, f"tempo_ds {list(config.tempo_ds or ())}"),
        ("double_z", doubled, f"{regularizer} takes {'mean and log-variance' if doubled else 'the latent alone'}"),
        ("is_causal", config.is_causal, "as the targets say"),
    )
    for key, value, reason in facts:
        said = network.get(key, value)
        if said != value or isinstance(said, bool) != isinstance(value, bool):
            raise ConfigError(f"{_ENCODER}.params.{key} is {shown(said)}; expected {value!r} ({reason})")


def fits_autoencoder(config: AutoencoderConfig, shapes: Shapes) -> bool:
    """True if weights of these names and shapes are of a VidTok model of `config`.

    Versions 1.0 and 1.1 of a model have the same names and shapes.
    """
    if not has_weights(shapes, _signature(config)):
        return False
    found = {
        key: tuple(sorted({int(match[1]) for match in map(pattern.match, shapes) if match}))
        for key, pattern in _RESAMPLED.items()
    }
    return found == _levels(config)


def _signature(config: AutoencoderConfig) -> Shapes:
    """Names and shapes of the first and last convolutions and of the last norm."""
    deepest = config.ch * config.ch_mult[-1]
    first = config.ch * config.ch_mult[0]
    # Causal convolutions wrap the convolution proper.
    conv = "conv.weight" if config.is_causal else "weight"
    norm = "norm.weight" if config.norm_type == "layernorm" else "weight"
    kernel = (3, 3, 3)
    patch = config.patch_size**2
    return {
        f"encoder.conv_in.{conv}": (config.ch, config.in_channels * patch, *kernel),
        f"encoder.conv_out.{conv}": (config.moments_channels, deepest, *kernel),
        f"decoder.conv_in.{conv}": (deepest, config.z_channels, *kernel),
        f"decoder.conv_out.{conv}": (config.out_ch * patch, first, *kernel),
        f"encoder.norm_out.{norm}": (deepest,),
    }


def _levels(config: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    return {key: tuple(sorted(getattr(config, key))) for key in _RESAMPLED}
