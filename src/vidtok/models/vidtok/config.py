"""VidTok configurations: frozen, validated values, from which `autoencoder.py` builds a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vidtok.fields import Within, build, check, plain
from vidtok.models.config import BottleneckConfig, KLConfig, LatentPart, bottleneck_from_dict

TemporalPadding = Literal["zeros", "first_frame", "both_sides"]
TemporalInterpolation = Literal["nearest", "linear"]
NormType = Literal["layernorm", "groupnorm"]

_MOST_LEVELS = 16
_MOST_CHANNELS = 1 << 14
_MOST_DIRECTIONS = 1 << 24
"""Values of the fixed transform of `block_transform`, at most."""
_Channels = Annotated[int, Within(1, _MOST_CHANNELS)]
_Levels = tuple[Annotated[int, Within(0, _MOST_LEVELS - 1)], ...]
_ADDED: dict[str, Any] = {"patch_size": 1, "block_transform": False}
"""Fields that the published models lack, with the values at which they have no effect."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A VidTok autoencoder (arXiv 2412.13061). The variants of the family differ in values, not in classes:

    ==========  ================  =============
    variant     temporal_padding  interpolation
    ==========  ================  =============
    causal 1.0  zeros             nearest
    causal 1.1  first_frame       linear
    non-causal  both_sides        nearest
    ==========  ================  =============

    Levels are numbered from full resolution, 0, to the deepest; the decoder's `us` lists use the same numbers.
    """

    family: ClassVar[str] = "vidtok"
    training_only: ClassVar[tuple[str, ...]] = ("dropout", "use_checkpoint")
    """Fields without influence on the output of a trained model."""

    z_channels: _Channels
    """Values per latent position, z."""
    bottleneck: BottleneckConfig = field(default_factory=KLConfig)
    temporal_padding: TemporalPadding = "first_frame"
    """Padding of convolutions over time: before the first frame zeros or copies of it, or zeros on both sides."""
    interpolation: TemporalInterpolation = "linear"
    in_channels: _Channels = 3
    out_ch: _Channels = 3
    ch: _Channels = 128
    """Channels of a level per unit of its `ch_mult`."""
    ch_mult: tuple[Annotated[int, Within(1, 256)], ...] = (1, 2, 4, 4)
    """Multipliers of `ch`, one for each level."""
    num_res_blocks: Annotated[int, Within(1, 64)] = 2
    """Pairs of residual blocks, one in space and one over time, in a level of the encoder; the decoder has one more."""
    dropout: Annotated[float, Within(0, below=1, expected="a share from 0 to less than 1")] = 0.0
    norm_type: NormType = "layernorm"
    use_checkpoint: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    spatial_ds: _Levels | None = None
    """Levels at whose end the encoder halves height and width; None: all but the deepest."""
    spatial_us: _Levels | None = None
    """Levels at whose end the decoder doubles height and width; None: all but 0."""
    tempo_ds: _Levels | None = None
    """Levels at whose end the encoder halves the frames; None: the two above the deepest."""
    tempo_us: _Levels | None = None
    """Levels at whose end the decoder doubles the frames; None: 1 and 2."""
    patch_size: Annotated[int, Within(1, 64)] = 1
    """Pixels a side that enter and leave the network as channels of one position (space to depth, pixel shuffle)."""
    block_transform: bool = False
    """Put a fixed cosine transform of blocks beside the network, see `vidtok.models.vidtok.transform`."""

    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        levels = len(self.ch_mult)
        rule("ch_mult", 1 <= levels <= _MOST_LEVELS, f"1 to {_MOST_LEVELS} levels, a multiplier of at least 1 each")
        widest = f"multipliers that make at most {_MOST_CHANNELS} channels of ch {self.ch}"
        rule("ch_mult", self.ch * max(self.ch_mult) <= _MOST_CHANNELS, widest)
        rule("ch", self.norm_type == "layernorm" or self.ch % 32 == 0, "a multiple of 32 for norm_type groupnorm")
        rule(
            "interpolation", self.interpolation == "nearest" or self.temporal_padding == "first_frame",
            "nearest, unless temporal_padding is first_frame",
        )  # fmt: skip
        self._set_default("spatial_ds", tuple(range(levels - 1)))
        self._set_default("spatial_us", tuple(range(1, levels)))
        self._set_default("tempo_ds", tuple(i for i in (levels - 3, levels - 2) if i >= 0))
        self._set_default("tempo_us", tuple(i for i in (1, 2) if i < levels))
        for spatial, temporal in (("spatial_ds", "tempo_ds"), ("spatial_us", "tempo_us")):
            for name in (spatial, temporal):
                chosen = getattr(self, name)
                fits = len(set(chosen)) == len(chosen) and all(i < levels for i in chosen)
                rule(name, fits, f"different levels from 0 to {levels - 1}")
            missing = set(getattr(self, temporal)) - set(getattr(self, spatial))
            chosen = list(getattr(self, spatial))
            rule(temporal, not missing, f"levels of {spatial} {chosen} only (time is resampled where space is)")
        for down, up in (("spatial_ds", "spatial_us"), ("tempo_ds", "tempo_us")):
            chosen = list(getattr(self, down))
            alike = len(chosen) == len(getattr(self, up))
            rule(up, alike, f"as many levels as {down} {chosen}, so that decoding undoes encoding")
        if self.block_transform:
            values = 3 * self.temporal_factor * self.spatial_factor**2
            rule("block_transform", self.in_channels == self.out_ch == 3, "false unless video has 3 colours")
            rule("z_channels", self.z_channels <= values, f"at most {values}, the values of a block")
            few = self.z_channels * values <= _MOST_DIRECTIONS
            rule("block_transform", few, f"false for {self.z_channels} channels of blocks of {values} values")
        self.bottleneck.check_channels(self.z_channels)

    def _set_default(self, name: str, value: tuple[int, ...]) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    @property
    def is_causal(self) -> bool:
        """True if no frame depends on a later one, beyond the interpolation's delay."""
        return self.temporal_padding != "both_sides"

    @property
    def temporal_factor(self) -> int:
        """Frames of video per latent frame, f."""
        return 1 << len(self.tempo_ds or ())

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, in height and in width."""
        return self.patch_size << len(self.spatial_ds or ())

    @property
    def frame_size(self) -> None:
        """None: the model takes frames of any size."""
        return None

    @property
    def parts(self) -> tuple[LatentPart, ...]:
        """Empty: a latent is one part."""
        return ()

    @property
    def moments_channels(self) -> int:
        """Number of channels that the encoder emits: mean and log-variance for KL, the latent itself for FSQ."""
        return self.bottleneck.moments_channels(self.z_channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes an equal config.

        Fields that the published models lack are left out where they have no effect, so that hashes stay as they were.
        """
        values: dict[str, Any] = plain(self)
        return {key: value for key, value in values.items() if key not in _ADDED or value != _ADDED[key]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AutoencoderConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        bottleneck = bottleneck_from_dict(values.get("bottleneck", {"kind": "kl"}))
        return build(cls, {**values, "bottleneck": bottleneck})
