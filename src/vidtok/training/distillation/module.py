"""The Lightning module of a decoder that learns to decode a teacher's latents.

    video -> encoder, bottleneck (frozen) -> latent -> decoder of its own -> reconstruction -> objective, source
                                               |              |                    |
                                               |           features  -------> losses (`losses.py`)
                                               |                                   |
                                               +-> teacher's decoder (frozen) -> features, video

Without a source, on stored latents, the teacher's video takes the source's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vidtok.errors import TrainingError
from vidtok.models.bottleneck import RegLog
from vidtok.models.decoders.base import OwnDecoder
from vidtok.models.padding import crop
from vidtok.tokenizer import Tokenizer
from vidtok.training.config import TrainingConfig
from vidtok.training.distillation.fitting import Pair, fit
from vidtok.training.distillation.losses import DistillObjective
from vidtok.training.module import TrainingModule
from vidtok.training.objective.losses import Log


class DistillModule(TrainingModule):
    """Trains the decoder `own` on latents of `teacher`; batches have a `video`, or a `latent` or tokens of one.

    Its state dict is the model's with the decoder of its own. The teacher's decoder is no part of it.
    """

    loss: DistillObjective

    def __init__(
        self, teacher: Tokenizer, own: OwnDecoder, objective: DistillObjective, settings: TrainingConfig, **named: Any
    ) -> None:
        """`named` are the further arguments of `TrainingModule`; the encoder of `settings` has to be fixed."""
        assert settings.fix_encoder
        super().__init__(teacher.with_decoder(own, "own"), objective, settings, **named)
        self.__dict__["teacher"] = teacher
        teacher.regularization.want(())
        self._apart: dict[str, Tensor] = {}

    @property
    def teacher(self) -> Tokenizer:
        """The model whose latents are decoded."""
        found: Tokenizer = self.__dict__["teacher"]
        return found

    def fit_projection(self, pairs: Iterable[Pair]) -> None:
        """Begin with the least-squares projection of the latents in `pairs` to their videos."""
        own: Any = self.model.decoder
        fit(own.linear, own.config.patch_size if hasattr(own.config, "patch_size") else own.patch, pairs)
        if self.model_ema is not None:
            self.model_ema.reset()

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """A batch of stored latents gets the teacher's video."""
        if "latent" not in batch:
            return batch
        self._place_teacher()
        with torch.no_grad():
            z = self._latent(batch)
            return {**batch, "latent": z, "video": self.teacher.decode(z).float().clamp(-1, 1)}

    def _place_teacher(self) -> None:
        """Bring the teacher's decoder to the device that trains; it is no part of this module."""
        for part in self.teacher.children():
            if next(part.parameters(), None) is not None and next(part.parameters()).device != self.device:
                part.to(self.device)

    def _latent(self, batch: dict[str, Any]) -> Tensor:
        values: Tensor = batch["latent"]
        return self.teacher.latent(values, decode_from_indices=not values.is_floating_point())

    @torch.no_grad()
    def _encoded(self, batch: dict[str, Any]) -> Tensor:
        """The latent of a batch. Raises `TrainingError` if it is not finite."""
        self._place_teacher()
        if "latent" in batch:
            return self._latent(batch)
        z: Tensor = self.teacher.encode(batch["video"], sample=False)
        check_finite(z, f"latents of {self.teacher.name}", ", ".join(map(str, batch.get("name", []))))
        return z

    def _reconstructed(self, batch: dict[str, Any], step: int, *, sample: bool | None = None) -> tuple[Tensor, RegLog]:
        z = self._encoded(batch)
        size = batch["video"].shape[2:]
        if not torch.is_grad_enabled():
            return self.model.decode(z, size=size), {}
        decoder: Any = self.model.decoder
        video, features = decoder.stages(z)
        with torch.no_grad():
            taught, wanted = self.teacher.decoder_stages(z) if self.loss.maps else (self.teacher.decode(z), [])
        losses = self.loss.against_teacher(crop(video, size), crop(taught, size), features, wanted)
        self._apart = losses
        return crop(video, size), {}

    def _more_losses(self) -> Log:
        found, self._apart = self._apart, {}
        return found


def check_finite(z: Tensor, what: str, where: str) -> None:
    """Raise `TrainingError` if `z` has values that no decoder can learn from."""
    if not bool(z.isfinite().all()):
        raise TrainingError(
            f"{what} overflow: they are not finite on {where or 'a clip'}; expected a sound model, in float32 or "
            "bfloat16 (`vidtok export MODEL OUT --rescale` mends large activations)"
        )
