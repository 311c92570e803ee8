"""Residual streams made of order one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import vidtok
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from vidtok.cli import main
from vidtok.models.vidtok.spatial import SpatialDownsample, SpatialUpsample


def with_huge_streams(name: str) -> vidtok.Tokenizer:
    model = tiny_model(name)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SpatialDownsample | SpatialUpsample):
                module.conv.weight.mul_(1000)
    return model


def streams(model: vidtok.Tokenizer, video: Tensor, latent: Tensor) -> list[float]:
    """The root mean square of the stream behind each resampling in space."""
    found: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: found.append(float(out.square().mean().sqrt())))
        for module in model.modules()
        if isinstance(module, SpatialDownsample | SpatialUpsample)
    ]
    model.encoder(video)
    model.decoder(latent)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1, KL_NONCAUSAL])
def test_huge_streams_become_small_and_outputs_stay(name: str) -> None:
    model = with_huge_streams(name)
    frames = 8 + model.is_causal
    video = torch.rand(1, 3, frames, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = model.encode(video, sample=False)
    moments, out = model.encoder(video), model.decoder(latent)
    assert max(streams(model, video, latent)) > 1e5
    model.rescale(video)
    assert all(0.5 < size < 2 for size in streams(model, video, latent))
    torch.testing.assert_close(model.encoder(video), moments, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.decoder(latent), out, rtol=1e-3, atol=1e-3)


def test_float16_is_enough_then() -> None:
    model = with_huge_streams(KL_1_1)
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = model.decode(model.encode(video, sample=False))
    assert not model.half().decode(model.encode(video.half(), sample=False)).isfinite().all()
    model = with_huge_streams(KL_1_1)
    model.rescale(video)
    half = model.half().decode(model.encode(video.half(), sample=False)).float()
    torch.testing.assert_close(half, out, rtol=0.02, atol=0.02)


def test_export_rescales(tmp_path: Path) -> None:
    with_huge_streams(KL_1_1).save_pretrained(tmp_path / "huge")
    before = vidtok.load(tmp_path / "huge")
    assert main(["export", str(tmp_path / "huge"), str(tmp_path / "small"), "--rescale", "--dtype", "float16"]) == 0
    after = vidtok.load(tmp_path / "small")
    latent = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(after.decode(latent), before.decode(latent), rtol=0.02, atol=0.02)
    assert after.half().decode(latent.half()).isfinite().all()
