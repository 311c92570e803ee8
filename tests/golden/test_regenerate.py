"""The script that measures the golden files, on a stand-in for the published implementation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import vidtok
from support import TESTS
from vidtok.config.read import show

GOLDEN = TESTS / "golden"
CONFIGS = {
    "vidtok_fsq_causal_488_32768_v1_1": "vidtok_v1_1",
    "vidtok_fsq_noncausal_41616_262144": ".",
    "vidtok_kl_causal_488_8chn": ".",
}
FILES = [*CONFIGS, "vidtok_fsq_causal_488_32768_v1_1-groupnorm"]

PACKAGE = f"""
__path__.append({str(Path(vidtok.__file__).parent)!r})
"""
MODELS = f"""
__path__.append({str(Path(vidtok.__file__).parent / "models")!r})
"""
ENGINE = '''
import torch

from vidtok.config.vidtok import autoencoder_config
from vidtok.models.vidtok.autoencoder import VideoAutoencoder


class AutoencodingEngine(VideoAutoencoder):
    """This project's model behind the original's calls: clips padded in front, and frames that stand for that."""

    def __init__(self, *, encoder_config, decoder_config, regularizer_config, loss_config, **others):
        assert loss_config["target"] == "torch.nn.Identity" and others["ckpt_path"] is None
        parts = {"encoder_config": encoder_config, "decoder_config": decoder_config}
        params = {**parts, "regularizer_config": regularizer_config}
        super().__init__(autoencoder_config({"model": {"target": f"{__name__}.AutoencodingEngine", "params": params}}))
        self.copies = self.config.temporal_factor - 1 if __name__.endswith("v1_1") else 0

    def encode(self, video, return_reg_log=False):
        assert video.shape[2] % self.config.temporal_factor == (1 if self.is_causal and not self.copies else 0)
        assert all(torch.equal(video[:, :, i], video[:, :, self.copies]) for i in range(self.copies))
        z, log = self.regularization(self.moments(video[:, :, self.copies :]))
        return (z, log) if return_reg_log else z

    def decode(self, z):
        video = super().decode(z)
        return torch.cat([torch.zeros_like(video[:, :, :1])] * self.copies + [video], dim=2)
'''
EVALUATE = """
import importlib

from omegaconf import OmegaConf


def load_model_from_config(config, ckpt, ignore_keys=[], verbose=False):
    values = OmegaConf.load(config)
    values.model.params.ckpt_path = ckpt
    values = OmegaConf.to_container(values, resolve=True)
    module, _, name = values["model"]["target"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**values["model"]["params"])
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the original's module paths and configurations, which computes with this project's models."""
    root = tmp_path_factory.mktemp("original")
    files = {
        "vidtok/__init__.py": PACKAGE,
        "vidtok/models/__init__.py": MODELS,
        "vidtok/models/autoencoder.py": ENGINE,
        "vidtok/models/autoencoder_v1_1.py": ENGINE,
        "scripts/__init__.py": "",
        "scripts/inference_evaluate.py": EVALUATE,
        **{f"configs/{folder}/{name}.yaml": show(name) for name, folder in CONFIGS.items()},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def regenerate(original: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GOLDEN / "regenerate.py"), "--original", str(original), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def shapes(text: str) -> dict[str, dict[str, list[int]]]:
    """Names and shapes by model, of the text of a file of them."""
    known = json.loads(text)
    return {name: {**known["layouts"][m["layout"]], **m["shapes"]} for name, m in known["models"].items()}


@pytest.mark.slow
def test_a_stand_in_gives_the_files_that_are_committed(original: Path, tmp_path: Path) -> None:
    finished = regenerate(original, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.stem for path in (tmp_path / "models").iterdir()) == sorted(FILES)
    for name in FILES:
        metadata, tensors = read(tmp_path / "models" / f"{name}.safetensors")
        expected_metadata, expected = read(GOLDEN / "models" / f"{name}.safetensors")
        assert metadata == expected_metadata
        assert tensors.keys() == expected.keys()
        for key, value in expected.items():
            bound = 1e-6 if value.dtype == torch.float64 else 1e-4
            torch.testing.assert_close(tensors[key], value, atol=bound, rtol=1e-5 if key == "kl_loss" else 0)
    made, known = (shapes((folder / "state_dict" / "vidtok.json").read_text()) for folder in (tmp_path, GOLDEN))
    assert made == {name: known[name] for name in CONFIGS}


def test_the_committed_names_and_shapes_are_as_the_script_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GOLDEN)
    from regenerate import layouts

    text = (GOLDEN / "state_dict" / "vidtok.json").read_text()
    assert layouts(shapes(text)) == text


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    finished = regenerate(tmp_path, tmp_path / "output")
    assert finished.returncode == 1
    assert (
        finished.stderr
        == f"{tmp_path}/configs holds no vidtok_*.yaml; expected a checkout of the original at --original\n"
    )
    assert not (tmp_path / "output").exists()


def test_another_package_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vidtok_kl_causal_488_4chn.yaml").write_text("")
    finished = regenerate(tmp_path, tmp_path / "output")
    assert finished.returncode == 1
    assert finished.stderr.startswith("`import vidtok` gives ")
    assert finished.stderr.endswith(f"expected the package in {tmp_path}\n")
