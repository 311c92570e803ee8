"""Folders that training has written: the run's configuration and its checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from vidtok.errors import CheckpointError

LAST = "last.ckpt"
_STEP = re.compile(r"(?!best-).*step=(\d+)\.ckpt")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d")
_DATE = re.compile(_MOMENT.pattern + "_(?=.)")


def is_run(folder: Path) -> bool:
    """True for the folder of a run: it has `configs/` and `checkpoints/`."""
    return (folder / "configs").is_dir() and (folder / "checkpoints").is_dir()


def run_config(folder: Path) -> Path:
    """The configuration of the run's last start. Raises `CheckpointError` if there is none."""
    return run_configs(folder)[-1]


def run_configs(folder: Path) -> list[Path]:
    """The files of that configuration: one, or for a run of the original several of one date, to be merged in order."""
    configs = sorted((folder / "configs").glob("*.y*ml"))
    if not configs:
        raise CheckpointError(f"{folder} has no YAML file in configs/; expected the folder of a training run")
    moment = _MOMENT.match(configs[-1].name)
    return configs[-1:] if moment is None else [path for path in configs if path.name.startswith(moment[0])]


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: `last.ckpt`, else the one with the most steps; None if there is none."""
    checkpoints = folder / "checkpoints"
    if (checkpoints / LAST).is_file():
        return checkpoints / LAST
    steps = [(int(match[1]), path) for path in checkpoints.glob("*.ckpt") if (match := _STEP.fullmatch(path.name))]
    return max(steps)[1] if steps else None


def run_checkpoint(folder: Path) -> Path:
    """As `newest_checkpoint`, but raises `CheckpointError` if there is none."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(
            f"{folder}/checkpoints has no last.ckpt and no step=*.ckpt: the run has not come to its first checkpoint "
            "(lightning.modelcheckpoint.params.every_n_train_steps), or they were removed"
        )
    return checkpoint


def run_model_name(folder: Path) -> str:
    """The run's name: its folder's without the date."""
    return _DATE.sub("", folder.resolve().name)
