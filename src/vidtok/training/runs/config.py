"""The `lightning` section of a configuration: the trainer, its strategy, checkpoints and callbacks."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vidtok.config.dialect import look_up, params_of, warn_without_effect
from vidtok.errors import ConfigError
from vidtok.fields import Within, build, check, mapping_at, refuse_unknown, require, shown
from vidtok.training.runs.arguments import TRAINER_OPTIONS, Seed, check_trainer_option
from vidtok.training.runs.settings import CheckpointConfig, MediaConfig

log = logging.getLogger(__name__)

Strategy = Literal["auto", "ddp", "fsdp"]

_PLACE = "lightning"
_TRAINER = f"{_PLACE}.trainer"
_STRATEGIES: dict[str, Strategy] = {
    "auto": "auto",
    "ddp": "ddp",
    "ddp_find_unused_parameters_true": "ddp",
    "ddp_find_unused_parameters_false": "ddp",
    "fsdp": "fsdp",
}
_DDP_OPTIONS = ("find_unused_parameters", "gradient_as_bucket_view", "static_graph", "process_group_backend")
# Options of the published ModelCheckpoint; file names and messages are this package's own.
_CHECKPOINT_WITHOUT_EFFECT = ("dirpath", "filename", "verbose", "save_weights_only", "monitor", "mode")
_CLIP = "gradient_clip_val"
_ACCUMULATE = "accumulate_grad_batches"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of a run in Lightning. Values out of range raise `ConfigError`."""

    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's Trainer, except the ones that have a field here."""
    strategy: Strategy = "auto"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    accumulate: Annotated[int, Within(1)] = 1
    clip_norm: Annotated[float, Within(above=0, expected="a norm above 0")] | None = 20.0
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    media: MediaConfig | None = None
    seed: Seed = 23
    scale_lr: bool = False

    def __post_init__(self) -> None:
        check(self, _PLACE, names={"accumulate": f"{_TRAINER}.{_ACCUMULATE}", "clip_norm": f"{_TRAINER}.{_CLIP}"})

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> RunConfig:
        """The config in the sections `raw` of a configuration."""
        section = mapping_at(raw, _PLACE, optional=True)
        refuse_unknown(section, ("strategy", "modelcheckpoint", "callbacks", "trainer", "seed", "scale_lr"), _PLACE)
        trainer = dict(mapping_at(section, "trainer", _PLACE, optional=True))
        keys = {"accumulate": _ACCUMULATE, "clip_norm": _CLIP}
        own = {name: trainer.pop(key) for name, key in keys.items() if key in trainer}
        strategy, options = _strategy(section, trainer.pop("strategy", None))
        return cls(
            trainer=_trainer(trainer),
            strategy=strategy,
            strategy_options=options,
            checkpoints=_checkpoints(section),
            media=_media(mapping_at(section, "callbacks", _PLACE, optional=True)),
            **own,
            **{key: section[key] for key in ("seed", "scale_lr") if key in section},
        )

    @property
    def keeps_checkpoints(self) -> bool:
        """True if checkpoints are written at all."""
        return bool(self.trainer.get("enable_checkpointing", True)) and not self.trainer.get("fast_dev_run")

    @property
    def processes(self) -> int:
        """The number of processes that train together, as far as it is known before they start."""
        if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
            return int(os.environ["WORLD_SIZE"])
        return _devices(self.trainer) * int(self.trainer.get("num_nodes", 1))


def _trainer(options: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's `options`, checked where Lightning does not."""
    refuse_unknown(options, TRAINER_OPTIONS, _TRAINER)
    for key, value in options.items():
        check_trainer_option(key, value, f"{_TRAINER}.{key}")
    if options.pop("gradient_clip_algorithm", "norm") not in ("norm", None):
        raise ConfigError(f"{_TRAINER}.gradient_clip_algorithm: gradients are clipped by their norm alone")
    if str(options.get("precision", "")).startswith("16"):
        raise ConfigError(
            f"{_TRAINER}.precision is {options['precision']}: half precision cannot hold this objective's gradients; "
            "expected bf16-mixed, or 32-true where the device has no bfloat16"
        )
    return options


def _strategy(section: Mapping[str, Any], chosen: object) -> tuple[Strategy, dict[str, Any]]:
    if chosen is not None:
        if chosen not in _STRATEGIES:
            raise ConfigError(f"the strategy is {shown(chosen)}; expected one of {', '.join(_STRATEGIES)}")
        return _STRATEGIES[str(chosen)], {}
    if section.get("strategy") is None:
        return "auto", {}
    place = f"{_PLACE}.strategy"
    strategy = mapping_at(section, "strategy", _PLACE)
    options = dict(params_of(strategy, place))
    sharded = look_up(strategy, "strategy", place).kind == "fsdp"
    refuse_unknown(options, () if sharded else _DDP_OPTIONS, f"{place}.params")
    return "fsdp" if sharded else "ddp", options


def _checkpoints(section: Mapping[str, Any]) -> CheckpointConfig:
    place = f"{_PLACE}.modelcheckpoint"
    params = params_of(mapping_at(section, "modelcheckpoint", _PLACE, optional=True), place)
    set_there = [key for key in _CHECKPOINT_WITHOUT_EFFECT if params.get(key) is not None]
    warn_without_effect(params, set_there, f"{place}.params")
    values = {key: value for key, value in params.items() if key not in _CHECKPOINT_WITHOUT_EFFECT}
    return build(CheckpointConfig, values, f"{place}.params")


def _media(callbacks: Mapping[str, Any]) -> MediaConfig | None:
    config = None
    for name, callback in callbacks.items():
        place = f"{_PLACE}.callbacks.{name}"
        require(isinstance(callback, Mapping), place, callback, "a mapping with target and params")
        kind = look_up(callback, "callback", place).kind
        if kind == "image_logger":
            config = MediaConfig.from_params(mapping_at(callback, "params", place, optional=True), f"{place}.params")
        elif kind == "model_checkpoint":
            log.warning("%s has no effect here: all checkpoints are kept as lightning.modelcheckpoint says", place)
    return config


def _devices(trainer: Mapping[str, Any]) -> int:
    """The number of devices of a node that `trainer` asks for."""
    devices, accelerator = trainer.get("devices", "auto"), trainer.get("accelerator", "auto")
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, int) and devices >= 0:
        return devices
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        return len([part for part in devices.split(",") if part.strip()]) if "," in devices else int(devices)
    import torch

    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else 1
