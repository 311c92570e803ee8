"""Pictures and videos of reconstructions, written while training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from vidtok.errors import ConfigError, VideoError
from vidtok.training.settings import build
from vidtok.video import VideoWriter, to_uint8

log = logging.getLogger(__name__)

_WITHOUT_EFFECT = (
    "clamp", "rescale", "enable_autocast", "log_on_batch_idx", "log_images_kwargs", "log_before_first_step",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """When to show reconstructions, and how many. Values out of range raise `ConfigError`."""

    batch_frequency: int = 5000
    """Training batches between two; the first batch of each validation is shown too."""
    max_samples: int = 2
    """Clips of a batch to show."""
    fps: float = 8.0
    """Frames per second of the videos."""
    increase_log_steps: bool = False
    """Whether to show the batches 1, 2, 4, 8, ... up to `batch_frequency` too."""
    log_first_step: bool = False
    disabled: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_frequency", "max_samples"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"image logger: {name} is {value!r}; expected a whole number from 1 up")
        if isinstance(self.fps, bool) or not isinstance(self.fps, int | float) or not 0 < self.fps <= 240:
            raise ConfigError(f"image logger: fps is {self.fps!r}; expected a number above 0, such as 8")

    @classmethod
    def from_params(cls, params: Mapping[str, Any], place: str) -> MediaSettings | None:
        """The settings that published parameters describe; None if they disable it."""
        values = dict(params)
        if "max_images" in values:
            values.setdefault("max_samples", values.pop("max_images"))
        for key in _WITHOUT_EFFECT:
            if key in values:
                values.pop(key)
                log.warning("%s.%s has no effect here", place, key)
        settings: MediaSettings = build(cls, values, place)
        return None if settings.disabled else settings

    def is_due(self, batch: int) -> bool:
        """Whether to show batch `batch`, counted from 1."""
        powers = self.increase_log_steps and batch < self.batch_frequency and batch & (batch - 1) == 0
        return batch % self.batch_frequency == 0 or powers or (self.log_first_step and batch == 1)


class ShowReconstructions(Callback):
    """Writes clips above their reconstructions, `RUN/images/SPLIT/step=….png` and `RUN/videos/SPLIT/step=….mp4`.

    The picture shows the first, middle and last frame of each clip; it goes to the run's loggers too.
    """

    def __init__(self, folder: Path, settings: MediaSettings) -> None:
        self.folder = folder
        self.settings = settings

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.settings.is_due(int(getattr(module, "batches_done", batch_idx + 1))):
            self._show(trainer, module, batch["video"], "train")

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch_idx == 0 and not trainer.sanity_checking:
            self._show(trainer, module, batch["video"], "val")

    @torch.no_grad()
    def _show(self, trainer: Trainer, module: LightningModule, video: Tensor, split: str) -> None:
        was_training = module.training
        module.eval()
        video = video[: self.settings.max_samples]
        with trainer.precision_plugin.forward_context():
            reconstruction = module(video)
        module.train(was_training)
        if not trainer.is_global_zero:
            return
        pairs = torch.cat([video.float(), reconstruction.float()], dim=3).clamp(-1, 1).cpu()
        strip = pairs.movedim(0, 3).flatten(3, 4)
        name = f"step={trainer.global_step:09d}"
        self._write(strip, self.folder / "videos" / split / f"{name}.mp4")
        frames = strip.shape[1]
        chosen = sorted({0, frames // 2, frames - 1})
        sheet = torch.cat([strip[:, i] for i in chosen], dim=2)
        self._write(sheet[:, None], self.folder / "images" / split / f"{name}.png")
        for logger in trainer.loggers:
            key, step = f"{split}/reconstruction", trainer.global_step
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(key, to_uint8(sheet[:, None])[0], step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(key, [to_uint8(sheet[:, None])[0]], step=step)

    def _write(self, video: Tensor, path: Path) -> None:
        """Write `video` (3, T, H, W) in -1..1; where it cannot be written, training goes on."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, self.settings.fps) as writer:
                writer.write(to_uint8(video))
        except (OSError, VideoError) as error:
            log.warning("%s cannot be written: %s", path, error)
