"""What the sections of a configuration have in common, whichever family's model they describe.

Every key of the model's section is known or refused, so that a misspelt one cannot pass. `data`, `lightning` and the
objective's parameters are checked where they are used; here only their targets are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from vidtok.config.targets import TARGETS, Role, Target, look_up
from vidtok.errors import ConfigError
from vidtok.text import near

log = logging.getLogger(__name__)

NOT_GIVEN = "???"
"""What stands in a configuration for a value that must be given above it."""

_SECTIONS = ("model", "data", "lightning")
_MODEL_KEYS = ("base_learning_rate", "target", "params")
ENGINE = "model.params"
ENGINE_PARTS = ("encoder_config", "decoder_config", "regularizer_config", "loss_config", "optimizer_config")
ENGINE_TRAINING = (
    "monitor", "mode", "ckpt_path", "ignore_keys", "ema_decay", "lr_g_factor", "lr_schedule", "compile_model",
    "guide_steps",
)  # fmt: skip
# How the original engine goes about computing: here these change nothing, since streaming is exact.
ENGINE_WITHOUT_EFFECT = (
    "input_key", "use_tiling", "t_chunk_enc", "t_chunk_dec", "use_overlap",
)  # fmt: skip


def model_target(raw: Mapping[str, Any]) -> Target:
    """Which model the sections `raw` describe, once they hold nothing that is not known.

    Raises `ConfigError` for unknown sections, targets and keys of `model`.
    """
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
        raise ConfigError(f"{ENGINE}.ckpt_path is {path!r}; expected a path or null")
    return None if path == NOT_GIVEN else path


def check_roles(raw: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Refuse a target that stands where a part of another role belongs."""
    parts: list[tuple[Mapping[str, Any], str, Role, str]] = [
        (params, "loss_config", "objective", ENGINE),
        (params, "optimizer_config", "optimizer", ENGINE),
        (raw, "data", "data module", ""),
    ]
    for parent, key, role, place in parts:
        if key in parent:
            look_up(mapping_at(parent, key, place), role, join(place, key))


def check_targets(value: Any, place: str) -> None:
    """Refuse any target, wherever it stands, that is not in the table."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            check_targets(item, f"{place}[{i}]")
    if not isinstance(value, Mapping):
        return
    name = value.get("target")
    if name is not None and name != NOT_GIVEN and (not isinstance(name, str) or name not in TARGETS):
        raise ConfigError(
            f"{join(place, 'target')} is {name!r}, which is not known{near(name, TARGETS)}; "
            "expected one that the published configurations have: targets are looked up in a table and never imported"
        )
    for key, item in value.items():
        check_targets(item, join(place, str(key)))


def mapping_at(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """The mapping `parent[key]`, where `parent` stands at `place`, or an error that names both."""
    where = join(place, key)
    if key not in parent:
        recipe = "" if place else ". A recipe for training, such as stage_one, goes after a model's name or file"
        raise ConfigError(f"{where} is missing; a model of the family needs it{recipe}")
    if not isinstance(parent[key], Mapping):
        raise ConfigError(f"{where} is {parent[key]!r}; expected a mapping")
    found: Mapping[str, Any] = parent[key]
    return found


def refuse_unknown(section: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """Refuse a key of `section`, which stands at `place`, that is none of `known`."""
    known = tuple(known)
    for key in section:
        if key not in known:
            raise ConfigError(
                f"{join(place, str(key))} is not known{near(key, known) or '; expected some of ' + ', '.join(known)}"
            )


def require_fixed(section: Mapping[str, Any], fixed: Mapping[str, Any], place: str) -> None:
    """Refuse another value than that of `fixed`, where `section` has one."""
    for key, value in fixed.items():
        if key in section and (section[key] != value or isinstance(section[key], bool) != isinstance(value, bool)):
            raise ConfigError(f"{place}.{key} is {section[key]!r}; the family knows {value!r} alone")


def warn_without_effect(section: Mapping[str, Any], keys: Iterable[str], place: str) -> None:
    """Say of each of `keys` that `section` has that it changes nothing."""
    for key in keys:
        if key in section:
            log.warning("%s.%s has no effect here", place, key)


def join(place: str, key: str) -> str:
    """The dotted path of `key` at `place`."""
    return f"{place}.{key}" if place else key
