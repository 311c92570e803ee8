"""The plain layout to train beside ours: diffusers' channels-first network, and FSQ's entropies over all codes.

Weights are the same, and so are the loss and its gradients up to rounding. `AutoencoderVidTok` follows the published
code layer by layer, with no kernels or caches of its own.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from inference import diffusers_model
from torch import Tensor, nn

from vidtok.models import fsq
from vidtok.models.base import VideoModel
from vidtok.models.bottleneck import make_bottleneck
from vidtok.models.config import FSQConfig
from vidtok.models.vidtok.config import AutoencoderConfig

_INVERSE_TEMPERATURE = 200.0


class PlainAutoencoder(VideoModel):
    """A model of version 1.1 whose encoder and decoder are diffusers'; for training only."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        inner: Any = diffusers_model(config)
        self.encoder, self.decoder = inner.encoder, inner.decoder
        self.regularization = make_bottleneck(config.bottleneck)
        self.__dict__["inner"] = inner

    @property
    def last_layer(self) -> nn.Parameter:
        return next(p for name, p in self.decoder.named_parameters() if name.startswith("conv_out") and p.dim() > 1)

    def forward(self, video: Tensor, **options: Any) -> tuple[Any, Tensor, dict[str, Tensor]]:
        inner: Any = self.__dict__["inner"]
        lead = self.config.temporal_factor - 1
        moments = inner._encode(torch.cat([video[:, :, :1].expand(-1, -1, lead, -1, -1), video], 2))
        config = self.config.bottleneck
        if not isinstance(config, FSQConfig):
            z, log = self.regularization(moments, **options)
        else:
            values = moments.permute(0, 2, 3, 4, 1)
            codes, indices = fsq.quantize(values, config.levels)
            step = options.get("step", 0)
            commitment = fsq.auxiliary_loss(
                values, codes, config.levels, step,
                entropy_loss_weight=0.0, commitment_loss_weight=config.commitment_loss_weight,
            )  # fmt: skip
            weight = fsq.entropy_weight(
                step, config.entropy_loss_weight, config.entropy_loss_annealing_steps,
                config.entropy_loss_annealing_factor,
            )  # fmt: skip
            per_token, of_mean = direct_entropies(values, config.levels)
            loss = commitment + weight * (per_token - of_mean)
            z, log = codes.permute(0, 4, 1, 2, 3), {"indices": indices, "aux_loss": loss}
        return z, inner._decode(z)[:, :, -video.shape[2] :], log


def direct_entropies(z: Tensor, levels: fsq.Levels) -> tuple[Tensor, Tensor]:
    """`fsq.entropies` by way of the matrix of all tokens and all codes."""
    codebook = fsq.indices_to_codes(torch.arange(prod(levels), device=z.device), levels)
    tokens = z.float().reshape(-1, len(levels))
    p = torch.softmax(_INVERSE_TEMPERATURE * tokens @ codebook.T, dim=-1)
    mean = p.mean(0)
    return (
        -torch.sum(p * p.clamp(min=1e-5).log(), -1).mean(),
        -torch.sum(mean * mean.clamp(min=1e-5).log()),
    )
