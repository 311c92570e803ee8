"""A training run from its arguments to its last checkpoint."""

from __future__ import annotations

import getpass
import json
import logging
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer, seed_everything

from vidtok.config.layers import allowing_bases
from vidtok.config.read import ConfigSource, Configuration, read_configs
from vidtok.errors import CheckpointError, ConfigError
from vidtok.fields import mapping_at
from vidtok.text import near, one_line
from vidtok.tokenizer import Tokenizer
from vidtok.training.config import TrainingConfig
from vidtok.training.data import DataConfig, build_data
from vidtok.training.data.config import StoredConfig
from vidtok.training.distillation.module import DistillModule
from vidtok.training.distillation.start import build_distillation, fitting_pairs
from vidtok.training.module import TrainingModule
from vidtok.training.objective.config import read_objective
from vidtok.training.objective.losses import Objective
from vidtok.training.published_runs import is_published
from vidtok.training.runs.arguments import TrainArguments
from vidtok.training.runs.callbacks import InterruptedRunError, StopOnSignal
from vidtok.training.runs.checkpoints import read_training_state, start_from
from vidtok.training.runs.config import RunConfig
from vidtok.training.runs.folder import alone, exclusive, latest_folder, new_folder, write_config
from vidtok.training.runs.takeover import check_same
from vidtok.training.runs.trainer import check_logger, make_logger, make_trainer, quieten
from vidtok.zoo.runs import is_run, run_checkpoint, run_configs

log = logging.getLogger(__name__)

_COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True)
class RunPlan:
    """A run's configuration, folder and checkpoint to resume from."""

    config: Configuration
    folder: Path
    resume_from: Path | None
    unasked: bool = False
    """True if the run is resumed only because it has the same name."""


def run(arguments: TrainArguments) -> Path:
    """Train as `arguments` say, and return the run's folder.

    Raises:
        VidTokError: the configuration, the data or a checkpoint cannot be used, or training had to stop.
        KeyboardInterrupt: training was interrupted, and has written a checkpoint.
    """
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    quieten(rank, logging.WARNING if arguments.quiet else logging.DEBUG if arguments.verbose else logging.INFO)
    keep_compiled_code_apart()
    check_logger(arguments)
    for option in arguments.without_effect:
        log.warning("--%s has no effect here", option)
    with allowing_bases(*arguments.allow_base):
        plan = plan_run(arguments)
    raw = plan.config.raw
    settings, running = TrainingConfig.from_raw(raw), RunConfig.from_raw(raw)
    _set_tf32(arguments.enable_tf32)
    seed_everything(running.seed + (rank if arguments.seed_rank else 0), verbose=False)
    data = build_data(raw["data"], seed=running.seed)
    module = build_module(plan.config, settings, running, data.config)
    if isinstance(module, DistillModule):
        if plan.resume_from is None:
            module.fit_projection(fitting_pairs(module, data.config, running.seed))
    elif settings.ckpt_path is not None and plan.resume_from is None:
        start_from(module, settings.ckpt_path, settings.ignore_keys)
        if module.model_ema is not None:
            module.model_ema.reset()
    _check_monitor(settings.monitor, module.validation_metrics)
    if plan.unasked and arguments.train:
        check_same(plan.folder, raw)
    if plan.resume_from is not None and arguments.train:
        _check_resumable(module, plan.resume_from, running)
    trainer, stop = make_trainer(plan.folder, running, settings, module.loss.config.is_adversarial)
    resumes = plan.resume_from is not None
    with ExitStack() as held:
        if rank == 0 and arguments.train:
            held.enter_context(alone(arguments, plan.folder, resumes=resumes))
            held.enter_context(exclusive(plan.folder))
        # The folder's newest configuration tells how its checkpoints are read, so all checks come before it.
        trainer.logger = make_logger(arguments, plan.folder)
        if rank == 0:
            write_config(plan.folder, raw)
            log.info("run folder %s", plan.folder)
        if arguments.train:
            _fit(trainer, module, data, plan.resume_from, stop)
        if not arguments.no_test and data.config.test is not None:
            trainer.test(module, data, ckpt_path=None if arguments.train else plan.resume_from, verbose=rank == 0)
    if rank == 0 and arguments.train:
        log.info(
            "finished at step %d: %s (`vidtok export` makes a slim folder of it)", trainer.global_step, plan.folder
        )
    return plan.folder


def keep_compiled_code_apart() -> None:
    """Give each process that another one started here its own folder of compiled code.

    Ranks compile the same graphs at the same time, and one loads a library that another has only half written.
    """
    local_rank = os.environ.get("LOCAL_RANK", "0")
    if local_rank != "0":
        default = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
        os.environ[_COMPILER_CACHE] = f"{os.environ.get(_COMPILER_CACHE, default)}-{local_rank}"


