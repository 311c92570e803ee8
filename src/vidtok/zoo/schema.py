"""The published schema: what the sections of a configuration say of a model.

Every key of the model's section is known or refused, so that a misspelt one cannot pass, and what is said twice must
agree. `data`, `lightning` and the objective's parameters are checked where they are used; here only their targets are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from vidtok.errors import ConfigError
from vidtok.models.config import AutoencoderConfig, KLConfig
from vidtok.zoo.suggest import near
from vidtok.zoo.targets import TARGETS, VARIANT_PADDING, Role, Variant, look_up

log = logging.getLogger(__name__)

NOT_GIVEN = "???"
"""What stands in a configuration for a value that must be given above it."""

_SECTIONS = ("model", "data", "lightning")
_MODEL_KEYS = ("base_learning_rate", "target", "params")
_ENGINE_PARTS = ("encoder_config", "decoder_config", "regularizer_config", "loss_config", "optimizer_config")
_ENGINE_TRAINING = (
    "monitor", "mode", "ckpt_path", "ignore_keys", "ema_decay", "lr_g_factor", "lr_schedule", "compile_model",
)  # fmt: skip
# How the original engine goes about computing: here these change nothing, since streaming is exact.
_ENGINE_WITHOUT_EFFECT = (
    "input_key", "use_tiling", "t_chunk_enc", "t_chunk_dec", "use_overlap",
)  # fmt: skip

# Parameters of encoder and decoder that `AutoencoderConfig` has under the same name.
_STRUCTURE = (
    "z_channels", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "dropout", "norm_type", "use_checkpoint",
    "spatial_ds", "spatial_us", "tempo_ds", "tempo_us",
)  # fmt: skip
# Parameters that files of this lineage carry and of which the family uses one value each.
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

_ENGINE = "model.params"
_ENCODER = f"{_ENGINE}.encoder_config"
_DECODER = f"{_ENGINE}.decoder_config"
_REGULARIZER = f"{_ENGINE}.regularizer_config"


def autoencoder_config(raw: Mapping[str, Any]) -> AutoencoderConfig:
    """The model that the sections `raw`, plain values with interpolations filled in, describe.

    Raises `ConfigError` for unknown keys and targets and for contradictions: between the variants that the targets
    name, between encoder and decoder, and between what is said twice (factor and levels, `double_z` and bottleneck).
    """
    _refuse_unknown(raw, _SECTIONS, "")
    _check_targets(raw, "")
    model = _section(raw, "model", "")
    _refuse_unknown(model, _MODEL_KEYS, "model")
    params = _section(model, "params", "model")
    _refuse_unknown(params, (*_ENGINE_PARTS, *_ENGINE_TRAINING, *_ENGINE_WITHOUT_EFFECT), _ENGINE)
    _warn_without_effect(params, _ENGINE_WITHOUT_EFFECT, _ENGINE)
    _check_roles(raw, params)

    variant = _variant(model, params)
    network = _network_params(params)
    try:
        config = AutoencoderConfig.from_dict(
            {
                **{key: network[key] for key in _STRUCTURE if key in network},
                "bottleneck": _bottleneck(_section(params, "regularizer_config", _ENGINE)),
                "temporal_padding": VARIANT_PADDING[variant],
                "interpolation": _interpolation(network, variant),
            }
        )
    except ConfigError as error:
        raise ConfigError(f"{_ENGINE}: {error}") from error
    _check_said_twice(network, params, config)
    return config


def checkpoint_path(raw: Mapping[str, Any]) -> str | None:
    """`model.params.ckpt_path` of the sections `raw`, None where it is absent, null or not given."""
    path = raw["model"]["params"].get("ckpt_path")
    if path is not None and not isinstance(path, str):
        raise ConfigError(f"{_ENGINE}.ckpt_path is {path!r}; expected a path or null")
    return None if path == NOT_GIVEN else path


def _check_roles(raw: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Refuse a target that stands where a part of another role belongs."""
    parts: list[tuple[Mapping[str, Any], str, Role, str]] = [
        (params, "loss_config", "objective", _ENGINE),
        (params, "optimizer_config", "optimizer", _ENGINE),
        (raw, "data", "data module", ""),
    ]
    for parent, key, role, place in parts:
        if key in parent:
            look_up(_section(parent, key, place), role, _join(place, key))


def _variant(model: Mapping[str, Any], params: Mapping[str, Any]) -> Variant:
    """The variant that encoder, decoder and model agree on."""
    encoder = look_up(_section(params, "encoder_config", _ENGINE), "encoder", _ENCODER)
    decoder = look_up(_section(params, "decoder_config", _ENGINE), "decoder", _DECODER)
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
        section = params[part]
        _refuse_unknown(section, ("target", "params"), place)
        given = section.get("params")
        if given is None:
            continue
        given = _section(section, "params", place)
        _refuse_unknown(given, _NETWORK_KEYS, f"{place}.params")
        _require_fixed(given, _NETWORK_FIXED, f"{place}.params")
        for key, value in given.items():
            if value == NOT_GIVEN:
                continue
            if key in merged and merged[key] != value:
                raise ConfigError(
                    f"{_ENCODER}.params.{key} is {merged[key]!r} and {_DECODER}.params.{key} {value!r}; expected the "
                    "same (params: ${model.params.encoder_config.params} keeps them so)"
                )
            merged[key] = value
    for key in ("double_z", "is_causal", *_NETWORK_TRAINING):
        if not isinstance(merged.get(key, False), bool):
            raise ConfigError(f"{_ENCODER}.params.{key} is {merged[key]!r}; expected true or false")
    _warn_without_effect(merged, _NETWORK_WITHOUT_EFFECT, f"{_ENCODER}.params")
    return merged


