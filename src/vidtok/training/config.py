"""The training settings of a configuration, beside the model itself: frozen, validated values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal, cast

from vidtok.config.dialect import ENGINE, NOT_GIVEN, frozen_parts, look_up, params_of
from vidtok.errors import ConfigError
from vidtok.fields import Check, Within, build, check, mapping_at, read, refuse_unknown, require

Decay = Literal["none", "linear", "cosine", "inverse_sqrt"]
Optimizer = Literal["adam", "adamw", "muon"]

_Steps = Annotated[int, Within(0, expected="a whole number of steps")]
_Share = Annotated[float, Within(0, 1, expected="a share from 0 to 1")]
_Number = Annotated[float, Within(0)]
_Below1 = Annotated[float, Within(0, below=1)]
_COOLDOWN = "a share from 0 to 1, and 0 where decay is not inverse_sqrt"

_OPTIMIZER = f"{ENGINE}.optimizer_config"
_SCHEDULER = f"{ENGINE}.lr_scheduler_config"
_BETAS = Check("two numbers from 0 to less than 1, such as [0.9, 0.999]")
_OPTIONS = {"betas": Annotated[tuple[_Below1, _Below1], _BETAS], "eps": _Number, "weight_decay": _Number}
_ADAM_OPTIONS = {**_OPTIONS, "amsgrad": bool, "foreach": bool | None, "fused": bool | None}
_MUON_OPTIONS = {
    **_OPTIONS,
    "momentum": Annotated[float, Within(0, below=1, expected="a number from 0 to less than 1, such as 0.95")],
    "adam_factor": _Number,
    "relative": bool,
    "keep_norm": bool,
    "opponent_colours": bool,
}


@dataclass(frozen=True, kw_only=True)
class LearningRateSchedule:
    """The learning rate as a share of its full value, by the number of batches done.

    It rises linearly over `warmup_steps`. Then `decay` decides:

    - `none`: it stays at 1.
    - `linear`, `cosine`: it stays for the share `hold` of the steps up to `decay_steps`, then falls to `final` along a
      line or half a cosine.
    - `inverse_sqrt`: it falls for ever, as one over the square root of the steps done. Over the last share `cooldown`
      of the steps up to `decay_steps`, a line from 1 to `final` multiplies it (Zhai et al., arXiv 2106.04560).

    Steps are optimisations of the generator. Values out of range raise `ConfigError`.
    """

    warmup_steps: _Steps = 0
    hold: Annotated[float, Within(0, below=1, expected="a share from 0 to less than 1")] = 0.0
    decay: Decay = "none"
    decay_steps: int | None = None
    final: _Share = 0.0
    cooldown: Annotated[float, Within(0, 1, expected=_COOLDOWN)] = 0.0
    place: InitVar[str] = f"{ENGINE}.lr_schedule"

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        rule("cooldown", self.cooldown == 0 or self.decay == "inverse_sqrt", _COOLDOWN)
        ends = self.decay in ("linear", "cosine") or self.cooldown > 0
        rule(
            "decay_steps", not ends or (self.decay_steps or 0) > self.warmup_steps,
            "the step at which the decay ends, after the warm-up; or nothing, and lightning.trainer.max_steps",
        )  # fmt: skip

    def factor(self, step: int) -> float:
        """The factor at `step`, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.decay == "none":
            return 1.0
        if self.decay == "inverse_sqrt":
            return math.sqrt((self.warmup_steps + 1) / (step + 1)) * self._left(step, 1 - self.cooldown)
        return self._left(step, self.hold)

    def _left(self, step: int, hold: float) -> float:
        """The share left at `step` by a decay that begins after the share `hold` of the steps after the warm-up."""
        if self.decay_steps is None or hold == 1:
            return 1.0
        start = self.warmup_steps + hold * (self.decay_steps - self.warmup_steps)
        done = min(1.0, max(0.0, step - start) / (self.decay_steps - start))
        left = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.final + (1 - self.final) * left


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training settings in a model's section. Values out of range raise `ConfigError`."""

    base_learning_rate: Annotated[float, Within(above=0, expected="a number above 0, such as 1.0e-5")]
    optimizer: Optimizer = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_g_factor: _Number = 1.0
    """Factor of the generator's learning rate over the discriminator's."""
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    ema_decay: _Below1 | None = None
    """Decay of the weights' moving averages; None: none are kept."""
    monitor: Annotated[str, Check("a metric's name")] | None = "val/rec_loss"
    mode: Literal["min", "max"] = "min"
    """The best checkpoints have the smallest, or the largest, `monitor`."""
    ckpt_path: str | None = None
    """Weights to start from: a checkpoint, a run's folder or a model's name; None: random ones."""
    ignore_keys: Annotated[tuple[str, ...], Check("a list of prefixes of names, such as [decoder]")] = ()
    """Prefixes of the weights that are not taken from `ckpt_path`."""
    fix_encoder: bool = False
    fix_decoder: bool = False
    compile_model: bool = False
    guide_steps: _Steps = 0
    """Steps at the start in which encoder and decoder each learn a linear transform (`vidtok.training.guide`)."""

    def __post_init__(self) -> None:
        check(self, ENGINE, names={"base_learning_rate": "model.base_learning_rate"})
        if self.guide_steps and (self.fix_encoder or self.fix_decoder):
            raise ConfigError(
                f"{ENGINE}.guide_steps is {self.guide_steps} and a part is fixed; expected both to learn, or 0"
            )
        if self.fix_encoder and self.fix_decoder:
            raise ConfigError("fix_encoder and fix_decoder are both true; expected at least one part left to train")

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> TrainingConfig:
        """The config in the sections `raw` of a configuration that `read_config` has read."""
        params = raw["model"]["params"]
        frozen = frozen_parts(params)
        optimizer, options = optimizer_options(params.get("optimizer_config"))
        if raw["model"].get("base_learning_rate") is None:
            raise ConfigError("model.base_learning_rate is missing; training needs it, such as 1.0e-5")
        given = ("lr_g_factor", "ema_decay", "monitor", "mode", "ckpt_path", "compile_model", "guide_steps")
        if params.get("ckpt_path") == NOT_GIVEN:
            raise ConfigError(
                f"{ENGINE}.ckpt_path is not given; expected the weights to start from: a checkpoint, a run's folder or "
                "a model's name; or null, to start from random ones"
            )
        return cls(
            base_learning_rate=raw["model"]["base_learning_rate"],
            optimizer=optimizer,
            optimizer_options=options,
            schedule=build(LearningRateSchedule, _schedule(raw), f"{ENGINE}.lr_schedule"),
            ignore_keys=params.get("ignore_keys") or (),
            fix_encoder="fix_encoder" in frozen,
            fix_decoder="fix_decoder" in frozen,
            **{key: params[key] for key in given if key in params},
        )


