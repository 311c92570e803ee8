"""A guided start: encoder and decoder learn a linear transform, each for itself, before they learn together.

Principal components of a video differ in variance by a factor of a thousand: the mean of a block is nearly all of it,
colour and motion are the rest. Gradients follow variance, so that a network that starts from noise learns brightness
first and, with few channels and few steps, may never reach the rest. So in the first steps

- the encoder is trained to give the k leading coefficients of the linear block transform (`BlockTransform`) of its own
  block, each divided by its standard deviation, so that all count alike, with a posterior that is sure of them: noise
  of variance 1, with which a KL model begins, hides all but brightness. An FSQ model's values before quantization are
  to be these numbers, whose spread of 1 reaches all levels; a start from noise reaches few, and training keeps to few;
- the decoder is trained to make the video of exactly these coefficients (or their codes), with an error in which each
  coefficient's share is divided by its standard deviation, beside the error of pixels.

Then both go on together from a latent in which no channel is idle, and nothing holds them to the transform any more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.errors import ConfigError
from vidtok.evaluation.linear import LARGEST_BLOCK, BlockShape, BlockTransform
from vidtok.models.bottleneck import Bottleneck
from vidtok.models.config import ModelConfig

_PIXEL_WEIGHT = 20.0
"""Weight of the mean squared error of pixels beside the error of coefficients."""
_LOG_VARIANCE = -8.0
"""The posterior's log-variance: noise of 2% of a coefficient's deviation."""
_LOG_VARIANCE_WEIGHT = 0.01


class TransformGuide:
    """The transform that guides a model: one number of a block for each channel of the latent."""

    def __init__(self, transform: BlockTransform, *, lead: int, quantizer: Bottleneck | None = None) -> None:
        """`lead` copies of the first frame go in front, so that it fills a block, as in a causal model.

        `quantizer` is the bottleneck of a discrete model; None for a continuous one.
        """
        self._transform = transform
        self._lead = lead
        self._quantizer = quantizer

    @classmethod
    def fit(cls, config: ModelConfig, bottleneck: Bottleneck) -> TransformGuide:
        """The guide of a model, fitted on procedural clips in a few seconds, the same on every machine.

        Raises `ConfigError` if the model's latent is not one number a channel for each block of video.
        """
        fits = BlockShape.numbers_of(config.temporal_factor, config.spatial_factor) <= LARGEST_BLOCK
        if config.frame_size is not None or not fits:
            raise ConfigError(
                "model.params.guide_steps is set, and this model cannot be guided: that takes a latent of blocks of "
                f"at most {LARGEST_BLOCK} numbers; leave it out"
            )
        shape = BlockShape(config.temporal_factor, config.spatial_factor, config.z_channels, first_alone=False)
        return cls(
            BlockTransform.fit_synthetic(shape),
            lead=config.temporal_factor - 1 if config.is_causal else 0,
            quantizer=bottleneck if bottleneck.discrete else None,
        )

    def latent(self, video: Tensor) -> Tensor:
        """The decoder's input for `video` (B, 3, T, H, W) in -1..1: (B, k, T', H', W'), float32."""
        wanted = self._coefficients(video) / self._deviations(video)
        return wanted if self._quantizer is None else self._quantizer(wanted)[0]

    def loss(self, moments: Tensor, reconstruction: Tensor, video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss of the encoder on `video` and of the decoder on `self.latent(video)`, and its parts.

        `moments` are mean and log-variance of the posterior (B, 2 k, T', H', W') of a continuous model, and the values
        before quantization (B, k, T', H', W') of a discrete one. The parts are mean squared errors:
        `guide_encoder` of the mean, whose values should have variance 1, `guide_decoder` of the coefficients of the
        reconstruction, over their deviations, and `rec_loss` of its pixels.
        """
        video, reconstruction = video.float(), reconstruction.float()
        deviations = self._deviations(video)
        wanted = self._coefficients(video)
        mean, *log_variance = torch.split(moments.float(), wanted.shape[1], dim=1)
        encoder = F.mse_loss(mean, wanted / deviations)
        sureness = sum((part - _LOG_VARIANCE).square().mean() for part in log_variance)
        decoder = ((self._coefficients(reconstruction) - wanted).square() / deviations).mean()
        pixels = F.mse_loss(reconstruction, video)
        loss = encoder + decoder + _PIXEL_WEIGHT * pixels + _LOG_VARIANCE_WEIGHT * sureness
        return loss, {"guide_encoder": encoder.detach(), "guide_decoder": decoder.detach(), "rec_loss": pixels.detach()}

    def _coefficients(self, video: Tensor) -> Tensor:
        lead = video[:, :, :1].expand(-1, -1, self._lead, -1, -1)
        with torch.autocast(video.device.type, enabled=False):
            return self._transform.coefficients(torch.cat([lead, video], 2).float())

    def _deviations(self, like: Tensor) -> Tensor:
        return self._transform.deviations.to(like.device)[:, None, None, None]
