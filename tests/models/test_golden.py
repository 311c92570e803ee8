"""Agreement with figures measured on the published implementation (see docs/compatibility.md)."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from support import ALL_MODELS, TESTS, fill, make_clip
from vidtok import Tokenizer
from vidtok.config.read import read_config
from vidtok.models import fsq
from vidtok.models.config import FSQConfig

FILES = sorted((TESTS / "golden" / "models").glob("*.safetensors"))
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


def read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def build(path: Path, metadata: dict[str, str]) -> tuple[Tokenizer, torch.Tensor]:
    config = read_config(path.stem.removesuffix("-groupnorm")).model
    config = dataclasses.replace(config, ch=int(metadata["width"]), norm_type=metadata["norm_type"])
    dtype = getattr(torch, metadata.get("dtype", "float32"))
    model = Tokenizer(config).eval()
    fill(model, int(metadata["seed"]))
    return model.to(dtype), make_clip(*json.loads(metadata["clip"]), seed=int(metadata["seed"])).to(dtype)


def differing_indices(model: Tokenizer, moments: torch.Tensor, indices: torch.Tensor, golden: torch.Tensor) -> int:
    """How many indices differ though their bounded value is further than 1e-3 from a rounding boundary."""
    assert isinstance(model.config.bottleneck, FSQConfig)
    bounded = fsq.bound(moments.permute(0, 2, 3, 4, 1), model.config.bottleneck.levels)
    undecided = ((bounded - bounded.floor() - 0.5).abs() < 1e-3).any(-1)
    return int(((indices != golden) & ~undecided).sum())


def test_every_model_has_a_golden_file() -> None:
    assert {path.stem.removesuffix("-groupnorm") for path in FILES} == set(ALL_MODELS)
    assert len(FILES) == 26


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_agrees_with_golden_file(path: Path) -> None:
    metadata, golden = read(path)
    agree = partial(torch.testing.assert_close, atol=TOLERANCES[golden["moments"].dtype], rtol=0)
    model, video = build(path, metadata)
    moments = model.moments(video)
    agree(moments, golden["moments"])
    z, log = model.encode(video, return_reg_log=True, sample=False)
    size = tuple(video.shape[2:])
    if "indices" in golden:
        assert differing_indices(model, moments, log["indices"], golden["indices"]) == 0
        agree(model.decode(golden["indices"], decode_from_indices=True, size=size), golden["recon"])
    if "kl_loss" in golden:
        torch.testing.assert_close(log["kl_loss"], golden["kl_loss"], atol=0, rtol=1e-5)
    agree(z, golden["z"])
    agree(model.decode(golden["z"], size=size), golden["recon"])
