"""Checkpoints of a run: written whole or not at all, read as data, and named so that they can be found again.

RUN/checkpoints/step=000005000.ckpt     every so many steps
RUN/checkpoints/best-step=….ckpt        the best few by the monitored metric, with their scores in best.json
RUN/checkpoints/last.ckpt               the start of a resumed run
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from vidtok.config.registry import entry, models
from vidtok.errors import CheckpointError, ConfigError, TrainingError
from vidtok.files import aside, write_whole, writing
from vidtok.training.runs.settings import CheckpointConfig
from vidtok.zoo.checkpoint import copy_state, read_checkpoint, read_content, read_files, without_derived
from vidtok.zoo.folder import read_folder
from vidtok.zoo.runs import LAST, is_run, run_checkpoint
from vidtok.zoo.weights import fetch_weights

if TYPE_CHECKING:
    from vidtok.training.module import TrainingModule

_BEST = "best.json"


class WholeFiles(CheckpointIO):
    """Lightning's access to files: writes a checkpoint whole or not at all, and reads only tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        problem, advice = f"the checkpoint {path} cannot be written", "the ones before it are whole"
        with writing(path, TrainingError, problem=problem, advice=advice):
            path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path, TrainingError, sync=True, problem=problem, advice=advice) as new, new.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_training_state(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_training_state(path: str | Path) -> dict[str, Any]:
    """The content of a run's checkpoint. Raises `CheckpointError` if it is damaged, or holds code or weights alone."""
    content = read_content(path)
    missing = [key for key in ("state_dict", "optimizer_states", "loops") if key not in content]
    if missing:
        raise CheckpointError(
            f"{path} holds no {missing[0]}: it is a checkpoint of weights alone, and no run can be resumed from it; to "
            f"start a new run from its weights, give model.params.ckpt_path={path}"
        )
    return content


class KeepCheckpoints(Checkpoint):
    """Writes the run's checkpoints as its `CheckpointConfig` says."""

    def __init__(self, folder: Path, settings: CheckpointConfig, monitor: str | None, mode: str) -> None:
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.monitor = monitor
        self.sign = 1.0 if mode == "min" else -1.0
        self.best: dict[str, float] = {}
        self._saved_at = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        step, every = trainer.global_step, self.settings.every_n_train_steps
        if step // every > self._saved_at // every and not getattr(module, "is_mid_accumulation", False):
            self.save_now(trainer)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        # Ranks that were started on their own may have named the folder by another second.
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        self.best = trainer.strategy.broadcast(self._read_best() if trainer.is_global_zero else {})

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._saved_at = trainer.global_step

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.global_step or not self.settings.save_top_k:
            return
        score = trainer.callback_metrics.get(self.monitor or "")
        if score is None:
            return
        self._keep_if_best(trainer, float(score))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step != self._saved_at and not getattr(module, "is_mid_accumulation", False):
            self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> Path:
        """Write a checkpoint of the present step, make `last.ckpt` the same, and return its path."""
        step = trainer.global_step
        path = self.folder / f"step={step:09d}.ckpt"
        trainer.save_checkpoint(path)
        self._saved_at = step
        if trainer.is_global_zero:
            if self.settings.save_last:
                link(path, self.folder / LAST)
            self._drop_old()
        trainer.strategy.barrier("checkpoint")
        return path

    def _drop_old(self) -> None:
        if self.settings.keep >= 0:
            kept = sorted(self.folder.glob("step=*.ckpt"))
            for path in kept[: max(0, len(kept) - self.settings.keep)]:
                path.unlink(missing_ok=True)

    def _keep_if_best(self, trainer: Trainer, score: float) -> None:
        if not math.isfinite(score):
            return
        name = f"best-step={trainer.global_step:09d}.ckpt"
        ranked = sorted([*self.best.items(), (name, score)], key=lambda item: self.sign * item[1])
        kept = dict(ranked[: self.settings.save_top_k])
        if name not in kept:
            return
        dropped = [other for other in self.best if other not in kept]
        self.best = kept
        trainer.save_checkpoint(self.folder / name)
        if trainer.is_global_zero:
            write_whole(self.folder / _BEST, json.dumps(self.best, indent=2) + "\n", TrainingError)
            for other in dropped:
                (self.folder / other).unlink(missing_ok=True)
        trainer.strategy.barrier("best checkpoint")

    def _read_best(self) -> dict[str, float]:
        """Scores of the best checkpoints in the folder, from before the run was interrupted."""
        try:
            scores = json.loads((self.folder / _BEST).read_text(encoding="utf-8"))
            return {str(name): float(score) for name, score in scores.items() if (self.folder / name).is_file()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def link(source: Path, target: Path) -> None:
    """Make `target` another name of the file `source`, or a copy where the file system has no links."""
    with aside(target, TrainingError) as new:
        new.unlink()
        try:
            os.link(source, new)
        except OSError:
            shutil.copyfile(source, new)


def weights_of(source: str) -> tuple[Path, ...]:
    """The files of weights that `source` leads to: a model's name, a run's folder, a saved model's folder, or a file.

    Raises `CheckpointError` if there are none, or a model's weights cannot be fetched.
    """
    path = Path(source).expanduser()
    if source in models():
        return (fetch_weights(entry(source)),)
    if path.is_dir():
        return (run_checkpoint(path),) if is_run(path) else read_folder(path).files
    return (path,)


def start_from(module: TrainingModule, source: str, ignore_keys: tuple[str, ...]) -> None:
    """Give the training module the weights of `source`, except names that begin with one of `ignore_keys`.

    The model's weights must all be there; the objective's are taken as far as the checkpoint has them. Raises
    `CheckpointError` with a list of the names that do not fit.
    """
    path, *others = weights_of(source)
    state = without_derived(read_checkpoint(path, objective=True) | read_files(others), module.model)
    kept = {name: value for name, value in state.items() if not name.startswith(ignore_keys)}
    if ignore_keys and len(kept) == len(state):
        raise ConfigError(
            f"model.params.ignore_keys {list(ignore_keys)} match no name in {path}; expected prefixes such as decoder."
        )
    own = {name: value for name, value in module.state_dict().items() if not name.startswith("model_ema.")}
    # Weights of the objective that only one side has stay as they are.
    taken = {name: value for name, value in kept.items() if name in own or not name.startswith("loss.")}
    wanted = {
        name: value for name, value in own.items() if name in taken or not name.startswith(("loss.", *ignore_keys))
    }
    copy_state(wanted, taken, str(path))
