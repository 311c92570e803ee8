"""A run's folder, `LOGDIR/DATE_NAME`: its path, its content, and the search for it.

configs/DATE.yaml     the whole configuration of each start of the run, the newest last
checkpoints/          see `checkpoints.py`
tensorboard/          scalars
images/, videos/      inputs above their reconstructions
lock                  held, and naming its process, while one trains here
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from vidtok.config.layers import to_yaml
from vidtok.errors import TrainingError
from vidtok.files import lock, sweep_folder, write_whole
from vidtok.text import reason
from vidtok.training.runs.arguments import TrainArguments
from vidtok.zoo.runs import newest_checkpoint

_DATE = "%Y-%m-%dT%H-%M-%S"
_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d_(.+)")
_SHARED = "VIDTOK_RUN_FOLDER"
"""Environment variable by which the processes that Lightning starts learn the folder of the first."""


def run_name(arguments: TrainArguments) -> str:
    """The run's name: the given one, else one made from its configurations, with the postfix."""
    bases = [] if arguments.no_base_name else arguments.base
    name = arguments.name or "-".join(_config_name(base, arguments.legacy_naming) for base in bases)
    return name + arguments.postfix


def _config_name(base: str, legacy: bool) -> str:
    """The name of the configuration `base`, a file or a model's name, with its folders below `configs/`."""
    path = Path(base)
    stem = path.stem if path.suffix.lower() in (".yaml", ".yml") else path.name
    parents = path.parts[:-1]
    if legacy or "configs" not in parents:
        return stem
    return "-".join([*parents[len(parents) - parents[::-1].index("configs") :], stem])


def new_folder(arguments: TrainArguments) -> Path:
    """The path of a new run's folder, not made yet; the processes of one run agree on it."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and _SHARED in os.environ:
        return Path(os.environ[_SHARED])
    name = run_name(arguments)
    if "/" in name or os.sep in name:
        raise TrainingError(f"the run's name is {name!r}; expected a name for a folder, without slashes")
    parent = _parent(arguments)
    if arguments.no_date and not name:
        raise TrainingError("the run has neither a name nor a date; give --name, or leave out --no_date")
    folder = parent / name if arguments.no_date else _unused(parent, f"_{name}" if name else "")
    os.environ[_SHARED] = str(folder)
    return folder


def latest_folder(arguments: TrainArguments) -> Path | None:
    """The run of this name whose last checkpoint is the newest; None if none has one."""
    parent, name = _parent(arguments), run_name(arguments)
    if not parent.is_dir() or not name:
        return None
    candidates = []
    for folder in parent.iterdir():
        dated = _DATED.fullmatch(folder.name)
        if folder.name == name or (dated and dated[1] == name):
            checkpoint = newest_checkpoint(folder)
            if checkpoint is not None:
                candidates.append((checkpoint.stat().st_mtime, folder))
    return max(candidates)[1] if candidates else None


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder` during the block, except on Windows; it is made if missing.

    The process holds the lock and its workers do not, so that the lock ends with the process in any case. Files that a
    killed process left half-written in the folder are removed. Raises `TrainingError` if another process has the lock,
    or the folder cannot be made or written to.
    """
    with _held(folder / "lock", folder):
        for part in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            sweep_folder(part)
        yield


@contextlib.contextmanager
def alone(arguments: TrainArguments, folder: Path, *, resumes: bool) -> Iterator[None]:
    """Keep other processes from beginning a run of this name inside the block, if they would resume this one.

    `folder` is the run's folder; `resumes` is True if the run was there before. Raises `TrainingError` if another
    process trains a run of this name, or has finished one since the arguments were read.
    """
    name = run_name(arguments)
    if not name or not arguments.checkpoint_auto_resume or arguments.resume or arguments.resume_from_checkpoint:
        yield
        return
    path = _parent(arguments) / f".{name}.lock"
    with _held(path, folder):
        try:
            other = None if resumes else latest_folder(arguments)
            if other is not None:
                raise TrainingError(
                    f"{other} is a run of this name that has just been made; start again to go on with it"
                )
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock on the file `path`, which names this process and the `folder` that it trains in."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise TrainingError(
                f"the run's folder {folder} cannot be made or written to: {reason(error)}; give another --logdir"
            ) from error
        with file:
            try:
                lock(file.fileno(), of_process=True)
            except BlockingIOError as error:
                file.seek(0)
                number, _, place = file.read().partition(" ")
                raise TrainingError(
                    f"process {number or 'of unknown number'} is training in {place or folder}; wait for it or stop "
                    "it, or start another run (--name, or --checkpoint_auto_resume false)"
                ) from error
            # The process that had the lock may have removed the file meanwhile.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            file.truncate(0)
            file.write(f"{os.getpid()} {folder}")
            file.flush()
            yield
            return


def write_config(folder: Path, raw: Mapping[str, Any]) -> Path:
    """Write the configuration `raw` as a new file of the run, whole or not at all."""
    path = _unused(folder / "configs", ".yaml")
    write_whole(path, to_yaml(raw), TrainingError)
    return path


def _unused(parent: Path, ending: str) -> Path:
    """A path in `parent` named after the present second, or after the next one that is free."""
    moment = datetime.now()
    while (path := parent / f"{moment:{_DATE}}{ending}").exists():
        moment += timedelta(seconds=1)
    return path


def _parent(arguments: TrainArguments) -> Path:
    parent = Path(arguments.logdir).expanduser()
    return parent / arguments.project if arguments.project else parent
