"""How to train: what a configuration says beside the model itself, as frozen, validated values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from vidtok.config.dialect import NOT_GIVEN, look_up
from vidtok.errors import ConfigError
from vidtok.text import near

Decay = Literal["none", "linear", "cosine", "inverse_sqrt"]
Optimizer = Literal["adam", "adamw", "muon"]

_PARAMS = "model.params"
_OPTIMIZER = f"{_PARAMS}.optimizer_config"
_ADAM_OPTIONS = ("betas", "eps", "weight_decay", "amsgrad", "foreach", "fused")
_MUON_OPTIONS = ("betas", "eps", "weight_decay", "momentum", "adam_factor", "relative", "keep_norm", "opponent_colours")


@dataclass(frozen=True, kw_only=True)
class LearningRateSchedule:
    """The learning rate as a function of the batches done, as a factor of its full value.

    It rises linearly over `warmup_steps`, then stays; or stays for the share `hold` of what is left and falls to
    `final` of its full value at `decay_steps`, along a line or half a cosine; or with `inverse_sqrt` falls for ever, as
    one over the square root of the steps done, and over the last share `cooldown` of the steps up to `decay_steps`
    along a line to `final` of that (Zhai et al., arXiv 2106.04560). Steps are optimisations of the generator.
    """

    warmup_steps: int = 0
    hold: float = 0.0
    decay: Decay = "none"
    decay_steps: int | None = None
    final: float = 0.0
    cooldown: float = 0.0

    def __post_init__(self) -> None:
        place = f"{_PARAMS}.lr_schedule"
        _require(_is_whole(self.warmup_steps), f"{place}.warmup_steps", self.warmup_steps, "a whole number of steps")
        _require(
            _is_number(self.hold, 0, 1) and self.hold < 1, f"{place}.hold", self.hold, "a share from 0 to less than 1"
        )
        _require(self.decay in get_args(Decay), f"{place}.decay", self.decay, " or ".join(get_args(Decay)))
        _require(_is_number(self.final, 0, 1), f"{place}.final", self.final, "a share from 0 to 1")
        _require(
            _is_number(self.cooldown, 0, 1) and (self.cooldown == 0 or self.decay == "inverse_sqrt"),
            f"{place}.cooldown", self.cooldown, "a share from 0 to 1, and 0 where decay is not inverse_sqrt",
        )  # fmt: skip
        if self.decay in ("linear", "cosine") or self.cooldown:
            _require(
                _is_whole(self.decay_steps, 1) and (self.decay_steps or 0) > self.warmup_steps,
                f"{place}.decay_steps", self.decay_steps, "the step at which the decay ends, after the warm-up; "
                "or nothing, and lightning.trainer.max_steps",
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
        """What a decay leaves at `step` that begins after the share `hold` of the steps between warm-up and end."""
        if self.decay_steps is None or hold == 1:
            return 1.0
        start = self.warmup_steps + hold * (self.decay_steps - self.warmup_steps)
        done = min(1.0, max(0.0, step - start) / (self.decay_steps - start))
        left = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.final + (1 - self.final) * left


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What the model's section says about training. Values out of range raise `ConfigError`."""

    base_learning_rate: float
    optimizer: Optimizer = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_g_factor: float = 1.0
    """Factor of the generator's learning rate over the discriminator's."""
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    ema_decay: float | None = None
    """Decay of the weights' moving averages; None: none are kept."""
    monitor: str | None = "val/rec_loss"
    mode: Literal["min", "max"] = "min"
    """Whether the best checkpoints are those of the smallest or of the largest `monitor`."""
    ckpt_path: str | None = None
    ignore_keys: tuple[str, ...] = ()
    """Prefixes of the weights that are not taken from `ckpt_path`."""
    fix_encoder: bool = False
    fix_decoder: bool = False
    compile_model: bool = False
    guide_steps: int = 0
    """First steps, in which encoder and decoder learn the linear transform apart (`vidtok.training.guide`)."""

    def __post_init__(self) -> None:
        rate = self.base_learning_rate
        _require(_is_number(rate, 0) and rate > 0, "model.base_learning_rate", rate, "a number above 0, such as 1.0e-5")
        _require(_is_number(self.lr_g_factor, 0), f"{_PARAMS}.lr_g_factor", self.lr_g_factor, "a number of at least 0")
        if self.ema_decay is not None:
            _require(
                _is_number(self.ema_decay, 0) and self.ema_decay < 1,
                f"{_PARAMS}.ema_decay", self.ema_decay, "a number from 0 to less than 1, such as 0.999, or null",
            )  # fmt: skip
        _require(
            self.monitor is None or isinstance(self.monitor, str), f"{_PARAMS}.monitor", self.monitor, "a metric's name"
        )
        _require(self.mode in ("min", "max"), f"{_PARAMS}.mode", self.mode, "min or max")
        _require(
            all(isinstance(key, str) for key in self.ignore_keys),
            f"{_PARAMS}.ignore_keys", list(self.ignore_keys), "a list of prefixes of names, such as [decoder]",
        )  # fmt: skip
        _require(isinstance(self.compile_model, bool), f"{_PARAMS}.compile_model", self.compile_model, "true or false")
        _require(_is_whole(self.guide_steps), f"{_PARAMS}.guide_steps", self.guide_steps, "a whole number of steps")
        if self.guide_steps and (self.fix_encoder or self.fix_decoder):
            raise ConfigError(
                f"{_PARAMS}.guide_steps is {self.guide_steps} and a part is fixed; expected both to learn, or 0"
            )
        if self.fix_encoder and self.fix_decoder:
            raise ConfigError("fix_encoder and fix_decoder are both true; expected one part at least left to train")

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> TrainingSettings:
        """The settings in the sections `raw` of a configuration that `read_config` has read."""
        params = raw["model"]["params"]
        network = {**(params["encoder_config"].get("params") or {}), **(params["decoder_config"].get("params") or {})}
        optimizer, options = _optimizer(params.get("optimizer_config"))
        if raw["model"].get("base_learning_rate") is None:
            raise ConfigError("model.base_learning_rate is missing; training needs it, such as 1.0e-5")
        chosen = {
            key: params[key]
            for key in ("lr_g_factor", "ema_decay", "monitor", "mode", "ckpt_path", "compile_model", "guide_steps")
            if key in params
        }
        ignored = params.get("ignore_keys") or []
        _require(isinstance(ignored, list), f"{_PARAMS}.ignore_keys", ignored, "a list of prefixes of names")
        if chosen.get("ckpt_path") == NOT_GIVEN:
            raise ConfigError(
                f"{_PARAMS}.ckpt_path is not given; expected what to start from: a checkpoint, a run's folder or a "
                "model's name; or null, to start from nothing"
            )
        return cls(
            base_learning_rate=raw["model"]["base_learning_rate"],
            optimizer=optimizer,
            optimizer_options=options,
            schedule=build(LearningRateSchedule, _schedule(raw), f"{_PARAMS}.lr_schedule"),
            ignore_keys=tuple(ignored),
            fix_encoder=bool(network.get("fix_encoder", False)),
            fix_decoder=bool(network.get("fix_decoder", False)),
            **chosen,
        )


