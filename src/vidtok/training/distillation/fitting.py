"""Least squares for a decoder's linear projection: the block of pixels of each latent position, as pairs go by.

Memory does not grow with the number of pairs: sums of products are kept, in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.models.base import VideoModel
from vidtok.models.decoders.layers import Expand
from vidtok.models.vidtok.spatial import Pointwise
from vidtok.models.vidtok.transform import to_patches
from vidtok.synthetic import SyntheticConfig, synthetic_batch

FITTING_CLIPS = 16
FITTING_SEED = 0x70726576
_RIDGE = 1e-6
"""Added to the variances of the latent, as a share of their mean."""

Pair = tuple[Tensor, Tensor]
"""A latent (B, z, T', H', W') and its video (B, 3, T, H, W), of whole groups of frames."""


class Projection:
    """Sums for the least-squares map of latents to pixels in patches of `patch` x `patch`."""

    def __init__(self, linear: Expand, patch: int) -> None:
        self._linear, self._patch = linear, patch
        self._sums: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, z: Tensor, video: Tensor) -> None:
        """Take a pair into account."""
        latents = z.permute(0, 2, 3, 4, 1).double()
        patches = to_patches(video.permute(0, 2, 3, 4, 1).double().contiguous(), self._patch)
        if self._linear.lead:
            self._take("first", latents[:, :1], patches[:, :1], 1)
            latents, patches = latents[:, 1:], patches[:, 1:]
        if latents.shape[1]:
            self._take("map", latents, patches, self._linear.frames)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the projection its weights."""
        for name, (squares, products) in self._sums.items():
            layer = getattr(self._linear, name)
            assert isinstance(layer, Pointwise)
            ridge = _RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
            solution = torch.linalg.solve(squares + ridge.to(squares.device), products)  # (z + 1, outputs)
            if not bool(solution.isfinite().all()):
                raise VidTokError("the latents have no finite linear projection; is the model's checkpoint damaged?")
            layer.weight.copy_(solution[:-1].T.view(layer.weight.shape))
            layer.bias.copy_(solution[-1])

    def _take(self, name: str, latents: Tensor, patches: Tensor, frames: int) -> None:
        batch, count, rows, columns, channels = latents.shape
        side = self._linear.side
        cut = patches.view(batch, count, frames, rows, side, columns, side, -1)
        outputs = cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch * count * rows * columns, -1)
        inputs = latents.reshape(-1, channels)
        inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        sums = self._sums.setdefault(
            name, [inputs.new_zeros(channels + 1, channels + 1), inputs.new_zeros(channels + 1, outputs.shape[1])]
        )
        sums[0] += inputs.T @ inputs
        sums[1] += inputs.T @ outputs


def fit(linear: Expand, patch: int, pairs: Iterable[Pair]) -> None:
    """Give `linear`, which maps latents to patches of `patch` x `patch` pixels, its least-squares weights."""
    projection = Projection(linear, patch)
    for z, video in pairs:
        projection.add(z, video)
    projection.finish()


def synthetic_pairs(model: VideoModel, clips: int = FITTING_CLIPS, size: int = 96) -> Iterator[Pair]:
    """Latents of procedural clips with these clips, the same on every machine."""
    factor = model.spatial_factor
    side = max(1, size // factor) * factor
    frames = (max(1, 16 // model.temporal_factor)) * model.temporal_factor + model.is_causal
    config = SyntheticConfig(frames=frames, height=side, width=side)
    for index in range(clips):
        video = synthetic_batch(config, FITTING_SEED, [index]).to(model.device, model.dtype)
        with torch.no_grad():
            yield model.encode(video, sample=False), video
