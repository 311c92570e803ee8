"""Hooks see what a layer returned, and layers that are hooked, wrapped, replaced or parametrized act, on every path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from support import make_clip
from tiny import FSQ_1_1, KL_1_0, KL_NONCAUSAL, tiny_model
from twin import SIDE, tiny_twin
from vidtok import Tokenizer
from vidtok.models.plain import is_plain
from vidtok.models.vidtok import winograd
from vidtok.models.vidtok.spatial import Conv2d, LayerNorm, Pointwise, Wrapped
from vidtok.models.vidtok.temporal import CausalConv, Taps

NAMES = [KL_1_0, FSQ_1_1, KL_NONCAUSAL]
CLOSE: Any = {"atol": 5e-5, "rtol": 0.0}


@pytest.fixture(params=["plain", "fewer products"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small models as they compute otherwise, and in the way of large ones."""
    if request.param != "plain":
        monkeypatch.setattr(winograd, "SMALLEST_CHANNELS", 1)
        monkeypatch.setattr(winograd, "SMALLEST_FRAME", 1)
    return str(request.param)


def video_for(model: Tokenizer) -> Tensor:
    return make_clip(1, 3, 9 if model.is_causal else 8, 16, 16)


def moments_and_video(model: Tokenizer, video: Tensor) -> tuple[Tensor, Tensor]:
    moments = model.moments(video)
    return moments, model.decode(0.1 * moments[:, : model.z_channels])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_hook_keeps_is_never_overwritten(name: str, path: str) -> None:
    model = tiny_model(name)
    video = video_for(model)
    with torch.no_grad():
        expected = moments_and_video(model, video)
    kept: list[tuple[str, Tensor, Tensor]] = []

    def keep(label: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            kept.extend((label, x, x.clone()) for x in (inputs[0], output))

        return hook

    for label, module in model.named_modules():
        if label.startswith(("encoder", "decoder")):
            module.register_forward_hook(keep(label))
    with torch.no_grad():
        hooked = moments_and_video(model, video)
    assert len({label for label, _, _ in kept}) > 60
    assert [label for label, now, then in kept if not torch.equal(now, then)] == []
    for got, value in zip(hooked, expected, strict=True):
        torch.testing.assert_close(got, value, **CLOSE)


@pytest.mark.parametrize("part", ["norm1", "conv2", "norm1.norm"])
def test_one_hook_is_enough(part: str) -> None:
    """What is kept of one layer alone stays, though those around it are as they were built."""
    model = tiny_model(FSQ_1_1)
    kept: list[tuple[Tensor, Tensor]] = []
    for block in (model.encoder.down[0].block[0], model.decoder.up_temporal[0].block[0]):  # type: ignore[union-attr, index]
        layer = block.get_submodule(part)  # type: ignore[union-attr]
        layer.register_forward_hook(lambda _, inputs, output: kept.append((output, output.clone())))
    with torch.no_grad():
        moments_and_video(model, video_for(model))
    assert len(kept) == 2
    assert all(torch.equal(now, then) for now, then in kept)


def test_hooks_on_all_modules_count() -> None:
    model = tiny_model(KL_1_0)
    kept: list[tuple[Tensor, Tensor]] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: kept.append((output, output.clone())) if isinstance(output, Tensor) else None
    )
    try:
        with torch.no_grad():
            model.moments(video_for(model))
    finally:
        handle.remove()
    assert len(kept) > 30
    assert all(torch.equal(now, then) for now, then in kept)


class Adapter(nn.Module):
    """A layer with a correction beside it that sees the layer's input."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor, *state: Any) -> Tensor:
        out: Tensor = self.base(x, *state)
        return out + 0.1 * x.mean() + 0.1 * out.roll(1, -1)


def wrap_all(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in kinds and not isinstance(module, Adapter):
                setattr(module, name, Adapter(child))


def hook_all(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    for module in model.modules():
        if type(module) in kinds:
            module.register_forward_hook(lambda _, inputs, output: 1.1 * output + 0.1 * inputs[0].mean())


def replace_forward(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    for module in model.modules():
        if type(module) in kinds:
            module.forward = lambda *given, _own=module.forward: 1.1 * _own(*given)  # type: ignore[method-assign]


class Shifted(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.05 * weight.roll(1, 0)


def parametrize_all(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    for module in list(model.modules()):
        if type(module) in kinds and hasattr(module, "weight"):
            parametrize.register_parametrization(module, "weight", Shifted())


CHANGES = [wrap_all, hook_all, replace_forward, parametrize_all]
KINDS = [(Conv2d,), (Taps,), (CausalConv,), (LayerNorm,), (Pointwise, Wrapped)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_layer_acts_with_gradients_and_without(change: Callable[..., None], path: str) -> None:
    name = FSQ_1_1 if path == "plain" else KL_1_0
    for kinds in KINDS:
        model = tiny_model(name)
        video = video_for(model)
        with torch.no_grad():
            before = moments_and_video(model, video)
        change(model, kinds)
        if change is parametrize_all and not any(map(parametrize.is_parametrized, model.modules())):
            continue
        with torch.enable_grad():
            with_gradients = moments_and_video(model, video)
        with torch.no_grad():
            without = moments_and_video(model, video)
        for old, one, other in zip(before, with_gradients, without, strict=True):
            torch.testing.assert_close(other, one.detach(), atol=2e-4, rtol=0)  # both round, large as the values are
            assert (old - other).abs().max() > 1e-3, kinds


def test_a_norm_that_is_taken_out_leaves_the_stream_alone() -> None:
    model = tiny_model(FSQ_1_1)
    block = model.encoder.down[0].block[0]  # type: ignore[union-attr, index]
    block.norm1 = nn.Identity()  # type: ignore[union-attr]
    video = video_for(model)
    with torch.enable_grad():
        expected = model.moments(video).detach()
    with torch.no_grad():
        torch.testing.assert_close(model.moments(video), expected, **CLOSE)


def test_a_layer_is_plain_until_something_is_done_to_it() -> None:
    conv = CausalConv(4, 4, spatial=True, padding="zeros")
    assert is_plain(conv)
    handle = conv.conv.register_forward_hook(lambda *_: None)
    assert not is_plain(conv)
    handle.remove()
    assert is_plain(conv)
    handle = conv.register_forward_pre_hook(lambda *_: None)
    assert not is_plain(conv)
    handle.remove()
    parametrize.register_parametrization(conv.conv, "weight", Shifted())
    assert not is_plain(conv)
    parametrize.remove_parametrizations(conv.conv, "weight")
    assert is_plain(conv)
    conv.compile(backend="eager")
    assert not is_plain(conv)
    assert not is_plain(nn.Identity())


class LowRank(nn.Module):
    """W + B A, B of zeros at first: LoRA (Hu et al., arXiv 2106.09685) of a weight (out, ...)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(0.1 * torch.randn(rank, weight[0].numel()))
        self.b = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


