"""The configuration side of the contract: families' configurations and the table of bottlenecks, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from vidtok.errors import ConfigError
from vidtok.fields import Check, Within, build, check, shown

C = TypeVar("C", bound="type[BottleneckConfig]")

LARGEST_CODEBOOK = 2**31 - 1
"""Number of codes at most, so that an index fits into 32 bits."""

_TokenLevels = Annotated[
    tuple[Annotated[int, Within(2, LARGEST_CODEBOOK)], ...],
    Check(expected="at least one channel with at least 2 levels each", condition=bool),
    Check(expected="at most 31 channels", condition=lambda levels: len(levels) < 32),
]


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """A bottleneck's configuration: an entry of `BOTTLENECKS`, found by its `kind`.

    Subclasses are frozen dataclasses of plain values with a default `kind`. A discrete one also defines `token_levels`,
    from which codebook size, bits and packing of its tokens follow. Its module is declared as
    `class Name(Bottleneck, config=NameConfig)`.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    """Fields without influence on the latent of a trained model; all others are part of a model's identity."""
    losses: ClassVar[tuple[str, ...]] = ()
    """Names of the losses that its log can hold in training, which `regularization_weights` weights."""

    kind: str

    @property
    def token_levels(self) -> tuple[int, ...] | None:
        """Number of values of each channel of a token; None for a continuous bottleneck.

        A token's index is a number with one digit per channel in these radices, the first channel least significant.
        """
        return None

    @property
    def codebook_size(self) -> int | None:
        """Number of codes that a token can be: the product of `token_levels`; None for a continuous bottleneck."""
        return None if self.token_levels is None else prod(self.token_levels)

    def moments_channels(self, z_channels: int) -> int:
        """Number of channels that the encoder emits for a latent of `z_channels`."""
        return z_channels

    def check_channels(self, z_channels: int) -> None:
        """Raise `ConfigError` if this bottleneck does not make latents of `z_channels`."""
        levels = self.token_levels
        if levels is not None and len(levels) != z_channels:
            raise ConfigError(
                f"z_channels is {z_channels}; expected {len(levels)}, one a level of the bottleneck {list(levels)}"
            )


BOTTLENECKS: dict[str, type[BottleneckConfig]] = {}
"""By kind: every bottleneck that a model can have. `register_bottleneck` adds one."""


def register_bottleneck(config: C) -> C:
    """Class decorator: enter `config` into `BOTTLENECKS` under the default of its field `kind`."""
    kind = config.__dataclass_fields__["kind"].default
    assert isinstance(kind, str), f"{config.__name__}.kind needs a default"
    BOTTLENECKS[kind] = config
    return config


def bottleneck_from_dict(values: object) -> BottleneckConfig:
    """The bottleneck configuration of plain `values`; `ConfigError` for an unknown kind, key or value."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in BOTTLENECKS:
        kinds = " or ".join(f"kind: {known}" for known in BOTTLENECKS)
        raise ConfigError(f"bottleneck is {shown(values)}; expected a mapping with {kinds}")
    found: BottleneckConfig = build(BOTTLENECKS[kind], values)
    return found


@register_bottleneck
@dataclass(frozen=True, kw_only=True)
class KLConfig(BottleneckConfig):
    """Continuous bottleneck: a diagonal Gaussian per position (Kingma and Welling, arXiv 1312.6114)."""

    training_only: ClassVar[tuple[str, ...]] = ("sample",)
    losses: ClassVar[tuple[str, ...]] = ("kl_loss",)

    kind: Literal["kl"] = "kl"
    sample: bool = True
    """Draw from the posterior (True) or take its mode (False), where the caller of `encode` does not choose."""

    def moments_channels(self, z_channels: int) -> int:
        return 2 * z_channels  # mean and log-variance


@register_bottleneck
@dataclass(frozen=True, kw_only=True)
class FSQConfig(BottleneckConfig):
    """Discrete bottleneck: finite scalar quantization (Mentzer et al., arXiv 2309.15505)."""

    training_only: ClassVar[tuple[str, ...]] = (
        "entropy_loss_weight", "entropy_loss_annealing_steps", "entropy_loss_annealing_factor",
        "commitment_loss_weight",
    )  # fmt: skip
    losses: ClassVar[tuple[str, ...]] = ("aux_loss", "spread_loss", "crowding_loss")

    kind: Literal["fsq"] = "fsq"
    levels: _TokenLevels = (8, 8, 8, 8, 8, 8)
    """Number of values of each channel; their product is the codebook's size."""
    entropy_loss_weight: float = 0.1
    """Weight of the entropy loss after annealing."""
    entropy_loss_annealing_steps: int = 2000
    """Optimizer steps over which the weight goes linearly to its final value."""
    entropy_loss_annealing_factor: float = 3.0
    """Weight at step 0, as a multiple of the final value."""
    commitment_loss_weight: float = 0.25
    """Weight of the mean squared distance from the unbounded latent to its codes."""

    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        rule("levels", self.codebook_size <= LARGEST_CODEBOOK, "levels whose product is at most 2^31 - 1 codes")

    @property
    def token_levels(self) -> tuple[int, ...]:
        return self.levels

    @property
    def codebook_size(self) -> int:
        return prod(self.levels)


@dataclass(frozen=True, kw_only=True)
class LatentPart:
    """One part of a latent frame, for families whose latents have several."""

    name: str
    channels: int
    positions: tuple[int, ...]
    """Number of positions along each axis of the part; each has a value of every channel."""

    @property
    def values(self) -> int:
        """Number of values of the part in a latent frame."""
        return self.channels * prod(self.positions)


class ModelConfig(Protocol):
    """A model's configuration, of any family: frozen, validated values."""

    family: ClassVar[str]
    """The name of the family: a key of `vidtok.config.families.FAMILIES`."""
    training_only: ClassVar[tuple[str, ...]]
    """Fields without influence on the output of a trained model."""

    @property
    def in_channels(self) -> int:
        """Number of colours of a pixel: 3."""

    @property
    def bottleneck(self) -> BottleneckConfig:
        """The bottleneck, which makes latents continuous (KL) or tokens (FSQ)."""

    @property
    def is_causal(self) -> bool:
        """True if no frame depends on a later one; such a model streams, others take independent clips."""

    @property
    def temporal_factor(self) -> int:
        """Frames of video per latent frame, f; clips of a non-causal model have a multiple of f frames."""

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, in height and in width."""

    @property
    def z_channels(self) -> int:
        """Values per latent position, z."""

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """The only (height, width) that the model takes; None: it takes any."""

    @property
    def parts(self) -> tuple[LatentPart, ...]:
        """The parts that make up the z values of a latent frame, where H' = W' = 1; empty: a latent is one part."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which the family's `from_dict` makes an equal configuration."""
