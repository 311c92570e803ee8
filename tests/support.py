"""What many tests share: deterministic stand-in weights and small models of every configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from golden.weights import clip, stand_in
from vidtok import AutoencoderConfig, Tokenizer
from vidtok.config.read import read_config
from vidtok.config.registry import SHIPPED, models

TESTS = Path(__file__).parent
ALL_MODELS = [name for name in models("vidtok") if name not in SHIPPED]
CAUSAL_MODELS = [name for name in ALL_MODELS if "_causal_" in name]
_SAMPLE = {
    "vidtok_kl_causal_288_8chn_v1_1",
    "vidtok_kl_causal_444_4chn",
    "vidtok_kl_causal_41616_4chn",
    "vidtok_kl_causal_488_4chn",
    "vidtok_fsq_causal_41616_262144_v1_1",
    "vidtok_fsq_causal_488_4096",
    "vidtok_fsq_causal_488_32768_v1_1",
    "vidtok_fsq_causal_888_32768_v1_1",
}
CAUSAL_SAMPLE = [name if name in _SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in CAUSAL_MODELS]
"""All causal models, of which those that differ from another in channels alone are left to the slow tests."""


def small_config(name: str, **changes: Any) -> AutoencoderConfig:
    """The configuration of `name` with few channels."""
    return dataclasses.replace(read_config(name).model, **{"ch": 8, **changes})


def fill(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter of `model` its stand-in value."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(stand_in(name, tuple(parameter.shape), seed)))


def small_model(name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Tokenizer:
    """A small model of the configuration `name` with stand-in weights, ready to encode."""
    model = Tokenizer(small_config(name, **changes), name=name).eval()
    fill(model)
    return model.to(dtype)


def make_clip(*shape: int, name: str = "clip", seed: int = 0) -> torch.Tensor:
    """A test clip of `shape` (B, C, T, H, W) in -1..1."""
    return torch.from_numpy(clip(name, shape, seed))