@pytest.mark.parametrize("name", [FSQ_1_1, KL_NONCAUSAL])
def test_a_decoder_fine_tuned_by_low_ranks_decodes_alike_everywhere(name: str, path: str) -> None:
    """The example of docs/module.md."""
    torch.manual_seed(0)
    model = tiny_model(name).requires_grad_(False)
    video = video_for(model)
    z = model.encode(video, sample=False)
    target = model.decode(z) + 0.2
    for layer in list(model.decoder.modules()):
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() > 1:
            parametrize.register_parametrization(layer, "weight", LowRank(weight, 4))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, 3e-3)
    losses = []
    for _ in range(8):
        with torch.enable_grad():
            loss = (model.decode(z) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    with torch.enable_grad():
        expected = model.decode(z).detach()
    with torch.no_grad():
        torch.testing.assert_close(model.decode(z), expected, **CLOSE)
        if model.is_causal:
            stream = model.decode_stream()
            streamed = torch.cat([*map(stream.push, z.split(1, 2)), stream.flush()], 2)
            torch.testing.assert_close(streamed, expected, **CLOSE)
    for layer in model.decoder.modules():
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    with torch.no_grad():
        torch.testing.assert_close(model.decode(z), expected, **CLOSE)
    assert model.state_dict().keys() == tiny_model(name).state_dict().keys()


READ_PAST = ["encoder.x_embedder.proj", "cont_emb.2", "up_motion.0", "up_motion.2"]
"""Layers of the second family whose weights are multiplied past their call."""


@pytest.mark.parametrize("layer", READ_PAST)
def test_layers_of_the_second_family_act_whatever_is_done_to_them(layer: str) -> None:
    video = make_clip(1, 3, 16, SIDE, SIDE)
    plain = tiny_twin()(video, sample=False)[1]
    kept: list[Tensor] = []
    looked_at = tiny_twin()
    looked_at.get_submodule(layer).register_forward_hook(lambda _, inputs, output: kept.append(output))
    torch.testing.assert_close(looked_at(video, sample=False)[1], plain, **CLOSE)
    assert kept
    parent, _, name = layer.rpartition(".")
    for change in CHANGES:
        model = tiny_twin()
        kinds = (type(model.get_submodule(layer)),)
        alone = nn.Module()
        alone.add_module(name, model.get_submodule(layer))
        change(alone, kinds)
        model.get_submodule(parent)._modules[name] = alone.get_submodule(name)
        with torch.enable_grad():
            expected = model(video, sample=False)[1].detach()
        found = model(video, sample=False)[1]
        torch.testing.assert_close(found, expected, **CLOSE)
        assert (found - plain).abs().max() > 1e-4, (layer, change)


def test_peft_adapts_linear_layers_of_the_second_family() -> None:
    """Adapters of `peft`, trained, act with gradients, without, and once they are merged into the weights."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = tiny_twin().requires_grad_(False)
    latent = model.encode(make_clip(1, 3, 16, SIDE, SIDE), sample=False)
    before = model.decode(latent)
    parts = ("decoder.blocks", "decoder.final_layer", "motion_emb", "up_motion", "cont_emb")
    layers = [name for name, layer in model.named_modules() if type(layer) is nn.Linear and name.startswith(parts)]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False), model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-2)
    losses = []
    with torch.enable_grad():
        for _ in range(4):
            loss = (model.decode(latent) - before - 0.2).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        expected = model.decode(latent).detach()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in trained)
    torch.testing.assert_close(model.decode(latent), expected, **CLOSE)
    for layer in model.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer.merge()
    torch.testing.assert_close(model.decode(latent), expected, **CLOSE)