def _interpolation(network: Mapping[str, Any], variant: Variant) -> str:
    """How the variant interpolates in time: 1.1 as `interpolation_mode` says, linear by default, others nearest."""
    meanings = {"trilinear": "linear", "nearest": "nearest"} if variant == "causal 1.1" else {"nearest": "nearest"}
    mode = network.get("interpolation_mode", next(iter(meanings)))
    if mode not in meanings:
        raise ConfigError(
            f"encoder_config.params.interpolation_mode is {mode!r}; {variant} models know {' and '.join(meanings)}"
        )
    return meanings[mode]


def _bottleneck(section: Mapping[str, Any]) -> dict[str, Any]:
    """The regulariser as the values of a `KLConfig` or an `FSQConfig`."""
    kind = look_up(section, "regularizer", _REGULARIZER).kind
    _refuse_unknown(section, ("target", "params"), _REGULARIZER)
    params = _section(section, "params", _REGULARIZER) if section.get("params") is not None else {}
    place = f"{_REGULARIZER}.params"
    if kind == "kl":
        _refuse_unknown(params, ("sample",), place)
        return {"kind": "kl", **params}
    _refuse_unknown(params, (*_FSQ_KEYS, "dim", *_FSQ_FIXED), place)
    _require_fixed(params, _FSQ_FIXED, place)
    levels = params.get("levels", NOT_GIVEN)
    if levels == NOT_GIVEN:
        raise ConfigError(
            f"{place}.levels is missing; expected the number of values of each channel, such as [8, 8, 8]"
        )
    if params.get("dim") is not None and isinstance(levels, list) and params["dim"] != len(levels):
        raise ConfigError(f"{place}.dim is {params['dim']!r}; expected {len(levels)}, one a level of {levels}, or none")
    return {"kind": "fsq", **{key: params[key] for key in _FSQ_KEYS if key in params}}


def _check_said_twice(network: Mapping[str, Any], params: Mapping[str, Any], config: AutoencoderConfig) -> None:
    """Refuse values that contradict what `config` makes of the others."""
    is_kl = isinstance(config.bottleneck, KLConfig)
    regularizer = str(params["regularizer_config"]["target"]).rpartition(".")[2]
    facts = (
        ("time_downsample_factor", config.temporal_factor, f"tempo_ds {list(config.tempo_ds or ())}"),
        ("double_z", is_kl, f"{regularizer} takes {'mean and log-variance' if is_kl else 'the latent alone'}"),
        ("is_causal", config.is_causal, "as the targets say"),
    )
    for key, value, reason in facts:
        given = network.get(key, value)
        if given != value or isinstance(given, bool) != isinstance(value, bool):
            raise ConfigError(f"{_ENCODER}.params.{key} is {given!r}; expected {value!r} ({reason})")


def _check_targets(value: Any, place: str) -> None:
    """Refuse any target, wherever it stands, that is not in the table."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_targets(item, f"{place}[{i}]")
    if not isinstance(value, Mapping):
        return
    name = value.get("target")
    if name is not None and name != NOT_GIVEN and (not isinstance(name, str) or name not in TARGETS):
        raise ConfigError(
            f"{_join(place, 'target')} is {name!r}, which is not known{near(name, TARGETS)}; "
            "targets are looked up in a table and never imported"
        )
    for key, item in value.items():
        _check_targets(item, _join(place, str(key)))


def _section(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """The mapping `parent[key]`, or an error that names the place."""
    where = _join(place, key)
    if key not in parent:
        raise ConfigError(f"{where} is missing; a model of the family needs it")
    if not isinstance(parent[key], Mapping):
        raise ConfigError(f"{where} is {parent[key]!r}; expected a mapping")
    section: Mapping[str, Any] = parent[key]
    return section


def _refuse_unknown(section: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    known = tuple(known)
    for key in section:
        if key not in known:
            raise ConfigError(
                f"{_join(place, str(key))} is not known{near(key, known) or '; expected some of ' + ', '.join(known)}"
            )


def _require_fixed(section: Mapping[str, Any], fixed: Mapping[str, Any], place: str) -> None:
    for key, value in fixed.items():
        if key in section and (section[key] != value or isinstance(section[key], bool) != isinstance(value, bool)):
            raise ConfigError(f"{place}.{key} is {section[key]!r}; the family knows {value!r} alone")


def _warn_without_effect(section: Mapping[str, Any], keys: Iterable[str], place: str) -> None:
    for key in keys:
        if key in section:
            log.warning("%s.%s has no effect here", place, key)


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
