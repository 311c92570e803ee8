"""VidTwin models in the published schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vidtok.config.dialect import (
    ENGINE,
    ENGINE_PARTS,
    ENGINE_TRAINING,
    ENGINE_WITHOUT_EFFECT,
    check_roles,
    given,
    params_of,
    part_target,
    require_fixed,
    warn_of_engine,
    warn_without_effect,
)
from vidtok.config.shapes import Shapes, has_weights
from vidtok.errors import ConfigError
from vidtok.fields import refuse_unknown, shown
from vidtok.models.vidtwin.config import VidTwinConfig

# Parameters of the model itself that `VidTwinConfig` has under the same name.
_MODEL = ("expect_ch", "cont_num_blocks", "motion_num_blocks", "d_dim", "init_ch", "use_checkpoint")
_MODEL_FIXED: dict[str, Any] = {"downsample_motion": True}
# Sections of the published file that its training never reads.
_UNREAD = ("lr_scheduler_config_d", "lr_scheduler_config_g")

# Parameters of encoder and decoder that `VidTwinConfig` has under the same name.
_NETWORK = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio")
# Parameters in files of this lineage that have one value in all models of the family.
_NETWORK_FIXED: dict[str, Any] = {
    "drop_path": 0.0,
    "no_temporal_pos_emb": False,
    "pred_sigma": False,
    "space_scale": 1.0,
    "time_scale": 1.0,
    "temporal_casual": True,
}
# Options of the original's attention: here it is PyTorch's own, whatever their values.
_NETWORK_WITHOUT_EFFECT = (
    "enable_flashattn", "enable_flash_attn", "enable_layernorm_kernel", "enable_sequence_parallelism", "dtype",
)  # fmt: skip
_NETWORK_TRAINING = ("fix_encoder", "fix_decoder")
_NETWORK_KEYS = (*_NETWORK, *_NETWORK_FIXED, *_NETWORK_WITHOUT_EFFECT, *_NETWORK_TRAINING)

_PARTS = {"encoder_config": "encoder", "decoder_config": "decoder"}
_QFORMER_PART = "temporal_qformer_config"
# Parameters of the Q-Former -> the fields of `QFormerConfig`.
_QFORMER = {
    "num_query_tokens": "num_queries",
    "query_hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "cross_attention_frequency": "cross_attention_freq",
}

_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(\d+)\.attn\.qkv\.weight")


def vidtwin_config(raw: Mapping[str, Any]) -> VidTwinConfig:
    """The model of the sections `raw`: plain values that `model_target` has checked.

    Raises `ConfigError` for unknown keys and for contradictions: between encoder and decoder, and between values
    given twice (the width of the features and of the Q-Former's input).
    """
    params = raw["model"]["params"]
    own = (_QFORMER_PART, *_MODEL, *_MODEL_FIXED, *_UNREAD)
    known = (*ENGINE_PARTS, *own, *ENGINE_TRAINING, *ENGINE_WITHOUT_EFFECT)
    refuse_unknown(params, known, ENGINE)
    warn_of_engine(params)
    require_fixed(params, _MODEL_FIXED, ENGINE)
    check_roles(raw, params)
    network = _network(params)
    qformer = _qformer(params, network)
    try:
        return VidTwinConfig.from_dict(
            {
                **{key: params[key] for key in _MODEL if key in params},
                **{key: value for key, value in network.items() if key in _NETWORK},
                "qformer": qformer,
                "bottleneck": _bottleneck(params),
            }
        )
    except ConfigError as error:
        raise ConfigError(f"{ENGINE}: {error}") from error


def _network(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of encoder and decoder as one, checked."""
    merged: dict[str, Any] = {}
    for part, role in _PARTS.items():
        place = f"{ENGINE}.{part}"
        part_target(params, part, "encoder" if role == "encoder" else "decoder", VidTwinConfig.family)
        values = given(params_of(params[part], place))
        refuse_unknown(values, _NETWORK_KEYS, f"{place}.params")
        require_fixed(values, _NETWORK_FIXED, f"{place}.params")
        for key, value in values.items():
            if key in merged and merged[key] != value:
                raise ConfigError(
                    f"{ENGINE}.encoder_config.params.{key} is {shown(merged[key])} and {place}.params.{key} "
                    f"{shown(value)}; expected the same (params: ${{model.params.encoder_config.params}} keeps them so)"
                )
            merged[key] = value
    for key in _NETWORK_TRAINING:
        if not isinstance(merged.get(key, False), bool):
            raise ConfigError(f"{ENGINE}.encoder_config.params.{key} is {shown(merged[key])}; expected true or false")
    warn_without_effect(merged, _NETWORK_WITHOUT_EFFECT, f"{ENGINE}.encoder_config.params")
    return merged


def _qformer(params: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """The Q-Former's parameters as the values of a `QFormerConfig`."""
    place = f"{ENGINE}.{_QFORMER_PART}"
    part_target(params, _QFORMER_PART, "qformer", VidTwinConfig.family)
    values = given(params_of(params[_QFORMER_PART], place))
    refuse_unknown(values, (*_QFORMER, "encoder_hidden_size"), f"{place}.params")
    width = network.get("hidden_size", VidTwinConfig().hidden_size)
    if values.get("encoder_hidden_size", width) != width:
        raise ConfigError(
            f"{place}.params.encoder_hidden_size is {shown(values['encoder_hidden_size'])}; expected {shown(width)}, "
            "the hidden_size of the encoder that it reads"
        )
    return {_QFORMER[key]: value for key, value in values.items() if key in _QFORMER}


def _bottleneck(params: Mapping[str, Any]) -> dict[str, Any]:
    place = f"{ENGINE}.regularizer_config"
    target = part_target(params, "regularizer_config", "regularizer", "vidtok")
    if target.kind != "kl":
        raise ConfigError(f"{place}.target is for tokens, which VidTwin has none of; expected the Gaussian regularizer")
    values = given(params_of(params["regularizer_config"], place))
    refuse_unknown(values, ("sample",), f"{place}.params")
    return values


def fits_vidtwin(config: VidTwinConfig, shapes: Shapes) -> bool:
    """True if weights of these names and shapes are of a VidTwin model of `config`."""
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
    return has_weights(shapes, signature) and blocks == {
        (part, i) for part in ("encoder", "decoder") for i in range(config.depth)
    }
