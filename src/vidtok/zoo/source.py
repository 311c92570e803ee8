"""The place that a model is loaded from: a name, a YAML file, a folder, a training run or a Hub repository."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from vidtok.config.layers import without_warnings
from vidtok.config.read import read_config
from vidtok.config.registry import entry, models, named_by_repo
from vidtok.errors import CheckpointError, ConfigError
from vidtok.fields import shown
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.config import DecoderConfig
from vidtok.text import near
from vidtok.zoo.folder import SavedModel, read_folder, read_latents
from vidtok.zoo.head import check_kind
from vidtok.zoo.hub import resolve_hub_repo
from vidtok.zoo.latents import LatentScale
from vidtok.zoo.runs import is_run, run_checkpoint, run_config, run_model_name
from vidtok.zoo.weights import decoder_at_hand, fetch_weights

FULL = "full"
"""The name of a model's own decoder."""


class Located(NamedTuple):
    """A model that was found, before its weights are read."""

    config: ModelConfig
    name: str
    weights: tuple[Path, ...]
    """Its files of weights; empty where they were not asked for."""
    decoder: DecoderConfig | None = None
    """The decoder that it has in place of its family's."""
    origin: Mapping[str, str] | None = None
    """Identity of the model whose latents these are, if it is noted."""
    parts: tuple[str, ...] = ()
    """The parts that have files of their own and are here; empty if one file has all weights."""
    folder: Path | None = None
    """The folder that it is saved in."""

    @property
    def latents(self) -> LatentScale | None:
        """Statistics of the latents, from the folder that holds the weights; None if it has none."""
        return read_latents(self.config, self.weights[0]) if self.weights else None


def locate(
    source: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    revision: str | None = None,
    *,
    weights: bool = True,
) -> Located:
    """The configuration, name and weights that `source` leads to; `checkpoint` replaces the weights.

    Without `weights`, none are fetched or looked for where the configuration lies apart from them. Raises `ConfigError`
    for an unknown name or an unreadable configuration, and `CheckpointError` where there are no weights.
    """
    text = fspath(source)
    if not text:
        raise ConfigError("the model's name is empty; `vidtok models` lists the names")
    given = () if checkpoint is None else (Path(checkpoint),)
    path = Path(text).expanduser()
    text = named_by_repo(text) if not path.exists() else text
    in_hub = _is_in_hub(text)
    if revision is not None and not in_hub:
        raise ConfigError(f"revision is {shown(revision)}, but {text} is no Hub repository OWNER/NAME; leave it out")
    if text in models():
        config = read_config(text).model
        return Located(config, text, given or ((fetch_weights(entry(text)),) if weights else ()))
    if path.is_dir() and is_run(path):
        run = read_config(run_config(path))
        newest = given or (run_checkpoint(path),)
        return Located(run.model, run_model_name(path), newest, run.decoder, run.teacher, folder=path)
    if path.is_dir():
        found = _saved(read_folder(path), path)
    elif path.suffix.lower() in (".yaml", ".yml"):
        run = read_config(path)
        own = given or ((Path(run.ckpt_path),) if run.ckpt_path else ())
        if weights and not own:
            raise CheckpointError(f"{text} names no weights (model.params.ckpt_path); give a checkpoint for it")
        found = Located(run.model, run.name, own)
    elif path.is_file():
        raise ConfigError(f"{text} is not a YAML file; give a checkpoint with the name or YAML file of its model")
    elif in_hub:
        folder = resolve_hub_repo(text, revision)
        found = _saved(read_folder(folder), folder)
    else:
        raise ConfigError(
            f"{shown(text)} is no model's name, YAML file, folder or Hub repository{near(text, models())}; "
            "`vidtok models` lists the names"
        )
    return found if not given else found._replace(weights=given, parts=())


def locate_decoder(decoder: str | PathLike[str], model: Located) -> Located | None:
    """The decoder that `decoder` names for `model`: a folder that has one, or the name of one that lies beside it.

    None for "full", the model's own. Raises `CheckpointError` if there is no such decoder.
    """
    text = fspath(decoder)
    if text == FULL:
        return None
    path = Path(text).expanduser()
    if path.is_dir():
        found = locate(path)
        if found.decoder is None:
            raise CheckpointError(
                f"{path} is a model, and has no decoder of its own for others; expected a folder that `vidtok distill` "
                "or `vidtok preview` wrote"
            )
        return found
    beside = decoder_at_hand(text, model.name, model.folder)
    if beside is not None:
        return _saved(read_folder(beside), beside)
    raise CheckpointError(
        f"{shown(text)} is neither a folder with a decoder nor the name of one that comes with {model.name}; "
        f"`vidtok distill {model.name} -o FOLDER` trains a fast one, and decoder FOLDER takes it"
    )


def _saved(saved: SavedModel, folder: Path) -> Located:
    return Located(saved.config, saved.name, saved.files, saved.decoder, saved.origin, saved.parts, folder)


def check_source(
    source: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    decoder: str | PathLike[str] | None = None,
    parts: str | None = None,
) -> None:
    """Raise the errors of `load` that show before PyTorch is loaded: names, configurations, missing or other files.

    Weights of a model by name are downloaded if they are not at hand. A Hub repository is left to `locate`.
    """
    text = fspath(source)
    if checkpoint is not None:
        check_kind(Path(checkpoint))
    apart = decoder is not None and fspath(decoder) != FULL
    with without_warnings():
        if not _is_in_hub(named_by_repo(text)):
            found = locate(source, checkpoint, weights=not (apart and parts == "decoder"))
            own = locate_decoder(decoder, found) if decoder is not None else None
            for path in (*found.weights, *(own.weights if own is not None else ())):
                check_kind(path)


def _is_in_hub(text: str) -> bool:
    return not Path(text).expanduser().exists() and text not in models() and _names_a_repo(text)


def _names_a_repo(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith((".yaml", ".yml"))
