"""Pictures and videos of reconstructions, written during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from vidtok.config.dialect import warn_without_effect
from vidtok.errors import VideoError
from vidtok.fields import Within, build, check
from vidtok.video import VideoWriter, to_uint8

log = logging.getLogger(__name__)

_AS_ALWAYS: dict[str, tuple[object, ...]] = {
    "clamp": (True,),
    "rescale": (True,),
    "enable_autocast": (True,),
    "log_on_batch_idx": (False,),
    "log_images_kwargs": (None, {}),
    "log_before_first_step": (False,),
}
"""Published parameters, with the values that ask for what always happens here."""


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Reconstructions to show: how often, and how many. Values out of range raise `ConfigError`."""

    batch_frequency: Annotated[int, Within(1)] = 5000
    """Training batches from one that is shown to the next; the first batch of each validation is shown too."""
    max_samples: Annotated[int, Within(1)] = 2
    """Clips of a batch to show."""
    fps: Annotated[float, Within(above=0, most=240)] = 8.0
    """Frames per second of the videos."""
    increase_log_steps: bool = False
    """Show the batches 1, 2, 4, 8, ... up to `batch_frequency` too."""
    log_first_step: bool = False
    disabled: bool = False
    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        check(self, place)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], place: str) -> MediaConfig | None:
        """The config from published parameters at `place`; None if they disable it."""
        others = [key for key, usual in _AS_ALWAYS.items() if key in params and params[key] not in usual]
        warn_without_effect(params, others, place)
        values = {key: value for key, value in params.items() if key not in _AS_ALWAYS}
        if "max_images" in values:
            values.setdefault("max_samples", values.pop("max_images"))
        config = build(cls, values, place)
        return None if config.disabled else config

    def is_due(self, batch: int) -> bool:
        """True if batch `batch`, counted from 1, is shown."""
        powers = self.increase_log_steps and batch < self.batch_frequency and batch & (batch - 1) == 0
        return batch % self.batch_frequency == 0 or powers or (self.log_first_step and batch == 1)


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
