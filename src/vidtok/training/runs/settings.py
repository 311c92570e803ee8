"""Settings of a run's checkpoints and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Annotated, Any

from vidtok.config.dialect import warn_without_effect
from vidtok.fields import Within, build, check

_AS_ALWAYS: dict[str, tuple[object, ...]] = {
    "clamp": (True,),
    "rescale": (True,),
    "enable_autocast": (True,),
    "log_on_batch_idx": (False,),
    "log_images_kwargs": (None, {}),
    "log_before_first_step": (False,),
}
"""Published parameters, with the values that ask for what always happens here."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints to keep; the published values by default. Values out of range raise `ConfigError`."""

    every_n_train_steps: Annotated[int, Within(1)] = 5000
    """Steps, as Lightning counts them (two a batch with a discriminator), between checkpoints."""
    keep: Annotated[int, Within(-1)] = -1
    """The number of newest such checkpoints to keep; -1: all."""
    save_top_k: Annotated[int, Within(0)] = 3
    """The number of best checkpoints to keep, by the monitored metric after each validation."""
    save_last: bool = True
    place: InitVar[str] = "lightning.modelcheckpoint.params"

    def __post_init__(self, place: str) -> None:
        check(self, place)


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Reconstructions to show: how often, and how many. Values out of range raise `ConfigError`."""

    batch_frequency: Annotated[int, Within(1)] = 5000
    """Training batches from one that is shown to the next; the first batch of each validation is shown too."""
    max_samples: Annotated[int, Within(1)] = 2
    """Clips of a batch to show."""
    fps: Annotated[float, Within(above=0, most=240)] = 8.0
    """Frames per second of the videos."""
    increase_log_steps: bool = False
    """Show the batches 1, 2, 4, 8, ... up to `batch_frequency` too."""
    log_first_step: bool = False
    disabled: bool = False
    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        check(self, place)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], place: str) -> MediaConfig | None:
        """The config from published parameters at `place`; None if they disable it."""
        others = [key for key, usual in _AS_ALWAYS.items() if key in params and params[key] not in usual]
        warn_without_effect(params, others, place)
        values = {key: value for key, value in params.items() if key not in _AS_ALWAYS}
        if "max_images" in values:
            values.setdefault("max_samples", values.pop("max_images"))
        config = build(cls, values, place)
        return None if config.disabled else config

    def is_due(self, batch: int) -> bool:
        """True if batch `batch`, counted from 1, is shown."""
        powers = self.increase_log_steps and batch < self.batch_frequency and batch & (batch - 1) == 0
        return batch % self.batch_frequency == 0 or powers or (self.log_first_step and batch == 1)
