"""Models as folders of two files, `config.json` and `model.safetensors`; a Hub repository holds the same two.

The weights may lie in two files, `encoder.safetensors` and `decoder.safetensors`, so that either can be fetched and
loaded alone. `config.json` then lists them under `files`. It may hold `decoder`, the configuration of a decoder in
place of the family's, and `origin`, the identity of the model whose latents these are. `vidtok distill` writes a folder
that has a decoder alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vidtok.config.families import FAMILIES
from vidtok.errors import CheckpointError, ConfigError
from vidtok.fields import fit, plain, shown
from vidtok.files import aside, save_tensors
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.config import DecoderConfig, decoder_from_dict
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.text import reason
from vidtok.zoo import diffusers_format
from vidtok.zoo.hub import FOLDER_FILES
from vidtok.zoo.latents import KEYS, LatentScale, scale_of, text_of, write_scale

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
PART_FILES = {"encoder": "encoder.safetensors", "decoder": "decoder.safetensors"}
"""Files of weights of a model that is saved in parts."""

_CONFIG_FILE, _WEIGHTS_FILE = FOLDER_FILES
_BESIDE = ("files", "decoder", "origin")
"""Keys of `config.json` beside header and configuration, where there is something to say."""
_MAX_CONFIG_BYTES = 1 << 20


class SavedModel(NamedTuple):
    """A model in a folder, before its weights are read."""

    config: ModelConfig
    name: str
    files: tuple[Path, ...]
    """Its files of weights."""
    decoder: DecoderConfig | None = None
    """The decoder that it has in place of its family's."""
    origin: Mapping[str, str] | None = None
    """Identity of the model whose latents these are, if it is noted."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have files of their own; empty if one file has all weights."""
        return tuple(part for part, file in PART_FILES.items() if file in [path.name for path in self.files])


