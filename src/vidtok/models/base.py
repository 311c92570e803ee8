"""What every family of models meets, so that files, commands, evaluation and training need not know which one it is.

A family brings a configuration (`ModelConfig`) and a model (`VideoModel`). Beside what a model's users call (`encode`,
`decode`, the model itself), it gives the latent of a clip as one tensor and takes it back: that is what is stored,
counted and compared. A latent of several streams is one whose channels are those of all streams, one after another.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from vidtok.models.bottleneck import Bottleneck, RegLog
from vidtok.models.padding import Size
from vidtok.models.vidtok.config import ModelConfig

__all__ = ["ModelConfig", "VideoModel"]


class VideoModel(nn.Module):
    """A model of any family. Parameters bear the names and have the shapes of the published checkpoints."""

    config: ModelConfig
    encoder: nn.Module
    decoder: nn.Module
    regularization: Bottleneck

    encoding_modules: ClassVar[tuple[str, ...]] = ("encoder",)
    """Children that encode: what `fix_encoder` freezes in training."""
    decoding_modules: ClassVar[tuple[str, ...]] = ("decoder",)
    """Children that decode: what `fix_decoder` freezes in training."""
    derived: ClassVar[tuple[str, ...]] = ()
    """Names that checkpoints hold though they follow from the configuration; they are passed over on loading."""
    sharded_blocks: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Kinds of modules in encoder and decoder that are sharded one by one, where training shards at all."""

    @property
    def is_causal(self) -> bool:
        """Whether no frame depends on a later one, beyond the decoder's delay."""
        return self.config.is_causal

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes the video."""
        raise NotImplementedError

    @overload
    def encode(
        self, video: Tensor, return_reg_log: Literal[False] = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> Any: ...  # fmt: skip

    @overload
    def encode(
        self, video: Tensor, return_reg_log: Literal[True], *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> tuple[Any, RegLog]: ...  # fmt: skip

    def encode(
        self, video: Tensor, return_reg_log: bool = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> Any:  # fmt: skip
        """Encode a clip.

        Args:
            video: (B, 3, T, H, W), float in -1..1, T, H, W >= 1.
            return_reg_log: return the bottleneck's log too, see `RegLog`.
            sample: KL: draw from the posterior (True) or take its mode (False); None: as `regularization.sample` says.
            generator: source of the noise where it draws; the same seed gives the same latent.
            step: FSQ in training mode: optimisations of the generator so far.

        Returns:
            The latent in the family's own form, or it and the log.
        """
        raise NotImplementedError

    def decode(self, z: Any, decode_from_indices: bool = False, *, size: Size | None = None) -> Tensor:
        """Decode what `encode` returned to video (B, 3, T, H, W), about -1..1.

        `size` is the frames, height and width of the clip that was encoded, to crop to. With `decode_from_indices`,
        `z` holds token indices.
        """
        raise NotImplementedError

    def forward(
        self, video: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Any, Tensor, RegLog]:
        """Latent, reconstruction of as many frames as `video`, and the bottleneck's log; arguments as for `encode`."""
        raise NotImplementedError

    def pack(self, latent: Any) -> Tensor:
        """A latent, or tokens, as one tensor (B, z, T', H', W') or (B, T', H', W'): as it is, unless it has streams."""
        packed: Tensor = latent
        return packed

    def unpack(self, packed: Tensor) -> Any:
        """What `pack` packed."""
        return packed

    def encode_packed(self, video: Tensor) -> Tensor:
        """The latent of a clip as one tensor: the posterior's mode (B, z, T', H', W'), or tokens (B, T', H', W')."""
        raise NotImplementedError

    def decode_packed(self, packed: Tensor, *, size: Size | None = None) -> Tensor:
        """Decode what `encode_packed` returned, of one clip or several in a row; `size` is as for `decode`."""
        raise NotImplementedError
