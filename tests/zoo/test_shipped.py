"""The small models that come with the package: whole, small, and better than no model."""

from __future__ import annotations

import pytest
import torch

import vidtok
from vidtok.config.read import read_config
from vidtok.config.registry import SHIPPED, package_folder
from vidtok.metrics.image import psnr
from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.tokens import model_identity
from vidtok.zoo.folder import read_folder

KL, FSQ = SHIPPED


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """Two procedural clips, (2, 3, 17, 96, 96) in -1..1."""
    return synthetic_batch(SyntheticConfig(frames=17, height=96, width=96), seed=5, indices=range(2), device="cpu")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_files_are_whole_small_and_of_the_model_that_the_configuration_describes(name: str) -> None:
    folder = package_folder() / "zoo" / "weights" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20_000_000
    config, stored_name, *_ = read_folder(folder)
    assert (config, stored_name) == (read_config(name).model, name)
    assert name in (folder / "README.md").read_text()
    model = vidtok.load(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert vidtok.load(folder).config == model.config


def test_the_continuous_model_reconstructs(video: torch.Tensor) -> None:
    _, reconstruction, _ = vidtok.load(KL)(video, sample=False)
    assert psnr(reconstruction.clamp(-1, 1), video).mean() > 30


@pytest.mark.parametrize("colour", [(0.4, -0.6, -0.6), (-0.4, 0.6, -0.4), (-0.5, -0.3, 0.5), (0.6, 0.5, -0.5)])
def test_the_continuous_model_has_strong_colours(colour: tuple[float, float, float]) -> None:
    flat = torch.tensor(colour).view(1, 3, 1, 1, 1).expand(1, 3, 9, 64, 64)
    _, reconstruction, _ = vidtok.load(KL)(flat, sample=False)
    assert (reconstruction - flat).mean((0, 2, 3, 4)).abs().max() < 0.1


@pytest.mark.parametrize("name", SHIPPED)
def test_float16_is_enough_to_compute_with(name: str, video: torch.Tensor) -> None:
    clip = video[:1, :, :9, :64, :64]
    whole, half = vidtok.load(name), vidtok.load(name, dtype=torch.float16)
    latent = whole.encode(clip, sample=False)
    torch.testing.assert_close(half.decode(latent.half()).float(), whole.decode(latent), rtol=0, atol=0.05)
    assert half.encode(clip.half(), sample=False).isfinite().all()


def test_the_discrete_model_reconstructs_from_its_tokens(video: torch.Tensor) -> None:
    model = vidtok.load(FSQ)
    _, log = model.encode(video, return_reg_log=True)
    tokens = log["indices"]
    reconstruction = model.decode(tokens, decode_from_indices=True)
    assert psnr(reconstruction.clamp(-1, 1), video).mean() > 26
    assert tokens.unique().numel() > 0.75 * tokens.numel()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_statistics_of_the_latents_are_of_these_weights(name: str, video: torch.Tensor) -> None:
    model = vidtok.load(name)
    command = f"run `vidtok stats {name} synthetic --write` after a change of the weights"
    assert model.latents is not None, command
    assert model.latents.statistics["weights"] == model_identity(model).signs, command
    normal = model.normalize(model.encode(video, sample=False))
    assert normal.mean().abs() < 0.5
    assert 0.4 < normal.std() < 1.6
