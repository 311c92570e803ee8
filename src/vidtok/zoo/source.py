"""The place that a model is loaded from: a name, a YAML file, a folder, a training run or a Hub repository."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from vidtok.config.read import read_config
from vidtok.config.registry import entry, models, named_by_repo
from vidtok.errors import CheckpointError, ConfigError
from vidtok.fields import shown
from vidtok.models.config import ModelConfig
from vidtok.text import near
from vidtok.zoo.folder import read_folder, read_latents
from vidtok.zoo.head import check_kind
from vidtok.zoo.hub import resolve_hub_repo
from vidtok.zoo.latents import LatentScale
from vidtok.zoo.runs import is_run, run_checkpoint, run_config, run_model_name
from vidtok.zoo.weights import fetch_weights


class Located(NamedTuple):
    """A model that was found, before its weights are read."""

    config: ModelConfig
    name: str
    weights: Path

    @property
    def latents(self) -> LatentScale | None:
        """Statistics of the latents, from the folder that holds the weights; None if it has none."""
        return read_latents(self.config, self.weights)


def locate(
    source: str | PathLike[str], checkpoint: str | PathLike[str] | None = None, revision: str | None = None
) -> Located:
    """The configuration, name and weights that `source` leads to; `checkpoint` replaces the weights.

    Raises `ConfigError` for an unknown name or an unreadable configuration, and `CheckpointError` where there are no
    weights.
    """
    text = fspath(source)
    if not text:
        raise ConfigError("the model's name is empty; `vidtok models` lists the names")
    given = None if checkpoint is None else Path(checkpoint)
    path = Path(text).expanduser()
    text = named_by_repo(text) if not path.exists() else text
    in_hub = _is_in_hub(text)
    if revision is not None and not in_hub:
        raise ConfigError(f"revision is {shown(revision)}, but {text} is no Hub repository OWNER/NAME; leave it out")
    if text in models():
        return Located(read_config(text).model, text, given or fetch_weights(entry(text)))
    if path.is_dir() and is_run(path):
        return Located(read_config(run_config(path)).model, run_model_name(path), given or run_checkpoint(path))
    if path.is_dir():
        found = Located(*read_folder(path))
    elif path.suffix.lower() in (".yaml", ".yml"):
        run = read_config(path)
        weights = given or run.ckpt_path
        if not weights:
            raise CheckpointError(f"{text} names no weights (model.params.ckpt_path); give a checkpoint for it")
        found = Located(run.model, run.name, Path(weights))
    elif path.is_file():
        raise ConfigError(f"{text} is not a YAML file; give a checkpoint with the name or YAML file of its model")
    elif in_hub:
        found = Located(*read_folder(resolve_hub_repo(text, revision)))
    else:
        raise ConfigError(
            f"{shown(text)} is no model's name, YAML file, folder or Hub repository{near(text, models())}; "
            "`vidtok models` lists the names"
        )
    return found if given is None else found._replace(weights=given)


def check_source(source: str | PathLike[str], checkpoint: str | PathLike[str] | None = None) -> None:
    """Raise the errors of `load` that show before PyTorch is loaded: names, configurations, missing or other files.

    Weights of a model by name are downloaded if they are not at hand. A Hub repository is left to `locate`.
    """
    text = fspath(source)
    if checkpoint is not None:
        check_kind(Path(checkpoint))
    with _once():
        if not _is_in_hub(named_by_repo(text)):
            check_kind(locate(source, checkpoint).weights)


@contextmanager
def _once() -> Iterator[None]:
    """Keep back warnings about a configuration, which come when it is read in earnest."""
    log = logging.getLogger("vidtok.config")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _is_in_hub(text: str) -> bool:
    return not Path(text).expanduser().exists() and text not in models() and _names_a_repo(text)


def _names_a_repo(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith((".yaml", ".yml"))
