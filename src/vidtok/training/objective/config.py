"""The training objective's settings, as in `loss_config.params` of a published YAML file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vidtok.errors import ConfigError
from vidtok.text import near
from vidtok.training.objective.discriminator import DiscriminatorType

DiscriminatorLoss = Literal["hinge", "vanilla"]
PixelLoss = Literal["l1", "l2"]
_REGULARIZERS = ("kl_loss", "aux_loss", "spread_loss", "crowding_loss")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Frozen and validated; the defaults are the published values. Values out of range raise `ConfigError`."""

    dims: int = 3
    """Part of the published files; video has 3 and nothing follows from it."""
    perceptual_weight: float = 1.0
    """Weight of LPIPS beside L1; with 0, LPIPS and its weights are not needed."""
    perceptual_weights: str | tuple[str, ...] | None = None
    """Files or folders with LPIPS's trained weights; without them, the usual places are searched."""
    perceptual_batch: int = 16
    """Frames that pass through LPIPS at a time: bounds its memory, and changes no result."""
    pixel_loss: PixelLoss = "l1"
    """Absolute differences, as published, or squared ones, which PSNR follows."""
    chroma_weight: float = 1.0
    """Weight of squared errors of colour, what a pixel's three values differ from their mean by, beside those of
    brightness: colour has little of a video's variance and much of what is seen. For `l2` alone."""
    learn_logvar: bool = True
    logvar_init: float = 0.0
    logvar_per_clip: bool = False
    """Whether each clip has the log-variance that fits its own error best instead of the one that is learned. With
    `l2`, the loss then follows the mean PSNR of clips, and an easy clip weighs as much as a hard one."""
    disc_type: DiscriminatorType = "2d"
    disc_loss: DiscriminatorLoss = "hinge"
    disc_start: int = 20001
    """First optimiser step, of which a batch takes two, whose loss the discriminator enters."""
    disc_weight: float = 0.2
    disc_factor: float = 1.0
    disc_num_layers: int = 3
    disc_in_channels: int = 3
    gen_loss_cross_entropy: bool = True
    """Whether the generator's adversarial loss is softplus(-logit) instead of -logit."""
    lecam_loss_weight: float = 0.005
    lecam_decay: float = 0.999
    regularization_weights: Mapping[str, float] = field(default_factory=lambda: {"kl_loss": 1e-6, "aux_loss": 1.0})
    """Weights of the bottleneck's losses, by their names in its log; one without a weight is left out."""

    def __post_init__(self) -> None:
        for name in ("perceptual_batch", "disc_num_layers", "disc_in_channels"):
            _require(_is_whole(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        _require(self.dims in (2, 3), "dims", self.dims, "2 or 3")
        _require(_is_whole(self.disc_start, 0), "disc_start", self.disc_start, "a whole number of at least 0")
        for name in ("perceptual_weight", "disc_weight", "disc_factor", "lecam_loss_weight", "chroma_weight"):
            _require(_is_number(getattr(self, name), 0), name, getattr(self, name), "a number of at least 0")
        _require(_is_number(self.logvar_init), "logvar_init", self.logvar_init, "a number")
        decay = self.lecam_decay
        _require(_is_number(decay, 0) and decay < 1, "lecam_decay", decay, "a number from 0 to less than 1")
        for name in ("learn_logvar", "logvar_per_clip", "gen_loss_cross_entropy"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        for name, choices in (
            ("disc_type", get_args(DiscriminatorType)),
            ("disc_loss", get_args(DiscriminatorLoss)),
            ("pixel_loss", get_args(PixelLoss)),
        ):
            _require(getattr(self, name) in choices, name, getattr(self, name), "one of " + ", ".join(choices))
        _require(
            self.pixel_loss == "l2" or self.chroma_weight == 1, "chroma_weight", self.chroma_weight,
            "1 where pixel_loss is not l2",
        )  # fmt: skip
        self._check_paths()
        weights = self.regularization_weights
        _require(
            isinstance(weights, Mapping) and all(_is_number(weight) for weight in weights.values()),
            "regularization_weights", weights, "a mapping of names to numbers, such as kl_loss: 1.0e-6",
        )  # fmt: skip
        for name in weights:
            _require(
                name in _REGULARIZERS, "a name in regularization_weights", name,
                f"one of {', '.join(_REGULARIZERS)}{near(name, _REGULARIZERS)}",
            )  # fmt: skip
        object.__setattr__(self, "regularization_weights", dict(weights))

    def _check_paths(self) -> None:
        paths = self.perceptual_weights
        listed = (paths,) if paths is None or isinstance(paths, str) else paths
        _require(
            isinstance(listed, list | tuple) and all(path is None or isinstance(path, str) for path in listed),
            "perceptual_weights", paths, "a path or a list of paths",
        )  # fmt: skip
        if isinstance(paths, list):
            object.__setattr__(self, "perceptual_weights", tuple(paths))

    @property
    def is_adversarial(self) -> bool:
        """Whether the discriminator ever enters the loss; otherwise its steps can be left out."""
        return self.disc_weight * self.disc_factor > 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectiveConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            hints = near(unknown[0], known) or f"; expected some of {', '.join(known)}"
            raise ConfigError(f"unknown key {', '.join(map(repr, unknown))} in the objective{hints}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes an equal config."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


def _is_number(value: object, least: float = -math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= least


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and _is_number(value, least)
