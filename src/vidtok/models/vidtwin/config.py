"""VidTwin configurations: frozen, validated values, from which `autoencoder.py` builds a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vidtok.errors import ConfigError
from vidtok.fields import build, plain, require
from vidtok.models.config import KLConfig, LatentPart


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """The querying transformer (BLIP-2, arXiv 2301.12597) that turns a position's frames into a few tokens."""

    num_queries: int = 16
    hidden_size: int = 64
    num_layers: int = 6
    num_heads: int = 8
    intermediate_size: int = 768
    cross_attention_freq: int = 2
    """Cross-attention is in one of this many layers, from the first on."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            require(getattr(self, f.name) >= 1, f.name, getattr(self, f.name), "a whole number of at least 1")
        require(
            self.hidden_size % self.num_heads == 0, "hidden_size", self.hidden_size,
            f"a multiple of the {self.num_heads} heads",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VidTwinConfig:
    """A VidTwin autoencoder (arXiv 2412.17726); the defaults are the published model's.

    A clip is of one size, `input_size`: frames, height and width, the latter two equal. The latent of a clip has a
    structure of `expect_ch` channels and two dynamics of `d_dim` channels each.
    """

    family: ClassVar[str] = "vidtwin"
    training_only: ClassVar[tuple[str, ...]] = ("use_checkpoint",)

    input_size: tuple[int, ...] = (16, 224, 224)
    patch_size: tuple[int, ...] = (1, 16, 16)
    in_channels: int = 3
    hidden_size: int = 768
    depth: int = 16
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    init_ch: int = 128
    """Channels of the structure's first convolution."""
    expect_ch: int = 8
    cont_num_blocks: int = 1
    """How often the structure's grid of positions is halved."""
    d_dim: int = 8
    motion_num_blocks: int = 1
    """How often the dynamics' grid of positions is halved."""
    bottleneck: KLConfig = field(default_factory=KLConfig)
    use_checkpoint: bool = False
    """Recompute activations in the backward pass instead of keeping them."""

    def __post_init__(self) -> None:
        for name in (
            "in_channels", "hidden_size", "depth", "num_heads", "init_ch", "expect_ch", "cont_num_blocks", "d_dim",
            "motion_num_blocks",
        ):  # fmt: skip
            require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        require(self.mlp_ratio > 0, "mlp_ratio", self.mlp_ratio, "a number above 0")
        patch, size = self.patch_size, self.input_size
        require(
            len(patch) == 3 and patch[0] == 1 and patch[1] == patch[2] >= 1, "patch_size", patch,
            "[1, P, P]: one frame, as many rows as columns",
        )  # fmt: skip
        require(
            len(size) == 3 and min(size) >= 1 and size[1] == size[2] and size[1] % patch[1] == 0, "input_size", size,
            f"[T, N, N], frames of one side, a multiple of {patch[1]}",
        )  # fmt: skip
        require(
            self.hidden_size % self.num_heads == 0 and self.hidden_size % 4 == 0, "hidden_size", self.hidden_size,
            f"a multiple of 4 and of the {self.num_heads} heads",
        )  # fmt: skip

    @property
    def frames(self) -> int:
        """Frames of a clip, T."""
        return self.input_size[0]

    @property
    def grid(self) -> int:
        """Patches along a side of a frame, H' = W'."""
        return self.input_size[1] // self.patch_size[1]

    @property
    def structure_grid(self) -> int:
        """Positions of the structure along a side of a frame."""
        return _halved(self.grid, self.cont_num_blocks)

    @property
    def dynamics_grid(self) -> int:
        """Positions of either dynamics along its side of a frame."""
        return _halved(self.grid, self.motion_num_blocks)

    @property
    def is_causal(self) -> bool:
        """No: a structure is of a whole clip."""
        return False

    @property
    def temporal_factor(self) -> int:
        """Frames of a clip: its latent counts as one latent frame."""
        return self.frames

    @property
    def spatial_factor(self) -> int:
        """Pixels of a side: the latent of a clip counts as one position."""
        return self.input_size[1]

    @property
    def z_channels(self) -> int:
        """Values of a clip's latent."""
        return sum(stream.values for stream in self.parts)

    @property
    def frame_size(self) -> tuple[int, int]:
        """The one (height, width) that the model takes."""
        return self.input_size[1], self.input_size[2]

    @property
    def parts(self) -> tuple[LatentPart, ...]:
        """Structure (tokens, rows, columns), and dynamics along x and along y (frames, columns or rows)."""
        structure = (self.qformer.num_queries, self.structure_grid, self.structure_grid)
        dynamics = (self.frames, self.dynamics_grid)
        return (
            LatentPart(name="structure", channels=self.expect_ch, positions=structure),
            LatentPart(name="dynamics_x", channels=self.d_dim, positions=dynamics),
            LatentPart(name="dynamics_y", channels=self.d_dim, positions=dynamics),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes an equal config."""
        return {key: plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VidTwinConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        values = dict(values)
        for key, part in (("qformer", QFormerConfig), ("bottleneck", KLConfig)):
            given = values.pop(key, {})
            if not isinstance(given, Mapping) or given.get("kind", "kl") != "kl":
                raise ConfigError(f"{key} is {given!r}; expected a mapping{' with kind: kl' * (part is KLConfig)}")
            values[key] = build(part, given)
        config: VidTwinConfig = build(cls, values)
        return config


def _halved(size: int, times: int) -> int:
    """`size` after `times` convolutions of stride 2."""
    return -(-size // (1 << times))
