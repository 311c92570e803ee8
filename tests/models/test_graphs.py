"""Encoding and decoding as one graph: `torch.compile(fullgraph=True)` and `torch.export`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from support import make_clip, small_model
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from twin import SIDE, tiny_twin
from vidtok import Tokenizer, VidTwin

CLOSE: Any = {"atol": 5e-5, "rtol": 0.0}


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Encode(nn.Module):
    """A model's `encode` as a module: the latent, and the tokens where there are some."""

    def __init__(self, model: Tokenizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        z, log = self.model.encode(video, True, sample=False)
        return (z, log["indices"]) if "indices" in log else (z,)


class Decode(nn.Module):
    """A model's `decode` as a module, from latents or from tokens."""

    def __init__(self, model: Tokenizer, from_indices: bool = False) -> None:
        super().__init__()
        self.model = model
        self.from_indices = from_indices

    def forward(self, z: Tensor) -> Tensor:
        return self.model.decode(z, self.from_indices)


def clip_for(model: Tokenizer) -> Tensor:
    return make_clip(1, 3, model.temporal_factor + int(model.is_causal), 16, 16)


def compare(model: Tokenizer, through: Callable[[nn.Module, Tensor], Any]) -> None:
    """Assert that `through(module, input)` gives what the module gives, of encode, decode and decode from tokens."""
    video = clip_for(model)
    given = Encode(model)(video)
    for got, expected in zip(through(Encode(model), video), given, strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)
    video = model.decode(given[0])
    for z, from_indices in zip(given, (False, True), strict=False):
        torch.testing.assert_close(through(Decode(model, from_indices), z), video, **CLOSE)


def compiled(module: nn.Module, x: Tensor) -> Any:
    return torch.compile(module, backend="eager", fullgraph=True)(x)


def exported(module: nn.Module, x: Tensor) -> Any:
    return torch.export.export(module, (x,)).module()(x)


def least(name: str) -> Tokenizer:
    """A model of the variant `name` with two levels, of factor 2 each way, as graphs take long to make."""
    levels = {"spatial_ds": (0,), "spatial_us": (1,), "tempo_ds": (0,), "tempo_us": (1,)}
    return small_model(name, ch_mult=(1, 1), num_res_blocks=1, **levels)


def test_encode_is_one_graph() -> None:
    model = least(FSQ_1_1)
    video = clip_for(model)
    for got, expected in zip(compiled(Encode(model), video), Encode(model)(video), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("through", [compiled, exported])
def test_decode_from_tokens_is_one_graph(through: Callable[[nn.Module, Tensor], Any]) -> None:
    model = least(FSQ_1_1)
    _, indices = Encode(model)(clip_for(model))
    torch.testing.assert_close(through(Decode(model, True), indices), model.decode(indices, True), **CLOSE)


@pytest.mark.slow
@pytest.mark.gradients
def test_encode_is_one_graph_with_gradients_too() -> None:
    model = tiny_model(FSQ_1_1)
    video = clip_for(model)
    compiled(Encode(model), video)[0].square().mean().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("through", [compiled, exported])
@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1, KL_NONCAUSAL])
def test_every_variant_is_one_graph_each_way(name: str, through: Callable[[nn.Module, Tensor], Any]) -> None:
    compare(tiny_model(name), through)


@pytest.mark.slow
@pytest.mark.parametrize("through", [compiled, exported])
def test_clips_padded_in_front_are_one_graph_each_way(through: Callable[[nn.Module, Tensor], Any]) -> None:
    compare(tiny_model(KL_1_1).with_padding("front"), through)


class Twin(nn.Module):
    """Both ways through the second family, whose latent has parts."""

    def __init__(self, model: VidTwin) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        latent = self.model.encode(video, sample=False)
        return *cast("tuple[Tensor, ...]", latent), self.model.decode(latent)


@pytest.mark.slow
@pytest.mark.parametrize("through", [compiled, exported])
def test_the_second_family_is_one_graph(through: Callable[[nn.Module, Tensor], Any]) -> None:
    model = Twin(tiny_twin())
    video = make_clip(1, 3, 16, SIDE, SIDE)
    for got, expected in zip(through(model, video), model(video), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)
