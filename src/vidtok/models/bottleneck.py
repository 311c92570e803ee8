"""Bottlenecks behind one interface: the encoder's moments in, the latent and its log out."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidtok.models import fsq
from vidtok.models.config import BottleneckConfig, FSQConfig, KLConfig
from vidtok.models.plain import has_values

LOG_VARIANCE_RANGE = (-30.0, 20.0)

RegLog = dict[str, Tensor]
"""The log of a bottleneck beside the latent: `indices` (FSQ), `kl_loss` (KL), `aux_loss` (FSQ, in training), and other
losses that `Bottleneck.want` asked for."""


class Bottleneck(nn.Module):
    """A module from moments (B, z or 2 z, T', H', W') to a latent (B, z, T', H', W') in the moments' dtype.

    `class Name(Bottleneck, config=NameConfig)` declares the module of a configuration; `make_bottleneck` builds it as
    `Name(config)`.
    """

    discrete: bool
    """True if the latent is made of tokens: the log has `indices`, which `decode_indices` turns into the latent."""

    _modules_of: ClassVar[dict[type[BottleneckConfig], type[Bottleneck]]] = {}

    def __init_subclass__(cls, config: type[BottleneckConfig] | None = None, **named: Any) -> None:
        super().__init_subclass__(**named)
        if config is not None:
            cls._modules_of[config] = cls

    def forward(
        self, moments: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Tensor, RegLog]:
        """The latent (B, z, T', H', W') and its log.

        Args:
            moments: output of the encoder, (B, z or 2 z, T', H', W').
            sample: KL: draw from the posterior (True), take its mode (False), or as configured (None).
            generator: KL: source of the noise, drawn latent frame by latent frame, so that a stream draws the same.
            step: FSQ in training: optimizer steps of the model so far, over which the entropy loss is annealed.
        """
        raise NotImplementedError

    def want(self, losses: Collection[str]) -> None:
        """Keep only the losses with these names in the log in training; others are not computed."""

    def variance(self, moments: Tensor) -> Tensor | None:
        """The posterior's variance, (B, z, T', H', W') float32, of `moments`; None if the latent is not drawn."""
        return None

    def decode_indices(self, indices: Tensor) -> Tensor:
        """The latent (B, z, T', H', W'), float32, of `indices` (B, T', H', W'), whole numbers below the codebook size.

        Raises `ValueError` for other values, or if the latent is continuous.
        """
        raise ValueError("a continuous (KL) model has no token indices; decode its latents instead")

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """`decode_indices` under its published name."""
        return self.decode_indices(indices)


class DiagonalGaussian(Bottleneck, config=KLConfig):
    """KL bottleneck: mean and log-variance per value (Kingma and Welling, arXiv 1312.6114).

    `kl_loss` is the divergence from a unit Gaussian, summed over everything and divided by B.
    """

    discrete = False

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.sample = config.sample

    def forward(
        self, moments: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Tensor, RegLog]:
        mean, log_variance = moments.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        kl = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1 - log_variance) / moments.shape[0]
        z = mean
        if self.sample if sample is None else sample:
            z = mean + torch.exp(0.5 * log_variance) * _noise_by_frame(mean, generator)
        return z.to(moments.dtype), {"kl_loss": kl}

    def variance(self, moments: Tensor) -> Tensor:
        return moments.float().chunk(2, dim=1)[1].clamp(*LOG_VARIANCE_RANGE).exp()


class FiniteScalarQuantizer(Bottleneck, config=FSQConfig):
    """FSQ bottleneck: every channel rounded to one of a few levels (Mentzer et al., arXiv 2309.15505)."""

    discrete = True

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = config.levels
        self._losses: tuple[str, ...] = ("aux_loss",)

    def want(self, losses: Collection[str]) -> None:
        self._losses = tuple(name for name in self.config.losses if name in losses)

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    def forward(
        self, moments: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Tensor, RegLog]:
        values = moments.permute(0, 2, 3, 4, 1)
        codes, indices = fsq.quantize(values, self.levels)
        log: RegLog = {"indices": indices}
        if self.training:
            log |= {name: self._loss(name, values, codes, step) for name in self._losses}
        return codes.permute(0, 4, 1, 2, 3).to(moments.dtype), log

    def _loss(self, name: str, values: Tensor, codes: Tensor, step: int) -> Tensor:
        if name == "spread_loss":
            return fsq.spread_loss(values, self.levels)
        if name == "crowding_loss":
            return fsq.crowding_loss(values, self.levels)
        config = self.config
        return fsq.auxiliary_loss(
            values, codes, self.levels, step,
            entropy_loss_weight=config.entropy_loss_weight,
            entropy_loss_annealing_steps=config.entropy_loss_annealing_steps,
            entropy_loss_annealing_factor=config.entropy_loss_annealing_factor,
            commitment_loss_weight=config.commitment_loss_weight,
        )  # fmt: skip

    def decode_indices(self, indices: Tensor) -> Tensor:
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(f"indices have dtype {indices.dtype}; expected whole numbers, as log['indices'] holds")
        # In a graph or a transform, values cannot be read: indices out of range give an arbitrary code.
        seen = indices.numel() and has_values(indices)
        lowest, highest = (int(i) for i in torch.aminmax(indices)) if seen else (0, 0)
        if lowest < 0 or highest >= self.codebook_size:
            raise ValueError(
                f"indices run from {lowest} to {highest}; this model's codebook has 0 to {self.codebook_size - 1}"
            )
        return fsq.indices_to_codes(indices, self.levels).permute(0, 4, 1, 2, 3)


def make_bottleneck(config: BottleneckConfig) -> Bottleneck:
    """The bottleneck module of `config`."""
    make: Any = Bottleneck._modules_of[type(config)]
    made: Bottleneck = make(config)
    return made


def _noise_by_frame(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Unit Gaussian noise shaped as `like`, drawn one latent frame after another."""
    shape = (*like.shape[:2], *like.shape[3:])
    # In float32 and not the default dtype: another dtype draws other numbers from the generator.
    draw = partial(torch.randn, shape, generator=generator, device=like.device, dtype=torch.float32)
    return torch.stack([draw() for _ in range(like.shape[2])], 2) if like.shape[2] else torch.zeros_like(like)
