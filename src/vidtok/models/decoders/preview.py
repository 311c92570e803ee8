"""The cheapest decoder: a linear projection of each latent position to its block of f x s x s pixels.

Its weights are fitted by least squares (`vidtok.training.distillation.fitting`). The first latent frame of a causal
model, which stands for one frame, has weights of its own.
"""

from __future__ import annotations

from torch import Tensor, nn

from vidtok.models.config import ModelConfig
from vidtok.models.decoders.base import OwnDecoder
from vidtok.models.decoders.config import DecoderConfig, PreviewConfig
from vidtok.models.decoders.layers import Expand
from vidtok.models.state import StreamState
from vidtok.models.vidtok.temporal import number_slots
from vidtok.models.vidtok.transform import from_patches


def projection(latent: ModelConfig, patch: int) -> Expand:
    """The linear map of latents to patches of `patch` x `patch` pixels as channels, in place and time."""
    return Expand(
        latent.z_channels, 3 * patch * patch, frames=latent.temporal_factor, side=latent.spatial_factor // patch,
        lead=latent.is_causal, apart=True,
    )  # fmt: skip


class PreviewDecoder(OwnDecoder, config=PreviewConfig):
    """The projection alone."""

    def __init__(self, config: DecoderConfig, latent: ModelConfig) -> None:
        super().__init__(config, latent)
        self.patch = latent.spatial_factor
        self.linear = projection(latent, self.patch)
        self.look_back = int(latent.is_causal)  # the frame at which decoding starts, by the first frame's weights
        number_slots(self)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.linear.map.weight

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        state = StreamState.whole() if state is None else state
        if not z.shape[2]:
            return self.nothing(z)
        patches = self.linear(z.permute(0, 2, 3, 4, 1), state)
        state.started = True
        return from_patches(patches, self.patch).permute(0, 4, 1, 2, 3)
