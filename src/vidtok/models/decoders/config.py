"""Configurations of decoders of their own, by kind, without PyTorch.

A further one is a `DecoderConfig` under `@register_decoder` here, and an `OwnDecoder` declared with `config=`
(`vidtok.models.decoders.base`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Annotated, Literal, TypeVar

from vidtok.errors import ConfigError
from vidtok.fields import Check, Within, build, check, shown
from vidtok.models.config import ModelConfig

C = TypeVar("C", bound="type[DecoderConfig]")

Blocks = Literal["dense", "depthwise"]

_MOST_CHANNELS = 1 << 14
_MOST_VALUES = 1 << 24
"""Weights of a linear projection, at most."""
_Few = Annotated[int, Within(0, 64)]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder's configuration: an entry of `DECODERS`, found by its `kind`."""

    kind: str

    def check_latent(self, latent: ModelConfig) -> None:
        """Raise `ConfigError` unless this decoder can decode the latents of a model of the configuration `latent`."""
        if latent.parts:
            raise ConfigError(
                f"a {latent.family} has a latent of {len(latent.parts)} parts; a decoder of its own takes latents "
                "(B, z, T', H', W') of one part"
            )
        values = latent.z_channels * 3 * latent.temporal_factor * latent.spatial_factor**2
        if values > _MOST_VALUES:
            raise ConfigError(
                f"a latent position has {latent.z_channels} values for {values // latent.z_channels:,} of video; "
                f"expected at most {_MOST_VALUES:,} pairs of them for a linear projection"
            )


DECODERS: dict[str, type[DecoderConfig]] = {}
"""By kind: every decoder that a model can have in place of its own family's. `register_decoder` adds one."""


def register_decoder(config: C) -> C:
    """Class decorator: enter `config` into `DECODERS` under the default of its field `kind`."""
    kind = config.__dataclass_fields__["kind"].default
    assert isinstance(kind, str), f"{config.__name__}.kind needs a default"
    DECODERS[kind] = config
    return config


def decoder_from_dict(values: object, place: str = "decoder") -> DecoderConfig:
    """The decoder configuration of plain `values`; `ConfigError` for an unknown kind, key or value."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in DECODERS:
        kinds = " or ".join(f"kind: {known}" for known in DECODERS)
        raise ConfigError(f"{place} is {shown(values)}; expected a mapping with {kinds}")
    found: DecoderConfig = build(DECODERS[kind], values, place)
    return found


@register_decoder
@dataclass(frozen=True, kw_only=True)
class FastConfig(DecoderConfig):
    """A light convolutional decoder: see `vidtok.models.decoders.fast`. Values out of range raise `ConfigError`.

    Levels are numbered as in an autoencoder, from the finest, 0, to the deepest, at which a latent position is one.
    Each is twice as fine as the one below, and level 0 is `patch_size` times coarser than the video, so the spatial
    factor of the latent has to be `patch_size` x 2^(levels - 1).
    """

    kind: Literal["fast"] = "fast"
    ch: Annotated[int, Within(1, _MOST_CHANNELS)] = 48
    """Channels of a level per unit of its `ch_mult`."""
    ch_mult: Annotated[tuple[Annotated[int, Within(1, 256)], ...], Check("a multiplier for each level", bool)] = (1, 3)
    num_res_blocks: _Few | tuple[_Few, ...] = 3
    """Blocks of each level: a number for all, or one for each level."""
    patch_size: Annotated[int, Within(1, 64)] = 4
    """Pixels a side that leave the network as channels of one position."""
    blocks: Blocks = "dense"
    """Blocks of two 3x3 convolutions, or of a depthwise one and two pointwise ones."""
    past: Annotated[float, Within(0, 1, expected="a share from 0 to 1")] = 0.25
    """Share of the channels of the frame before that each block sees beside its own frame."""

    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        levels = len(self.ch_mult)
        counts = self.num_res_blocks
        rule("num_res_blocks", isinstance(counts, int) or len(counts) == levels, f"a number, or {levels}: one a level")
        widest = f"multipliers that make at most {_MOST_CHANNELS} channels of ch {self.ch}"
        rule("ch_mult", levels <= 8 and self.ch * max(self.ch_mult) <= _MOST_CHANNELS, widest)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.ch * multiplier for multiplier in self.ch_mult)

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks of each level."""
        counts = self.num_res_blocks
        return (counts,) * len(self.ch_mult) if isinstance(counts, int) else counts

    def check_latent(self, latent: ModelConfig) -> None:
        super().check_latent(latent)
        own = self.patch_size << (len(self.ch_mult) - 1)
        if own != latent.spatial_factor:
            raise ConfigError(
                f"patch_size {self.patch_size} and {len(self.ch_mult)} levels (ch_mult) make a spatial factor of "
                f"{own}; expected {latent.spatial_factor}, the latent's: patch_size x 2^(levels - 1)"
            )


@register_decoder
@dataclass(frozen=True, kw_only=True)
class PreviewConfig(DecoderConfig):
    """A linear projection of each latent position to its block of video: see `vidtok.models.decoders.preview`."""

    kind: Literal["preview"] = "preview"
