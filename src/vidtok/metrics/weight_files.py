"""Files of weights that others published, read as data only."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from vidtok.errors import VidTokError

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")


def read_weights(file: Path, error_class: type[VidTokError]) -> Mapping[str, object]:
    """The content of `file`, by name; one level down where a checkpoint keeps it under `state_dict`.

    No code in it is run; where the format allows, tensors are loaded only when they are used. Raises `error_class` if
    it cannot be read, or holds something else.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=_can_be_mapped(file))
    except Exception as error:  # a damaged or foreign file can make its reader fail in any way
        said = "" if isinstance(error, LookupError) else str(error).strip()
        # Not repeated: PyTorch's advice to load a refused file unsafely, and messages that are a bare number.
        useful = re.search("[a-z]", said) and not isinstance(error, pickle.UnpicklingError)
        reason = said.splitlines()[0] if useful else "it holds something else, or is damaged"
        raise error_class(
            f"{file} cannot be read as weights ({reason}); expected a .safetensors file, or a PyTorch file of tensors "
            "alone. Fetch it again, or name another"
        ) from error
    nested = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(nested, Mapping):
        raise error_class(f"{file} holds a {type(content).__name__}; expected a mapping of names to tensors")
    return nested


def _can_be_mapped(file: Path) -> bool:
    """True for an archive of uncompressed records: PyTorch would map deflated ones too."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def torch_folder() -> Path:
    """The folder of weights that PyTorch fetched: `TORCH_HOME`, or the user's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def from_environment(variable: str) -> list[Path] | None:
    """The paths that an environment variable names, separated as in PATH; None if it names none."""
    paths = [Path(part).expanduser() for part in os.environ.get(variable, "").split(os.pathsep) if part]
    return paths or None
