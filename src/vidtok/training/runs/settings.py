"""The `lightning` section of a configuration: the trainer, its strategy, checkpoints and callbacks."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from vidtok.config.dialect import look_up
from vidtok.errors import ConfigError
from vidtok.training.runs.arguments import TRAINER_OPTIONS
from vidtok.training.runs.checkpoints import CheckpointSettings
from vidtok.training.runs.media import MediaSettings
from vidtok.training.settings import build, refuse_unknown

log = logging.getLogger(__name__)

Strategy = Literal["auto", "ddp", "fsdp"]

_PLACE = "lightning"
_STRATEGIES: dict[str, Strategy] = {
    "auto": "auto",
    "ddp": "ddp",
    "ddp_find_unused_parameters_true": "ddp",
    "ddp_find_unused_parameters_false": "ddp",
    "fsdp": "fsdp",
}
_DDP_OPTIONS = ("find_unused_parameters", "gradient_as_bucket_view", "static_graph", "process_group_backend")
# Of the published ModelCheckpoint; file names, and whether to log them, are this package's own affair.
_CHECKPOINT_WITHOUT_EFFECT = ("dirpath", "filename", "verbose", "save_weights_only", "monitor", "mode")
_NORM = 20.0


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How Lightning is to run. Values out of range raise `ConfigError`."""

    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's Trainer, but for those that have a field of their own here."""
    strategy: Strategy = "auto"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    accumulate: int = 1
    clip_norm: float | None = _NORM
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    media: MediaSettings | None = None
    seed: int = 23
    scale_lr: bool = False

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> RunSettings:
        """The settings in the sections `raw` of a configuration."""
        section = _mapping(raw, _PLACE, "")
        refuse_unknown(section, ("strategy", "modelcheckpoint", "callbacks", "trainer", "seed", "scale_lr"), _PLACE)
        trainer = dict(_mapping(section, "trainer", _PLACE))
        refuse_unknown(trainer, TRAINER_OPTIONS, f"{_PLACE}.trainer")
        accumulate = trainer.pop("accumulate_grad_batches", 1)
        _require(_is_whole(accumulate, 1), "trainer.accumulate_grad_batches", accumulate, "a whole number from 1 up")
        every = trainer.get("log_every_n_steps")
        _require(
            every is None or _is_whole(every, 0),
            "trainer.log_every_n_steps", every, "a whole number of steps from 0 (never) up",
        )  # fmt: skip
        norm = trainer.pop("gradient_clip_val", _NORM)
        _require(
            norm is None or (isinstance(norm, int | float) and norm > 0),
            "trainer.gradient_clip_val", norm, "a norm above 0, or null",
        )  # fmt: skip
        if trainer.pop("gradient_clip_algorithm", "norm") not in ("norm", None):
            raise ConfigError(f"{_PLACE}.trainer.gradient_clip_algorithm: gradients are clipped by their norm alone")
        if str(trainer.get("precision", "")).startswith("16"):
            raise ConfigError(
                f"{_PLACE}.trainer.precision is {trainer['precision']}: half precision cannot hold this objective's "
                "gradients; expected bf16-mixed, or 32-true where the device has no bfloat16"
            )
        chosen = trainer.pop("strategy", None)
        kind, options = _strategy(section, chosen)
        callbacks = _mapping(section, "callbacks", _PLACE)
        seed, scale = section.get("seed", 23), section.get("scale_lr", False)
        _require(_is_whole(seed, 0), "seed", seed, "a whole number from 0 up")
        _require(isinstance(scale, bool), "scale_lr", scale, "true or false")
        return cls(
            trainer=trainer,
            strategy=kind,
            strategy_options=options,
            accumulate=accumulate,
            clip_norm=norm,
            checkpoints=_checkpoints(section),
            media=_media(callbacks),
            seed=seed,
            scale_lr=scale,
        )

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether checkpoints are written at all."""
        return bool(self.trainer.get("enable_checkpointing", True)) and not self.trainer.get("fast_dev_run")

    @property
    def processes(self) -> int:
        """How many processes train together, as far as can be told before they start."""
        if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
            return int(os.environ["WORLD_SIZE"])
        return _devices(self.trainer) * int(self.trainer.get("num_nodes", 1))


def _strategy(section: Mapping[str, Any], chosen: object) -> tuple[Strategy, dict[str, Any]]:
    if chosen is not None:
        if chosen not in _STRATEGIES:
            raise ConfigError(f"the strategy is {chosen!r}; expected one of {', '.join(_STRATEGIES)}")
        return _STRATEGIES[str(chosen)], {}
    if section.get("strategy") is None:
        return "auto", {}
    strategy = _mapping(section, "strategy", _PLACE)
    refuse_unknown(strategy, ("target", "params"), f"{_PLACE}.strategy")
    kind = look_up(strategy, "strategy", f"{_PLACE}.strategy").kind
    options = dict(_mapping(strategy, "params", f"{_PLACE}.strategy"))
    if kind == "fsdp":
        refuse_unknown(options, (), f"{_PLACE}.strategy.params")
        return "fsdp", {}
    refuse_unknown(options, _DDP_OPTIONS, f"{_PLACE}.strategy.params")
    return "ddp", options


def _checkpoints(section: Mapping[str, Any]) -> CheckpointSettings:
    place = f"{_PLACE}.modelcheckpoint"
    checkpoint = _mapping(section, "modelcheckpoint", _PLACE)
    refuse_unknown(checkpoint, ("target", "params"), place)
    values = dict(_mapping(checkpoint, "params", place))
    for key in _CHECKPOINT_WITHOUT_EFFECT:
        if values.pop(key, None) is not None:
            log.warning("%s.params.%s has no effect here", place, key)
    settings: CheckpointSettings = build(CheckpointSettings, values, f"{place}.params")
    return settings


def _media(callbacks: Mapping[str, Any]) -> MediaSettings | None:
    settings = None
    for name, callback in callbacks.items():
        place = f"{_PLACE}.callbacks.{name}"
        if not isinstance(callback, Mapping):
            raise ConfigError(f"{place} is {callback!r}; expected a mapping with target and params")
        kind = look_up(callback, "callback", place).kind
        if kind == "image_logger":
            settings = MediaSettings.from_params(_mapping(callback, "params", place), f"{place}.params")
        elif kind == "model_checkpoint":
            log.warning("%s has no effect here: all checkpoints are kept as lightning.modelcheckpoint says", place)
    return settings


def _devices(trainer: Mapping[str, Any]) -> int:
    """Devices of a node that `trainer` asks for."""
    devices, accelerator = trainer.get("devices", "auto"), trainer.get("accelerator", "auto")
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, int) and devices >= 0:
        return devices
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        return len([part for part in devices.split(",") if part.strip()]) if "," in devices else int(devices)
    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else 1


def _mapping(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """The mapping `parent[key]`, empty where it is absent or null."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place}{'.' if place else ''}{key} is {value!r}; expected a mapping")
    return value


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{_PLACE}.{name} is {value!r}; expected {expected}")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