def _schedule(raw: Mapping[str, Any]) -> object:
    """The section of the schedule; a decay whose end it leaves open ends with the run, where that has an end."""
    values = raw["model"]["params"].get("lr_schedule") or {}
    end: Any = ((raw.get("lightning") or {}).get("trainer") or {}).get("max_steps")
    if not isinstance(values, Mapping) or not _is_whole(end, 1):
        return values
    if values.get("decay_steps") is not None:
        return values
    warmup: Any = values.get("warmup_steps")
    # A trial run may end within its warm-up.
    return {**values, "decay_steps": max(end, warmup + 1) if _is_whole(warmup) else end}


def build(cls: type[Any], values: object, place: str) -> Any:
    """The dataclass `cls` of `values`; unknown keys raise `ConfigError` with their place and near matches."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{place} is {values!r}; expected a mapping")
    known = [f.name for f in dataclasses.fields(cls)]
    refuse_unknown(values, known, place)
    return cls(**values)


def refuse_unknown(values: Mapping[str, Any], known: list[str] | tuple[str, ...], place: str) -> None:
    """`ConfigError` for a key of `values` that is not `known`."""
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{place}.{key} is not known{near(key, known) or '; expected some of ' + ', '.join(known)}"
            )


def _optimizer(section: Mapping[str, Any] | None) -> tuple[Optimizer, dict[str, Any]]:
    if section is None:
        return "adam", {}
    kind = look_up(section, "optimizer", _OPTIMIZER).kind
    refuse_unknown(section, ("target", "params"), _OPTIMIZER)
    options = dict(section.get("params") or {})
    refuse_unknown(options, _MUON_OPTIONS if kind == "muon" else _ADAM_OPTIONS, f"{_OPTIMIZER}.params")
    if "betas" in options:
        betas = options["betas"]
        _require(
            isinstance(betas, list | tuple) and len(betas) == 2 and all(_is_number(b, 0) and b < 1 for b in betas),
            f"{_OPTIMIZER}.params.betas", betas, "two numbers from 0 to less than 1, such as [0.9, 0.999]",
        )  # fmt: skip
        options["betas"] = tuple(betas)
    for key, least in (("eps", 0.0), ("weight_decay", 0.0), ("adam_factor", 0.0)):
        if key in options:
            _require(_is_number(options[key], least), f"{_OPTIMIZER}.params.{key}", options[key], "a number from 0 up")
    if "momentum" in options:
        momentum = options["momentum"]
        _require(
            _is_number(momentum, 0) and momentum < 1,
            f"{_OPTIMIZER}.params.momentum", momentum, "a number from 0 to less than 1, such as 0.95",
        )  # fmt: skip
    for key in ("relative", "keep_norm", "opponent_colours"):
        if key in options:
            _require(isinstance(options[key], bool), f"{_OPTIMIZER}.params.{key}", options[key], "true or false")
    return cast(Optimizer, kind), options


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


def _is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and _is_number(value, least)
