"""The published YAML schema, for models of all families: its sections, and the meaning of its `target:` values.

Targets look like import paths; here they are names in a table. Nothing is ever imported by a name that a file gives: a
target that is not in `TARGETS` is an error.

Every key of the model's section is known or refused, so that a misspelt one cannot pass. `data`, `lightning` and the
objective's parameters are checked by their users (`vidtok.training`); here only their targets are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vidtok import fields
from vidtok.errors import ConfigError
from vidtok.fields import join, refuse_unknown, shown
from vidtok.text import near

log = logging.getLogger(__name__)

Role = Literal[
    "model", "encoder", "decoder", "qformer", "regularizer", "objective", "optimizer", "schedule", "unread schedule",
    "data module", "dataset", "strategy", "callback",
]  # fmt: skip

NOT_GIVEN = "???"
"""Placeholder for a value that must be given in a layer above: a file over this one, or an override."""

_SECTIONS = ("model", "data", "lightning")
_MODEL_KEYS = ("base_learning_rate", "target", "params")
ENGINE = "model.params"
ENGINE_PARTS = ("encoder_config", "decoder_config", "regularizer_config", "loss_config", "optimizer_config")
DISTILL = "distill_config"
ENGINE_TRAINING = (
    "monitor", "mode", "ckpt_path", "ignore_keys", "ema_decay", "lr_g_factor", "lr_schedule", "lr_scheduler_config",
    "compile_model", "guide_steps", DISTILL,
)  # fmt: skip
_ENGINE_ASKING = ("use_tiling", "use_overlap")
# The original engine's ways of computing: here these change nothing, since streaming is exact.
ENGINE_WITHOUT_EFFECT = ("input_key", "t_chunk_enc", "t_chunk_dec", *_ENGINE_ASKING)


@dataclass(frozen=True)
class Target:
    """One published name: the role that it may fill, and its meaning there."""

    role: Role
    variants: tuple[str, ...] = ()
    """Of a model, an encoder or a decoder of VidTok: the variants that it belongs to."""
    family: str = "vidtok"
    """Of a model, an encoder, a decoder or a Q-Former: the family that it belongs to."""
    kind: str = ""
    """Of other parts: the short name of the one it stands for (`kl`, `fsq`, `adam`, `ddp`, ...)."""


NATIVE = "native"
"""The kind of a model target that is a family's name; see `vidtok.config.native`."""

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")

TARGETS: dict[str, Target] = {
    "vidtok.models.autoencoder.AutoencodingEngine": Target("model", ("causal 1.0", "non-causal")),
    "vidtok.models.autoencoder_v1_1.AutoencodingEngine": Target("model", ("causal 1.1",)),
    "vidtok.modules.model_3dcausal.EncoderCausal3DPadding": Target("encoder", ("causal 1.0",)),
    "vidtok.modules.model_3dcausal.DecoderCausal3DPadding": Target("decoder", ("causal 1.0",)),
    "vidtok.modules.model_3dcausal_v1_1.EncoderCausal3DPadding": Target("encoder", ("causal 1.1",)),
    "vidtok.modules.model_3dcausal_v1_1.DecoderCausal3DPadding": Target("decoder", ("causal 1.1",)),
    "vidtok.modules.model_3dnoncausal.Encoder3D": Target("encoder", ("non-causal",)),
    "vidtok.modules.model_3dnoncausal.Decoder3D": Target("decoder", ("non-causal",)),
    "vidtwin.models.vidtwin_ae.VidAutoEncoderQformerCompactSymVidVAE": Target("model", family="vidtwin"),
    "vidtwin.modules.st_transformer.STTEncoder": Target("encoder", family="vidtwin"),
    "vidtwin.modules.st_transformer.STTDecoder": Target("decoder", family="vidtwin"),
    "vidtwin.modules.qformer.MyQformerInterface": Target("qformer", family="vidtwin"),
    "vidtok.modules.regularizers.DiagonalGaussianRegularizer": Target("regularizer", kind="kl"),
    "vidtok.modules.regularizers.FSQRegularizer": Target("regularizer", kind="fsq"),
    "vidtok.modules.losses.GeneralLPIPSWithDiscriminator": Target("objective", kind="lpips_with_discriminator"),
    "torch.nn.Identity": Target("objective", kind="none"),
    "torch.optim.Adam": Target("optimizer", kind="adam"),
    "torch.optim.AdamW": Target("optimizer", kind="adamw"),
    "vidtok.training.muon.Muon": Target("optimizer", kind="muon"),
    "inverse_sqrt": Target("schedule", kind="inverse_sqrt"),
    # In the published file of VidTwin, in two sections that its training does not read.
    "vidtok.models.vidtwin_ae.LambdaWarmUpCosineScheduler": Target("unread schedule"),
    "vidtok.data.datamodule.DataModuleFromConfig": Target("data module", kind="from_config"),
    "vidtok.data.vidtok.VidTokDataset": Target("dataset", kind="videos"),
    "vidtok.data.synthetic.SyntheticClips": Target("dataset", kind="synthetic"),
    "vidtok.data.tokens.TokenClips": Target("dataset", kind="tokens"),
    "vidtok.modules.logger.ImageVideoLogger": Target("callback", kind="image_logger"),
    **{f"{p}.strategies.DDPStrategy": Target("strategy", kind="ddp") for p in _LIGHTNING},
    **{f"{p}.strategies.FSDPStrategy": Target("strategy", kind="fsdp") for p in _LIGHTNING},
    **{f"{p}.callbacks.ModelCheckpoint": Target("callback", kind="model_checkpoint") for p in _LIGHTNING},
    **{f"{p}.callbacks.LearningRateMonitor": Target("callback", kind="learning_rate_monitor") for p in _LIGHTNING},
}


