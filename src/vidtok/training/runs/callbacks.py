"""Callbacks of a run: progress, Ctrl-C and the place in the data."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from vidtok.training.runs.checkpoints import KeepCheckpoints

log = logging.getLogger(__name__)

_LINE_SECONDS = 30.0
"""Time between lines where there is no terminal to draw a bar on."""
_AVERAGED = 50
"""Batches whose time the speed is averaged over."""
_SHOWN = ("train/rec_loss", "train/total_loss")
_VALIDATED = tuple(
    f"{split}/{name}" for split in ("val", "val_ema") for name in ("rec_loss", "psnr", "ssim", "codebook_use")
)


class PlaceInData(Callback):
    """Tells the data module of each batch that was trained on, before a checkpoint is written."""

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        mark: Callable[[], None] | None = getattr(trainer.datamodule, "mark_batch_done", None)  # type: ignore[attr-defined]
        if mark is not None:
            mark()


class StopOnSignal(Callback):
    """Inside `listening`, Ctrl-C and SIGTERM end training after the batch under way, with a checkpoint.

    Training ends with an `InterruptedRunError`; `signal` is the signal received. A second one has its usual effect.
    """

    def __init__(self, checkpoints: KeepCheckpoints | None) -> None:
        self._checkpoints = checkpoints
        self._before: dict[signal.Signals, Any] = {}
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen inside the block, around the trainer's work; afterwards signals have their former handlers again."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            self._restore()
            self._before = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Not earlier, since Lightning sets its own handlers before this.
        for number in self._before:
            signal.signal(number, self._receive)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        stop = bool(trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False))
        if stop and not getattr(module, "is_mid_accumulation", False):
            if self._checkpoints is not None:
                path = self._checkpoints.save_now(trainer)
                log.info("interrupted; resume from %s", path)
            self.signal = self.signal or signal.SIGINT
            raise InterruptedRunError

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()
        log.info("stopping after this batch; once more to stop at once")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class InterruptedRunError(Exception):
    """The run was asked to stop, and has."""


class Speed:
    """Clips a second over all ranks, averaged over the last batches."""

    def __init__(self) -> None:
        self._times: list[tuple[float, int]] = []

    def count(self, clips: int) -> None:
        """Count `clips` that were just trained on."""
        self._times = [*self._times[-_AVERAGED:], (time.perf_counter(), clips)]

    def pause(self) -> None:
        """Leave out the time until the next batch, which is not training."""
        self._times = []

    @property
    def clips_per_second(self) -> float:
        if len(self._times) < 2:
            return 0.0
        return sum(clips for _, clips in self._times[1:]) / (self._times[-1][0] - self._times[0][0])


class RunProgress(ProgressBar):
    """A bar on a terminal, and otherwise a line now and then: steps, losses, clips per second, time left."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._speed = Speed()
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._last_line = time.perf_counter()
        if self._enabled and trainer.is_global_zero and sys.stderr.isatty():
            self._start_bar(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._speed.count(len(batch["video"]) * trainer.world_size)
        module.log("clips_per_second", self._speed.clips_per_second, rank_zero_only=True)
        if not self._enabled or not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, figures=self._figures(trainer))
        elif time.perf_counter() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.perf_counter()
            of = f" of {trainer.max_steps}" if trainer.max_steps > 0 else ""
            log.info("step %d%s  %s", trainer.global_step, of, self._figures(trainer))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._speed.pause()
        metrics = trainer.callback_metrics
        figures = [f"{name} {float(metrics[name]):.4g}" for name in _VALIDATED if name in metrics]
        if self._enabled and trainer.is_global_zero and figures:
            log.info("step %d  %s", trainer.global_step, "  ".join(figures))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop_bar()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop_bar()

    def _figures(self, trainer: Trainer) -> str:
        metrics = trainer.callback_metrics
        shown = [f"{key.removeprefix('train/')} {float(metrics[key]):.4g}" for key in _SHOWN if key in metrics]
        return "  ".join([*shown, f"{self._speed.clips_per_second:.2f} clips/s"])

    def _start_bar(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._task = self._bar.add_task("training", total=total, completed=trainer.global_step, figures="")
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