def optimizer_options(section: Mapping[str, Any] | None) -> tuple[Optimizer, dict[str, Any]]:
    """The optimiser that `section` names, and its options."""
    if section is None:
        return "adam", {}
    kind = cast(Optimizer, look_up(section, "optimizer", _OPTIMIZER).kind)
    hints = _MUON_OPTIONS if kind == "muon" else _ADAM_OPTIONS
    return kind, read(params_of(section, _OPTIMIZER), hints, f"{_OPTIMIZER}.params")


def _schedule(raw: Mapping[str, Any]) -> object:
    """The schedule's section; a decay without an end of its own ends with the run, if that has an end."""
    params = raw["model"]["params"]
    values = params.get("lr_schedule") or {}
    if params.get("lr_scheduler_config") is not None:
        if values:
            raise ConfigError(f"{ENGINE} has lr_schedule and lr_scheduler_config; expected one of them")
        values = _published_schedule(params["lr_scheduler_config"])
    end: Any = ((raw.get("lightning") or {}).get("trainer") or {}).get("max_steps")
    if not isinstance(values, Mapping) or type(end) is not int or end < 1 or values.get("decay_steps") is not None:
        return values
    warmup = values.get("warmup_steps")
    # A trial run may end within its warm-up.
    return {**values, "decay_steps": max(end, warmup + 1) if isinstance(warmup, int) else end}


def _published_schedule(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section `lr_scheduler_config` as the values of a `LearningRateSchedule`; its keys may stand in `params`."""
    decay = look_up(section, "schedule", _SCHEDULER).kind
    params = mapping_at(section, "params", _SCHEDULER, optional=True)
    values = {**{key: value for key, value in section.items() if key not in ("target", "params")}, **params}
    refuse_unknown(values, ("num_warmup_steps", "frequency"), _SCHEDULER)
    require(values.get("frequency", 1) == 1, f"{_SCHEDULER}.frequency", values.get("frequency"), "1: every step")
    return {"decay": decay, "warmup_steps": values.get("num_warmup_steps", 0)}
