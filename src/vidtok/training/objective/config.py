"""The training objective, as `loss_config.params` of a published YAML file describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal

from vidtok.config.dialect import look_up, params_of
from vidtok.errors import ConfigError
from vidtok.fields import Check, Within, build, check, plain, require
from vidtok.models.config import BOTTLENECKS
from vidtok.text import near

_LOSS = "model.params.loss_config"

DiscriminatorType = Literal["2d", "3d"]
DiscriminatorLoss = Literal["hinge", "vanilla"]
PixelLoss = Literal["l1", "l2"]

_Positive = Annotated[int, Within(1)]
_Weight = Annotated[float, Within(0)]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The settings of the objective; the defaults are the published values. Values out of range raise `ConfigError`."""

    dims: Literal[2, 3] = 3
    """In the published files; it changes nothing, and video has 3."""
    perceptual_weight: _Weight = 1.0
    """Weight of LPIPS beside L1; with 0, LPIPS and its weights are not needed."""
    perceptual_weights: Annotated[str | tuple[str, ...] | None, Check("a path or a list of paths")] = None
    """Files or folders with LPIPS's trained weights; without them, the usual places are searched."""
    perceptual_batch: _Positive = 16
    """Frames that pass through LPIPS at a time: bounds its memory, and changes no result."""
    perceptual_frames: _Positive | None = None
    """Frames of each clip, drawn at random in training, that LPIPS measures and that stand for the others; None: all.
    Its cost falls in proportion, and its mean stays the same."""
    pixel_loss: PixelLoss = "l1"
    """Absolute differences, as published, or squared ones, which PSNR is made of."""
    chroma_weight: _Weight = 1.0
    """Weight of squared errors of colour (a pixel's three values less their mean) beside errors of brightness: colour
    has little of a video's variance, but eyes see it. For `l2` alone."""
    learn_logvar: bool = True
    logvar_init: float = 0.0
    logvar_per_clip: bool = False
    """Give each clip the log-variance that fits its own error best, instead of the learned one. With `l2`, the loss
    then follows the mean PSNR of clips, and an easy clip weighs as much as a hard one."""
    disc_type: DiscriminatorType = "2d"
    disc_loss: DiscriminatorLoss = "hinge"
    disc_start: Annotated[int, Within(0)] = 20001
    """First optimiser step at which the discriminator enters the loss; a batch takes two steps."""
    disc_weight: _Weight = 0.2
    disc_factor: _Weight = 1.0
    disc_num_layers: Annotated[int, Within(1, 16)] = 3
    disc_in_channels: Annotated[int, Within(1, 1024)] = 3
    gen_loss_cross_entropy: bool = True
    """The generator's adversarial loss is softplus(-logit) instead of -logit."""
    lecam_loss_weight: _Weight = 0.005
    lecam_decay: Annotated[float, Within(0, below=1)] = 0.999
    regularization_weights: Annotated[
        Mapping[str, float], Check("a mapping of names to numbers, such as kl_loss: 1.0e-6")
    ] = field(default_factory=lambda: {"kl_loss": 1e-6, "aux_loss": 1.0})
    """Weights of the bottleneck's losses, by their names in its log; one without a weight is left out."""
    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        rule("chroma_weight", self.pixel_loss == "l2" or self.chroma_weight == 1, "1 where pixel_loss is not l2")
        losses = [name for bottleneck in BOTTLENECKS.values() for name in bottleneck.losses]
        for name in self.regularization_weights:
            require(
                name in losses, "a name in regularization_weights", name,
                f"one of {', '.join(losses)}{near(name, losses)}",
            )  # fmt: skip

    @property
    def is_adversarial(self) -> bool:
        """True if the discriminator ever enters the loss; otherwise its steps can be left out."""
        return self.disc_weight * self.disc_factor > 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectiveConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        return build(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes an equal config."""
        values: dict[str, Any] = plain(self)
        return values


def read_objective(params: Mapping[str, Any]) -> ObjectiveConfig:
    """The objective in `model.params`. Raises `ConfigError` if there is none, or it cannot be used."""
    section = params.get("loss_config")
    if section is None or look_up(section, "objective", _LOSS).kind == "none":
        raise ConfigError(
            f"{_LOSS} asks for no objective; expected one to train with: "
            "target: vidtok.modules.losses.GeneralLPIPSWithDiscriminator"
        )
    return build(ObjectiveConfig, params_of(section, _LOSS), f"{_LOSS}.params")
