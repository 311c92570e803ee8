"""VidTok configurations: frozen, validated values, from which `autoencoder.py` builds a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from vidtok.fields import build, plain, require
from vidtok.models.config import BottleneckConfig, KLConfig, LatentPart, bottleneck_from_dict

TemporalPadding = Literal["zeros", "first_frame", "both_sides"]
TemporalInterpolation = Literal["nearest", "linear"]
NormType = Literal["layernorm", "groupnorm"]


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
    """Fields without influence on what a trained model computes."""

    z_channels: int
    bottleneck: BottleneckConfig = field(default_factory=KLConfig)
    temporal_padding: TemporalPadding = "first_frame"
    interpolation: TemporalInterpolation = "linear"
    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    dropout: float = 0.0
    norm_type: NormType = "layernorm"
    use_checkpoint: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    spatial_ds: tuple[int, ...] | None = None
    spatial_us: tuple[int, ...] | None = None
    tempo_ds: tuple[int, ...] | None = None
    tempo_us: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        levels = len(self.ch_mult)
        for name in ("z_channels", "in_channels", "out_ch", "ch", "num_res_blocks"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        require(levels >= 1 and min(self.ch_mult) >= 1, "ch_mult", self.ch_mult, "one multiplier of at least 1 a level")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share from 0 to less than 1")
        for name, choices in (
            ("temporal_padding", get_args(TemporalPadding)),
            ("interpolation", get_args(TemporalInterpolation)),
            ("norm_type", get_args(NormType)),
        ):
            require(getattr(self, name) in choices, name, getattr(self, name), "one of " + ", ".join(choices))
        require(
            self.norm_type == "layernorm" or self.ch % 32 == 0,
            "ch",
            self.ch,
            "a multiple of 32 for norm_type groupnorm",
        )
        require(
            self.interpolation == "nearest" or self.temporal_padding == "first_frame",
            "interpolation", self.interpolation, "nearest, unless temporal_padding is first_frame",
        )  # fmt: skip
        self._set_default("spatial_ds", tuple(range(levels - 1)))
        self._set_default("spatial_us", tuple(range(1, levels)))
        self._set_default("tempo_ds", tuple(i for i in (levels - 3, levels - 2) if i >= 0))
        self._set_default("tempo_us", tuple(i for i in (1, 2) if i < levels))
        for spatial, temporal in (("spatial_ds", "tempo_ds"), ("spatial_us", "tempo_us")):
            for name in (spatial, temporal):
                chosen = getattr(self, name)
                require(
                    len(set(chosen)) == len(chosen) and all(0 <= i < levels for i in chosen),
                    name, chosen, f"different levels from 0 to {levels - 1}",
                )  # fmt: skip
            missing = set(getattr(self, temporal)) - set(getattr(self, spatial))
            require(
                not missing, temporal, getattr(self, temporal),
                f"levels of {spatial} {list(getattr(self, spatial))} only (time is resampled where space is)",
            )  # fmt: skip
        for down, up in (("spatial_ds", "spatial_us"), ("tempo_ds", "tempo_us")):
            require(
                len(getattr(self, down)) == len(getattr(self, up)), up, getattr(self, up),
                f"as many levels as {down} {list(getattr(self, down))}, so that decoding undoes encoding",
            )  # fmt: skip
        self.bottleneck.check_channels(self.z_channels)

    def _set_default(self, name: str, value: tuple[int, ...]) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    @property
    def is_causal(self) -> bool:
        """No frame depends on a later one, beyond the interpolation's delay."""
        return self.temporal_padding != "both_sides"

    @property
    def temporal_factor(self) -> int:
        """Frames of video to a frame of latent, f."""
        return 1 << len(self.tempo_ds or ())

    @property
    def spatial_factor(self) -> int:
        """Pixels to a latent position, in height and in width."""
        return 1 << len(self.spatial_ds or ())

    @property
    def frame_size(self) -> None:
        """The one (height, width) that the model takes: none, it takes any."""
        return None

    @property
    def parts(self) -> tuple[LatentPart, ...]:
        """The parts that a latent is made of: it is of one part."""
        return ()

    @property
    def moments_channels(self) -> int:
        """Channels that the encoder emits: mean and log-variance for KL, the latent itself for FSQ."""
        return self.bottleneck.moments_channels(self.z_channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes an equal config."""
        return {key: plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AutoencoderConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        bottleneck = bottleneck_from_dict(values.get("bottleneck", {"kind": "kl"}))
        config: AutoencoderConfig = build(cls, {**values, "bottleneck": bottleneck})
        return config
