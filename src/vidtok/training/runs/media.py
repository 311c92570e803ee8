"""Pictures and videos of reconstructions, written during training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from vidtok.errors import VideoError
from vidtok.training.runs.settings import MediaConfig
from vidtok.video import VideoWriter, to_uint8

log = logging.getLogger(__name__)


class ShowReconstructions(Callback):
    """Writes clips above their reconstructions, `RUN/images/SPLIT/step=….png` and `RUN/videos/SPLIT/step=….mp4`.

    The picture shows the first, middle and last frame of each clip; it goes to the run's loggers too.
    """

    def __init__(self, folder: Path, settings: MediaConfig) -> None:
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
        """Write `video` (3, T, H, W) in -1..1; training goes on if that fails."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, self.settings.fps) as writer:
                writer.write(to_uint8(video))
        except (OSError, VideoError) as error:
            log.warning("%s cannot be written: %s", path, error)
