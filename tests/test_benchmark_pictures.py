"""The benchmark of pictures: its colours, and its figures of a model that is nearly the identity."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from support import make_clip
from vidtok import AutoencoderConfig, Tokenizer


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("pictures")


def test_the_colours_are_saturated_ones_and_greys(pictures: ModuleType) -> None:
    found = (pictures.colours() + 1) / 2
    assert len({tuple(colour) for colour in found.tolist()}) == 64
    assert (found[:48].amin(1) == 0).all()
    assert (found[48:] == found[48:, :1]).all()
    assert (float(found[48].max()), float(found[63].min())) == (0, 1)


def test_a_wrong_patch_is_found_and_its_border_does_not_count(pictures: ModuleType) -> None:
    clip = pictures.patches(2, 8)
    assert clip.shape == (1, 3, 2, 64, 64)
    assert pictures.colour_errors(clip, 8).max() < 1e-3
    clip[:, 1, :, 9:15, 17:23] += 20 / 127.5  # row 1, column 2, but for a pixel of its border
    clip[:, :, :, 0] = 0
    errors = pictures.colour_errors(clip, 8)
    assert errors[10] == pytest.approx(20, abs=1e-3)
    assert errors.sum() == pytest.approx(20, abs=1e-3)


def test_figures_of_a_model_that_keeps_colours(pictures: ModuleType) -> None:
    values = {"z_channels": 16, "ch": 8, "ch_mult": (1, 1, 1), "num_res_blocks": 1, "patch_size": 2}
    model = Tokenizer(AutoencoderConfig.from_dict({**values, "block_transform": True})).eval()
    videos = {"flat": torch.full((1, 3, 5, 16, 16), 0.25), "busy": make_clip(1, 3, 5, 16, 16)}
    found = pictures.figures(model, videos, None)
    assert found["colours"]["largest"] < 0.1
    assert found["videos"]["flat"]["psnr"] > 70
    assert found["means"]["psnr"] == pytest.approx(sum(each["psnr"] for each in found["videos"].values()) / 2)
