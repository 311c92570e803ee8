"""VidTwin configurations: frozen, validated values, from which `autoencoder.py` builds a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar

from vidtok.errors import ConfigError
from vidtok.fields import Within, build, check, plain, shown
from vidtok.models.config import KLConfig, LatentPart

_WIDEST = 1 << 16
_Count = Annotated[int, Within(1, 1 << 10)]
_Width = Annotated[int, Within(1, _WIDEST)]
_Halvings = Annotated[int, Within(1, 16)]
_Sizes = tuple[_Width, ...]


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """The querying transformer (BLIP-2, arXiv 2301.12597) that turns a position's frames into a few tokens."""

    num_queries: _Count = 16
    hidden_size: _Width = 64
    num_layers: _Count = 6
    num_heads: _Count = 8
    intermediate_size: _Width = 768
    cross_attention_freq: _Count = 2
    """One layer in this many has cross-attention, from the first on."""

    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        rule("hidden_size", self.hidden_size % self.num_heads == 0, f"a multiple of the {self.num_heads} heads")


@dataclass(frozen=True, kw_only=True)
class VidTwinConfig:
    """A VidTwin autoencoder (arXiv 2412.17726); the defaults are the published model's.

    All clips have one size, `input_size`. The latent of a clip has a structure of `expect_ch` channels and two dynamics
    of `d_dim` channels each.
    """

    family: ClassVar[str] = "vidtwin"
    training_only: ClassVar[tuple[str, ...]] = ("use_checkpoint",)

    input_size: _Sizes = (16, 224, 224)
    """Frames, height and width of a clip; height and width are equal."""
    patch_size: _Sizes = (1, 16, 16)
    """Frames, height and width of a patch: one frame, height and width equal."""
    in_channels: _Count = 3
    hidden_size: _Width = 768
    depth: _Count = 16
    num_heads: _Count = 12
    mlp_ratio: Annotated[float, Within(above=0, most=64)] = 4.0
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    init_ch: _Width = 128
    """Channels of the structure's first convolution."""
    expect_ch: _Width = 8
    """Channels of the structure, z."""
    cont_num_blocks: _Halvings = 1
    """Number of times that the structure's grid of positions is halved."""
    d_dim: _Width = 8
    """Channels of each of the two dynamics, z'."""
    motion_num_blocks: _Halvings = 1
    """Number of times that the dynamics' grid of positions is halved."""
    bottleneck: KLConfig = field(default_factory=KLConfig)
    use_checkpoint: bool = False
    """Recompute activations in the backward pass instead of keeping them."""

    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place)
        patch, size = self.patch_size, self.input_size
        one_frame = len(patch) == 3 and patch[0] == 1 and patch[1] == patch[2]
        rule("patch_size", one_frame, "[1, P, P]: one frame, as many rows as columns")
        square = len(size) == 3 and size[1] == size[2] and size[1] % patch[1] == 0
        rule("input_size", square, f"[T, N, N], frames of one side, a multiple of {patch[1]}")
        fits = self.hidden_size % self.num_heads == 0 and self.hidden_size % 4 == 0
        rule("hidden_size", fits, f"a multiple of 4 and of the {self.num_heads} heads")
        few = self.init_ch << self.cont_num_blocks <= _WIDEST
        rule("cont_num_blocks", few, f"halvings that make at most {_WIDEST} channels of init_ch {self.init_ch}")

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
        """False: a structure is of a whole clip."""
        return False

    @property
    def temporal_factor(self) -> int:
        """Frames of a clip, whose latent counts as one latent frame."""
        return self.frames

    @property
    def spatial_factor(self) -> int:
        """Pixels of a frame's side, since the latent of a clip counts as one position."""
        return self.input_size[1]

    @property
    def z_channels(self) -> int:
        """Number of values of a clip's latent."""
        return sum(stream.values for stream in self.parts)

    @property
    def frame_size(self) -> tuple[int, int]:
        """The only (height, width) that the model takes."""
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
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VidTwinConfig:
        """The config that `values` describe; unknown keys and values out of range raise `ConfigError`."""
        given = values.get("bottleneck", {})
        if not isinstance(given, Mapping) or given.get("kind", "kl") != "kl":
            raise ConfigError(f"bottleneck is {shown(given)}; expected a mapping with kind: kl")
        return build(cls, values)


def _halved(size: int, times: int) -> int:
    """`size` after `times` convolutions of stride 2."""
    return -(-size // (1 << times))