def model_target(raw: Mapping[str, Any]) -> Target:
    """The model's target in the sections `raw`, whose targets and keys of `model` are checked first.

    Raises `ConfigError` for unknown sections, targets and keys of `model`.
    """
    if not any(section in raw for section in _SECTIONS):
        raise ConfigError(f"it has none of the sections {', '.join(_SECTIONS)}; expected a configuration")
    refuse_unknown(raw, _SECTIONS, "")
    check_targets(raw, "")
    model = mapping_at(raw, "model", "")
    refuse_unknown(model, _MODEL_KEYS, "model")
    mapping_at(model, "params", "model")
    return look_up(model, "model", "model")


def part_target(params: Mapping[str, Any], key: str, role: Role, family: str) -> Target:
    """The target of the part `key` of a model of `family`; `ConfigError` for one of another family."""
    place = f"{ENGINE}.{key}"
    target = look_up(mapping_at(params, key, ENGINE), role, place)
    if target.family != family:
        raise ConfigError(
            f"{place}.target is for {target.family} models and model.target for {family} ones; "
            "expected targets of one family"
        )
    return target


def checkpoint_path(raw: Mapping[str, Any]) -> str | None:
    """`model.params.ckpt_path` of the sections `raw`, None where it is absent, null or not given."""
    path = raw["model"]["params"].get("ckpt_path")
    if path is not None and not isinstance(path, str):
        raise ConfigError(f"{ENGINE}.ckpt_path is {shown(path)}; expected a path or null")
    return None if path == NOT_GIVEN else path


def check_roles(raw: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a target that stands where another role belongs."""
    parts: list[tuple[Mapping[str, Any], str, Role, str]] = [
        (params, "loss_config", "objective", ENGINE),
        (params, "optimizer_config", "optimizer", ENGINE),
        (params, "lr_scheduler_config", "schedule", ENGINE),
        (raw, "data", "data module", ""),
    ]
    for parent, key, role, place in parts:
        if key in parent and not (parent[key] is None and role == "schedule"):
            look_up(mapping_at(parent, key, place), role, join(place, key))


def frozen_parts(params: Mapping[str, Any]) -> set[str]:
    """The names among `fix_encoder` and `fix_decoder` that are set, for either network or for the model itself."""
    sections = [
        params,
        *((params.get(part) or {}).get("params") or {} for part in ("encoder_config", "decoder_config")),
    ]
    return {key for key in ("fix_encoder", "fix_decoder") if any(section.get(key) for section in sections)}


def check_targets(value: Any, place: str) -> None:
    """Raise `ConfigError` for any target in `value`, at any depth, that is not in the table."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            check_targets(item, f"{place}[{i}]")
    if not isinstance(value, Mapping):
        return
    name = value.get("target")
    if name is not None and name != NOT_GIVEN and (not isinstance(name, str) or name not in TARGETS):
        raise ConfigError(
            f"{join(place, 'target')} is {shown(name)}, which is not known{near(name, TARGETS)}; "
            "expected one that the published configurations have: targets are looked up in a table and never imported"
        )
    for key, item in value.items():
        check_targets(item, join(place, str(key)))


def look_up(section: Mapping[str, object], role: Role, place: str) -> Target:
    """The target of `section`, which stands at `place` and must fill `role`; `ConfigError` if it is absent or unfit."""
    fitting = [name for name, target in TARGETS.items() if target.role == role]
    name = section.get("target")
    if name is None:
        raise ConfigError(f"{place}.target is missing; expected one of {', '.join(fitting)}")
    target = TARGETS.get(name) if isinstance(name, str) else None
    if target is None:
        raise ConfigError(
            f"{place}.target is {shown(name)}, which is not known{near(name, fitting)}; "
            f"expected one of {', '.join(fitting)} (targets are looked up in a table and never imported)"
        )
    if target.role != role:
        raise ConfigError(
            f"{place}.target is {name}, a name for the {target.role}; the {role} is one of {', '.join(fitting)}"
        )
    return target


def mapping_at(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """The mapping `parent[key]`, where `parent` stands at `place`; `ConfigError` if it is absent."""
    if key not in parent:
        recipe = "" if place else ". A recipe for training, such as stage_one, goes after a model's name or file"
        raise ConfigError(f"{join(place, key)} is missing; a model of the family needs it{recipe}")
    return fields.mapping_at(parent, key, place)


def params_of(section: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The `params` of `section`, which may hold only these and a target; empty where they are absent or null."""
    refuse_unknown(section, ("target", "params"), place)
    return fields.mapping_at(section, "params", place, optional=True)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the placeholders `NOT_GIVEN`."""
    return {key: value for key, value in values.items() if value != NOT_GIVEN}


def require_fixed(section: Mapping[str, Any], fixed: Mapping[str, Any], place: str) -> None:
    """Raise `ConfigError` for a value in `section` that differs from the one in `fixed`."""
    for key, value in fixed.items():
        if key in section and (section[key] != value or isinstance(section[key], bool) != isinstance(value, bool)):
            raise ConfigError(f"{place}.{key} is {shown(section[key])}; the family knows {value!r} alone")


def warn_without_effect(section: Mapping[str, Any], keys: Iterable[str], place: str, where: str = "here") -> None:
    """Warn that each of `keys` in `section` changes nothing."""
    for key in keys:
        if key in section:
            log.warning("%s.%s has no effect %s", place, key, where)


def warn_of_engine(params: Mapping[str, Any]) -> None:
    """Warn of options of the original engine that the model's `params` switch on and that change nothing here."""
    warn_without_effect(params, (key for key in _ENGINE_ASKING if params.get(key)), ENGINE)
