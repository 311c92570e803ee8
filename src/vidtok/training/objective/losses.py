"""The training objective (arXiv 2412.13061, section 3): reconstruction against its video, and against a discriminator.

    target ----------+-> L1 + LPIPS, under a learned variance -> nll ------------+
                     |                                                           +-> generator's loss
    reconstruction --+-> discriminator -> adversarial loss x adaptive weight ----+
                                          bottleneck's losses x their weights ---+

The generator (optimiser 0) and the discriminator (optimiser 1) take one step each a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.metrics.image import as_frames, check_pair
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.discriminator import PatchDiscriminator
from vidtok.training.objective.lecam import LeCAM

_LARGEST_WEIGHT = 1e4
_ADAPTIVE_EPSILON = 1e-4
_LEAST_CLIP_ERROR = 2e-4
"""Added to a clip's error per value before its logarithm: an error below it (43 dB) is good enough."""

Log = dict[str, Tensor]


class Objective(nn.Module):
    """The objective that published configurations call GeneralLPIPSWithDiscriminator.

    Its state dict is the `loss.*` section of a published checkpoint: `discriminator.*`, `perceptual_loss.*` (unless
    perceptual_weight is 0: then they are skipped on loading) and `logvar`; plus LeCAM's averages, which may be
    missing on loading.
    """

    def __init__(self, config: ObjectiveConfig, perceptual_loss: LPIPS | None = None) -> None:
        """`perceptual_loss` takes the place of an LPIPS with the weights of `config.perceptual_weights`.

        Raises `LPIPSWeightsError` where LPIPS is asked for and its weights cannot be had.
        """
        super().__init__()
        self.config = config
        self.perceptual_loss: LPIPS | None = None
        if config.perceptual_weight:
            self.perceptual_loss = perceptual_loss or _read_lpips(config)
        self.discriminator = PatchDiscriminator(
            config.disc_type, in_channels=config.disc_in_channels, layers=config.disc_num_layers
        )
        self.lecam = LeCAM(config.lecam_decay) if config.lecam_loss_weight else None
        self.logvar = nn.Parameter(torch.full((), float(config.logvar_init)), requires_grad=config.learn_logvar)

    def generator_parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to the generator's optimiser."""
        return [self.logvar] if self.config.learn_logvar else []

    def discriminator_parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to the discriminator's optimiser."""
        return list(self.discriminator.parameters())

    def forward(
        self,
        regularization_log: Mapping[str, Tensor],
        target: Tensor,
        reconstruction: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        split: str = "train",
    ) -> tuple[Tensor, Log]:
        """The loss of one optimiser's step, a float32 scalar, and scalars to log, detached, under `{split}/NAME`.

        `target` and `reconstruction` are video (B, 3, T, H, W), float, -1..1. `optimizer_idx` is 0 for the generator
        and 1 for the discriminator; `global_step` counts optimiser steps, two a batch. `last_layer` is the weight of
        the layer that made `reconstruction`; the adaptive weight is found there. Entries of `regularization_log`
        without a weight in the config are left out. Raises `VidTokError` if the shapes differ or the frames are too
        small.

        The generator's loss may be differentiated once, and only to first order: the gradient for `reconstruction` is
        found here already, a few frames at a time, so that LPIPS and the discriminator are run once, and their
        activations freed before the model's backward pass. Under torch.distributed, every rank must call this in train
        mode.
        """
        check_pair(reconstruction, target, "the training objective")
        if optimizer_idx == 0:
            return self._generator(regularization_log, target, reconstruction, global_step, last_layer, split)
        return self._discriminator(target, reconstruction, global_step, split)

    def _disc_factor(self, global_step: int) -> float:
        return self.config.disc_factor if global_step >= self.config.disc_start else 0.0

    def _generator(
        self,
        regularization_log: Mapping[str, Tensor],
        target: Tensor,
        reconstruction: Tensor,
        global_step: int,
        last_layer: Tensor | None,
        split: str,
    ) -> tuple[Tensor, Log]:
        leaf = reconstruction.detach().float().requires_grad_(torch.is_grad_enabled() and reconstruction.requires_grad)
        nll, gradients, log = self._negative_log_likelihood(target.detach(), leaf)
        g_loss, g_gradient = self._adversarial(leaf)
        weight, factor = torch.zeros_like(nll), self._disc_factor(global_step)
        loss = nll
        if gradients is not None:
            gradient, logvar_gradient = gradients
            if g_gradient is not None:
                weight = self._adaptive_weight(reconstruction, last_layer, gradient, g_gradient)
                gradient = gradient + weight * factor * g_gradient
            loss = nll + weight * factor * g_loss
            loss = _Differentiated.apply(loss, reconstruction, gradient, self.logvar, logvar_gradient)  # type: ignore[no-untyped-call]
        for name, value in regularization_log.items():
            if name in self.config.regularization_weights:
                loss = loss + self.config.regularization_weights[name] * value
                log[name] = value
        log |= {
            "total_loss": loss,
            "g_loss": g_loss,
            "d_weight": weight,
            "disc_factor": torch.full_like(nll, factor),
        }
        return loss, _detached(log, split)

    def _negative_log_likelihood(
        self, target: Tensor, reconstruction: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Log]:
        """The loss; its gradients for `reconstruction` and logvar, if the former asks for one; and scalars to log."""
        frames, batch = as_frames(reconstruction), self.config.perceptual_batch
        totals: list[Tensor] = []
        perceptual: list[Tensor] = []
        gradients: list[Tensor] = []
        shares = self._perceptual_shares(reconstruction)
        pieces = (torch.split(values, batch) for values in (frames.detach(), as_frames(target), shares))
        for x, y, share in zip(*pieces, strict=True):
            x.requires_grad_(reconstruction.requires_grad)
            distances = self._distances(x, y, share)
            # Each frame's distance counts at each of its values.
            total = self._pixel_loss(x - y).sum((1, 2, 3)) + self.config.perceptual_weight * x[0].numel() * distances
            if x.requires_grad:
                gradients += torch.autograd.grad(total.sum(), x)
            totals.append(total.detach())
            perceptual.append(distances.detach())
        rec, values = torch.cat(totals).view(len(target), -1).sum(1), target[0].numel()
        own = self.config.logvar_per_clip
        logvar = (rec / values + _LEAST_CLIP_ERROR).log() if own else self.logvar.detach().expand_as(rec)
        misfit = rec / logvar.exp()
        nll = (misfit + values * logvar).sum() / len(frames)
        log = {"rec_loss": rec.mean() / values, "p_loss": torch.cat(perceptual).mean(), "nll_loss": nll}
        log["logvar"] = logvar.mean()
        if not gradients:
            return nll, None, log
        gradient = torch.cat(gradients).view(len(target), -1, *frames.shape[1:]).movedim(1, 2)
        gradient = gradient / (logvar.exp() * len(frames)).view(-1, 1, 1, 1, 1)
        slope = torch.zeros_like(nll) if own else (values - misfit).sum() / len(frames)
        return nll, (gradient, slope), log

    def _perceptual_shares(self, video: Tensor) -> Tensor:
        """The weight of each frame of `video` (B, 3, T, H, W) in LPIPS: (B T,), 0 for frames that are left out."""
        batch, frames = video.shape[0], video.shape[2]
        seen = min(self.config.perceptual_frames or frames, frames)
        if seen == frames or not self.training or self.perceptual_loss is None:
            return video.new_ones(batch * frames)
        ranks = torch.rand(batch, frames, device=video.device).argsort(1).argsort(1)
        return ((ranks < seen).to(video.dtype) * (frames / seen)).flatten()

    def _distances(self, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        """LPIPS of the frames (N, 3, H, W) that have a `share` (N,), times it; 0 for the others."""
        distances = x.new_zeros(len(x))
        seen = share > 0
        if self.perceptual_loss is None or not bool(seen.any()):
            return distances
        if bool(seen.all()):
            found: Tensor = share * self.perceptual_loss(x, y)
            return found
        return distances.index_put((seen,), share[seen] * self.perceptual_loss(x[seen], y[seen]))

    def _pixel_loss(self, difference: Tensor) -> Tensor:
        """The loss of each value of `difference` (N, 3, H, W), in the same shape."""
        if self.config.pixel_loss == "l1":
            return difference.abs()
        if self.config.chroma_weight == 1:
            return difference**2
        brightness = difference.mean(1, keepdim=True)
        return brightness**2 + self.config.chroma_weight * (difference - brightness) ** 2

    def _adversarial(self, reconstruction: Tensor) -> tuple[Tensor, Tensor | None]:
        """The generator's adversarial loss, and its gradient for `reconstruction` if that asks for one."""
        if not self.config.is_adversarial:
            return reconstruction.new_zeros(()), None
        logits = self.discriminator(reconstruction).float()
        patches, logits = logits.numel(), logits.mean(dim=1)
        loss = torch.mean(F.softplus(-logits) if self.config.gen_loss_cross_entropy else -logits)
        if not reconstruction.requires_grad:
            return loss, None
        # Scaled by the number of logits, because half precision could not hold the gradient of their mean.
        scale = torch.full_like(loss, patches)
        (gradient,) = torch.autograd.grad(loss, reconstruction, scale)
        return loss.detach(), gradient / scale

    def _discriminator(
        self, target: Tensor, reconstruction: Tensor, global_step: int, split: str
    ) -> tuple[Tensor, Log]:
        real = self.discriminator(target.detach().float()).float()
        fake = self.discriminator(reconstruction.detach().float()).float()
        if self.config.disc_loss == "hinge":
            loss = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        else:
            loss = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        log = {"logits_real": real.mean(), "logits_fake": fake.mean(), "non_saturated_d_loss": loss}
        if self.lecam is not None:
            if self.training:
                self.lecam.update(*_mean_over_ranks(torch.stack([log["logits_real"], log["logits_fake"]]).detach()))
            log["lecam_loss"] = self.lecam(real, fake)
            loss = loss + self.config.lecam_loss_weight * log["lecam_loss"]
        loss = self._disc_factor(global_step) * loss
        return loss, _detached(log | {"disc_loss": loss}, split)

    def _adaptive_weight(
        self, reconstruction: Tensor, last_layer: Tensor | None, nll_gradient: Tensor, g_gradient: Tensor
    ) -> Tensor:
        """disc_weight times the ratio of both losses' gradients at the last layer, averaged over ranks.

        Where the last layer is frozen or not given, the gradients are compared at the reconstruction.
        """
        pulled = [nll_gradient, g_gradient]
        if last_layer is not None and last_layer.requires_grad:
            pulled = [_mean_over_ranks(_pulled_back(reconstruction, last_layer, gradient)) for gradient in pulled]
        nll_norm, g_norm = (torch.linalg.vector_norm(gradient) for gradient in pulled)
        ratio: Tensor = (nll_norm / (g_norm + _ADAPTIVE_EPSILON)).clamp(0, _LARGEST_WEIGHT)
        return self.config.disc_weight * ratio

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        unused = tuple(f"{prefix}{name}." for name in ("perceptual_loss", "lecam") if getattr(self, name) is None)
        kept = {name: value for name, value in state_dict.items() if not name.startswith(unused)}
        super()._load_from_state_dict(kept, prefix, *args)


class _Differentiated(torch.autograd.Function):
    """A loss whose gradients for the reconstruction and for logvar are known already."""

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, reconstruction: Tensor, gradient: Tensor, logvar: Tensor, logvar_gradient: Tensor
    ) -> Tensor:
        ctx.save_for_backward(gradient.to(reconstruction.dtype), logvar_gradient)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradient, logvar_gradient = ctx.saved_tensors
        return None, outer[0] * gradient, None, outer[0] * logvar_gradient, None


def _read_lpips(config: ObjectiveConfig) -> LPIPS:
    try:
        return LPIPS.from_weights(config.perceptual_weights)
    except LPIPSWeightsError as error:
        raise LPIPSWeightsError(
            f"{error}. Paths go into perceptual_weights. To train without LPIPS, set perceptual_weight: 0"
        ) from error


def _pulled_back(reconstruction: Tensor, last_layer: Tensor, gradient: Tensor) -> Tensor:
    """The gradient for `last_layer`, float32, that follows from the `gradient` for `reconstruction`."""
    # Scaled to 1, because half precision could not hold the small gradients of an adversarial loss.
    scale = gradient.abs().amax().clamp(min=torch.finfo(gradient.dtype).tiny)
    scaled = (gradient / scale).to(reconstruction.dtype)
    (pulled,) = torch.autograd.grad(reconstruction, last_layer, scaled, retain_graph=True)
    return pulled.float() * scale


def _mean_over_ranks(values: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    values = values.contiguous()
    dist.all_reduce(values)
    return values / dist.get_world_size()


def _detached(log: Log, split: str) -> Log:
    return {f"{split}/{name}": value.detach().clone().mean() for name, value in log.items()}
