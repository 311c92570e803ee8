"""Lightning's Trainer, set up for a run: strategy, callbacks, loggers."""

from __future__ import annotations

import logging
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from vidtok.errors import ConfigError, TrainingError
from vidtok.text import one_line
from vidtok.training.config import TrainingConfig
from vidtok.training.runs.arguments import TrainArguments
from vidtok.training.runs.callbacks import PlaceInData, RunProgress, StopOnSignal
from vidtok.training.runs.checkpoints import KeepCheckpoints, WholeFiles
from vidtok.training.runs.config import RunConfig
from vidtok.training.runs.media import ShowReconstructions
from vidtok.training.sharding import FullyShardedStrategy

_IDLE_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",
    ".*is smaller than the logging interval.*",
    ".*returned a view tensor.*",
    ".*does not have many workers.*",
    ".*Total length of .list. across ranks is zero.*",
    ".*_get_pg_default_device.*",
    ".*Multiple backends are registered.*",
    ".*in eval mode at the start of training.*",
    ".*You have overridden `on_after_batch_transfer`.*",
)


def make_trainer(
    folder: Path, running: RunConfig, settings: TrainingConfig, adversarial: bool
) -> tuple[Trainer, StopOnSignal]:
    """The trainer of the run in `folder`, without a logger, and its callback that stops at a signal.

    Nothing is written. Raises `ConfigError` if Lightning refuses its options.
    """
    checkpoints = KeepCheckpoints(folder / "checkpoints", running.checkpoints, settings.monitor, settings.mode)
    stop = StopOnSignal(checkpoints if running.keeps_checkpoints else None)
    callbacks: list[Callback] = [PlaceInData()]
    if running.media is not None:
        callbacks.append(ShowReconstructions(folder, running.media))
    if running.trainer.get("enable_progress_bar", True):
        callbacks.append(RunProgress())
    if running.keeps_checkpoints:
        callbacks.append(checkpoints)
    options = {**_defaults(running), **running.trainer, **_launched()}
    try:
        trainer = Trainer(
            **options,
            strategy=_strategy(running, adversarial),
            logger=False,
            callbacks=[*callbacks, stop],
            plugins=[WholeFiles()],
        )
    except (
        ValueError,
        TypeError,
        RuntimeError,
        MisconfigurationException,
    ) as error:  # Lightning's own checks of its options
        given = ", ".join(f"{name}: {value!r}" for name, value in running.trainer.items())
        raise ConfigError(
            f"Lightning's Trainer refuses its options: {one_line(error)}; lightning.trainer has {given}"
        ) from error
    return trainer, stop


def check_logger(arguments: TrainArguments) -> None:
    """Raise `TrainingError` unless the package that `make_logger` needs is installed."""
    if arguments.wandb:
        modules, name, extra = ["wandb"], "Weights & Biases", "wandb"
    else:
        modules, name, extra = ["tensorboard", "tensorboardX"], "TensorBoard", "train"
    if not any(map(_installed, modules)):
        raise TrainingError(
            f"{name} is not installed: `pip install 'vidtok[{extra}]'`, or in a clone "
            f"`pip install -c constraints.txt -e '.[{extra}]'`"
        )


def _installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # without an origin it is only a folder of that name


def make_logger(arguments: TrainArguments, folder: Path) -> Logger:
    """The logger of TensorBoard, or of Weights & Biases if asked for; both write below the run's `folder`."""
    if not arguments.wandb:
        return TensorBoardLogger(folder, name="", version="tensorboard")
    return _wandb_logger(arguments, folder)


def _wandb_logger(arguments: TrainArguments, folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    if arguments.wandb_key:
        os.environ["WANDB_API_KEY"] = arguments.wandb_key
    run_id = arguments.wandb_id
    if run_id is None and arguments.wandb_auto_resume:
        # The folder's name is the run's id, so that a run that goes on in its folder goes on there too.
        run_id = re.sub(r"[^\w.-]", "-", folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        name=folder.name,
        save_dir=folder,
        project=arguments.wandb_project,
        entity=arguments.wandb_entity,
        id=run_id,
        resume="allow",
    )


def quieten(rank: int, level: int = logging.INFO) -> None:
    """Let through only the first process's messages from `level` on, and of Lightning's and PyTorch's those that a user
    can act on."""
    for message in _IDLE_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("vidtok").setLevel(level if rank == 0 else logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.INFO if level <= logging.DEBUG else logging.WARNING)


def _defaults(running: RunConfig) -> dict[str, Any]:
    """Default options of the trainer."""
    options = {"use_distributed_sampler": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    interval = running.trainer.get("val_check_interval")
    # A number of batches counts across epochs, however short they are.
    return {**options, "check_val_every_n_epoch": None} if type(interval) is int else options


def _launched() -> dict[str, int]:
    """The numbers of devices and nodes that torchrun has started processes for; empty without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    on_node = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": on_node, "num_nodes": int(os.environ["WORLD_SIZE"]) // on_node}


def _strategy(running: RunConfig, adversarial: bool) -> Any:
    if running.processes == 1:
        return "auto"
    if running.strategy == "fsdp":
        return FullyShardedStrategy(running.processes)
    # A backward pass is for the generator or for the discriminator: the parameters of the other take no part in it.
    return DDPStrategy(**{**running.strategy_options, "find_unused_parameters": adversarial})