def save_folder(
    folder: str | PathLike[str], config: ModelConfig, state: Mapping[str, Tensor] | Mapping[str, Mapping[str, Tensor]],
    name: str, latents: LatentScale | None = None, *, decoder: DecoderConfig | None = None,
    origin: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write the model of `config` with the weights `state` to `folder`, made if missing, and return the folder.

    `state` may have the weights of the parts "encoder" and "decoder", or of one of them, for a file each. `latents` are
    the statistics of the model's latents, where they are known. All files are written aside and renamed when whole;
    other files in the folder stay. Raises `CheckpointError` if the folder cannot be written.
    """
    apart = {PART_FILES[part]: weights for part, weights in state.items() if isinstance(weights, Mapping)}
    files: Mapping[str, Any] = apart or {_WEIGHTS_FILE: state}
    said = {"files": list(apart), "decoder": plain(decoder), "origin": origin and dict(origin)}
    values = _header(config.family, name) | {key: value for key, value in said.items() if value} | config.to_dict()
    values |= {} if latents is None else latents.to_dict()
    return _write_folder(folder, files, text_of(values))


def save_diffusers_folder(folder: str | PathLike[str], config: ModelConfig, state: Mapping[str, Tensor]) -> Path:
    """Write the model as a folder that diffusers' `AutoencoderVidTok.from_pretrained` reads, and return the folder.

    It is written as by `save_folder`. Raises `ConfigError` if that class has no such model.
    """
    if not isinstance(config, AutoencoderConfig):
        raise ConfigError(f"the model is of the family {config.family}; {diffusers_format.CLASS_NAME} has vidtok alone")
    values = {"_class_name": diffusers_format.CLASS_NAME, **diffusers_format.to_diffusers(config)}
    return _write_folder(folder, {diffusers_format.WEIGHTS_FILE: state}, json.dumps(values, indent=2) + "\n")


def _write_folder(folder: str | PathLike[str], files: Mapping[str, Any], config: str) -> Path:
    """Write files of weights and the text `config` to `folder`, all of them or none, and return the folder."""
    folder = Path(os.path.abspath(folder))
    problem = f"the model cannot be saved to {folder}"
    with aside(folder, CheckpointError, folder=True, sync=True, problem=problem) as new:
        if folder.exists() and not folder.is_dir():
            raise CheckpointError(f"{folder} is a file; expected a folder to save the model in")
        for file, weights in files.items():
            _write_weights(new / file, weights)
        (new / _CONFIG_FILE).write_text(config, encoding="utf-8")
    return folder


def read_folder(folder: str | PathLike[str]) -> SavedModel:
    """The model in a folder of `save_folder`.

    A folder of diffusers' `AutoencoderVidTok`, or of `vidtok.interop.vae.VidTokVAE`, is read too.

    Raises `CheckpointError` if the folder holds no model that this package wrote, and `ConfigError` if its
    configuration is not valid.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; expected one with {_CONFIG_FILE} and {_WEIGHTS_FILE}")
    path = folder / _CONFIG_FILE
    apart = [file for file in PART_FILES.values() if (folder / file).is_file()]
    missing = [file for file in FOLDER_FILES if not (folder / file).is_file()]
    if missing == [_WEIGHTS_FILE] and (folder / diffusers_format.WEIGHTS_FILE).is_file():
        return _read_diffusers(folder)
    if missing and not (apart and path.is_file()):
        raise CheckpointError(
            f"the folder {folder} has no {' and no '.join(missing)}; expected a model that `save_pretrained` wrote, "
            f"with {_CONFIG_FILE} and {_WEIGHTS_FILE}"
        )
    values = _read_json(path)
    name = _check_header(values, path)
    files = _weight_files(values, folder)
    try:
        from_dict = FAMILIES[values["model_type"]].from_dict
        config = from_dict(
            {key: value for key, value in values.items() if key not in {*_header("", ""), *_BESIDE, *KEYS}}
        )
        decoder = decoder_from_dict(values["decoder"]) if "decoder" in values else None
        origin = fit(values["origin"], Mapping[str, str], "origin") if "origin" in values else None
        if decoder is not None:
            decoder.check_latent(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return SavedModel(config, name, files, decoder, origin)


def _weight_files(values: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """The files of weights that `values` list, as far as they are in `folder`: a part may have been left out."""
    listed = values.get("files", [_WEIGHTS_FILE])
    if (
        not isinstance(listed, list)
        or not listed
        or any(name not in (_WEIGHTS_FILE, *PART_FILES.values()) for name in listed)
    ):
        raise CheckpointError(
            f"{folder / _CONFIG_FILE} has files {shown(listed)}; expected some of {', '.join(PART_FILES.values())}"
        )
    found = tuple(folder / name for name in listed if (folder / name).is_file())
    if not found:
        raise CheckpointError(f"the folder {folder} has no {' and no '.join(listed)}, its weights; fetch them again")
    return found


def _read_diffusers(folder: Path) -> SavedModel:
    path = folder / _CONFIG_FILE
    try:
        config, name = diffusers_format.model_of(_read_json(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return SavedModel(config, name or folder.resolve().name, (folder / diffusers_format.WEIGHTS_FILE,))


def read_latents(config: ModelConfig, weights: str | PathLike[str]) -> LatentScale | None:
    """Statistics of the latents of the model of `config` whose folder holds the file `weights`; None if there are none.

    Raises `CheckpointError` if they are malformed.
    """
    path = Path(weights).with_name(_CONFIG_FILE)
    if Path(weights).name not in (_WEIGHTS_FILE, *PART_FILES.values()) or not path.is_file():
        return None
    return scale_of(_read_json(path), config.z_channels, path)


def write_latents(folder: str | PathLike[str], latents: LatentScale | None) -> Path:
    """Put `latents` into the `config.json` of the model in `folder`, or take them out, and return the file.

    Raises `CheckpointError` if `folder` holds no model of this package, or cannot be written.
    """
    path = Path(folder) / _CONFIG_FILE
    if read_folder(folder).files[0].name == diffusers_format.WEIGHTS_FILE:
        raise CheckpointError(
            f"{folder} is a folder of diffusers; `vidtok export {folder} OTHER` makes one of this package"
        )
    write_scale(path, _read_json(path), latents)
    return path


def _header(family: str, name: str) -> dict[str, Any]:
    return {"model_type": family, "format_version": FORMAT_VERSION, "name": name}


def _check_header(values: Mapping[str, Any], path: Path) -> str:
    """The model's name. Raises `CheckpointError` if another package or a later version of this one wrote the file."""
    family = values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(
            f"{path} has model_type {shown(family)}; "
            f"expected {' or '.join(map(repr, FAMILIES))}, as `save_pretrained` writes it"
        )
    version = values.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {shown(version)}; this version of the package reads up to {FORMAT_VERSION} "
            "(a newer one may read it: `pip install --upgrade vidtok`)"
        )
    name = values.get("name")
    if not isinstance(name, str):
        raise CheckpointError(f"{path} has name {shown(name)}; expected the model's name")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} holds {path.stat().st_size} bytes; a model's configuration is a short file")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not valid JSON: {reason(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; expected a model's configuration")
    return values


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError

    # The format wants each tensor contiguous and in memory of its own.
    seen: set[int] = set()
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.numel() * value.element_size():
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        weights[name] = value
    try:
        save_tensors(path, weights, {"format": "pt"})
    except SafetensorError as error:
        raise CheckpointError(f"the weights cannot be saved to {path.parent}: {error}") from error