def plan_run(arguments: TrainArguments) -> RunPlan:
    """The configuration of the run, its folder, and the checkpoint that it goes on from, if any."""
    folder, resume_from = _resumed(arguments)
    sources: list[ConfigSource] = [*arguments.base]
    if folder is not None and not sources:
        sources = [*run_configs(folder)]
    if not sources:
        raise ConfigError(
            "no configuration is given; expected one or more of CONFIG (or --base CONFIG.yaml), or --resume with the "
            "folder of a run"
        )
    taken_up = None
    if folder is None and arguments.checkpoint_auto_resume and resume_from is None:
        folder = taken_up = latest_folder(arguments)
        if folder is not None:
            resume_from = run_checkpoint(folder)
            log.info("going on with the run in %s (--checkpoint_auto_resume false starts another)", folder)
    config = read_configs(sources, arguments.overrides)
    _require_sections(config.raw)
    if arguments.trainer:  # as overrides, so that --max_steps decides ${lightning.trainer.max_steps}
        options = [f"lightning.trainer.{key}={json.dumps(value)}" for key, value in arguments.trainer.items()]
        config = read_configs(sources, [*arguments.overrides, *options])
    _take_in(config.raw, arguments)
    return RunPlan(config, folder or new_folder(arguments), resume_from, taken_up is not None)


def build_module(
    config: Configuration, settings: TrainingConfig, running: RunConfig, data: DataConfig
) -> TrainingModule:
    """The module to train, with fresh weights. Raises `ConfigError`, or `LPIPSWeightsError` if LPIPS lacks weights."""
    objective = read_objective(config.raw["model"]["params"])
    named: dict[str, Any] = {
        "learning_rate": settings.base_learning_rate * (_scale(config.raw, running) if running.scale_lr else 1),
        "accumulate": running.accumulate,
        "clip_norm": running.clip_norm,
        "seed": running.seed,
    }
    if config.decoder is not None:
        return build_distillation(config, settings, objective, data, **named)
    if isinstance(data.train, StoredConfig):
        raise ConfigError("data.params.train has token files, which hold no videos; only a distillation trains on them")
    return TrainingModule(Tokenizer(config.model, name=config.name), Objective(objective), settings, **named)


def _check_monitor(monitor: str | None, known: list[str]) -> None:
    if monitor is not None and monitor not in known:
        raise ConfigError(
            f"model.params.monitor is {monitor}, which validation does not give{near(monitor, known)}; "
            f"expected null, or one of {', '.join(known)}"
        )


def _resumed(arguments: TrainArguments) -> tuple[Path | None, Path | None]:
    """The folder of the run to go on in, and the checkpoint to go on from, as far as the arguments name them."""
    if arguments.resume and arguments.resume_from_checkpoint:
        raise ConfigError("--resume and --resume_from_checkpoint are both given; expected one of them")
    if arguments.resume_from_checkpoint:
        path = Path(arguments.resume_from_checkpoint).expanduser()
        return None, run_checkpoint(path) if is_run(path) else _existing(path)
    if not arguments.resume:
        return None, None
    path = Path(arguments.resume).expanduser()
    if is_run(path):
        return path, run_checkpoint(path)
    folder = _existing(path).parent.parent
    if not is_run(folder):
        raise CheckpointError(
            f"{path} is not in the checkpoints/ of a run's folder; to go on from it in a new folder, give it as "
            "--resume_from_checkpoint"
        )
    return folder, path


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise CheckpointError(f"{path} is not the folder of a run; expected one with configs/ and checkpoints/")
    if not path.is_file():
        raise CheckpointError(
            f"the checkpoint {path} does not exist; expected the folder of a run, or a .ckpt file in it"
        )
    return path


def _require_sections(raw: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless `raw` has a section `data`, and `lightning` and `lightning.trainer` are sections."""
    mapping_at(mapping_at(raw, "lightning", optional=True), "trainer", "lightning", optional=True)
    if "data" not in raw:
        raise ConfigError("data is missing; expected a section that says what to train on")


def _take_in(raw: dict[str, Any], arguments: TrainArguments) -> None:
    """Put the run's arguments into the configuration, where a resumed run finds them."""
    section = raw.setdefault("lightning", {})
    if arguments.seed is not None:
        section["seed"] = arguments.seed
    if arguments.scale_lr:
        section["scale_lr"] = True


def _scale(raw: Mapping[str, Any], running: RunConfig) -> int:
    """Clips of all devices in one optimizer step."""
    batch: int = raw["data"]["params"]["batch_size"]
    return running.accumulate * running.processes * batch


def _fit(
    trainer: Trainer, module: TrainingModule, data: LightningDataModule, resume_from: Path | None, stop: StopOnSignal
) -> None:
    try:
        with stop.listening():
            trainer.fit(module, data, ckpt_path=resume_from)
    except InterruptedRunError:
        if stop.signal == signal.SIGTERM:
            raise SystemExit(143) from None
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning refuses to train with these options: {one_line(error)}") from error


def _check_resumable(module: TrainingModule, path: Path, running: RunConfig) -> None:
    """Raise `CheckpointError` unless the run's checkpoint in `path` is of this model and objective.

    One of the original implementation may not be sharded, as its optimisers' states go by number.
    """
    from vidtok.zoo.checkpoint import check_fit

    content = read_training_state(path)
    if is_published(content):
        if running.strategy == "fsdp" and running.processes > 1:
            raise CheckpointError(
                f"{path} is of a run of the original, which cannot go on sharded (FSDP); expected --strategy ddp, or a "
                f"new run from its weights: model.params.ckpt_path={path}"
            )
        content = module.resumable(content, str(path))
        log.info("%s is of a run of the original: the data begin anew at epoch %d", path, content["epoch"])
    check_fit(module.state_dict(), content["state_dict"], str(path))


def _set_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
