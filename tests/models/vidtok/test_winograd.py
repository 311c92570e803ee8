"""Convolutions with fewer multiplications: exact as algebra, and equal to the plain ones in float32."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support import CAUSAL_MODELS, make_clip, small_model
from vidtok.models.vidtok import winograd
from vidtok.models.vidtok.temporal import CenteredConv, Taps, TemporalUpsample
from vidtok.models.vidtok.winograd import (
    DOUBLED_FRAMES,
    FRAME,
    PAIR_OF_FRAMES,
    Scheme,
    Workspace,
    convolve,
    single_frames,
    three_taps,
    toom_cook,
    upsampled,
)

ALWAYS = ("vidtok_kl_causal_488_4chn", "vidtok_fsq_causal_888_32768_v1_1", "vidtok_kl_noncausal_488_4chn")


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolve in this way whatever the size, so that small models show what large ones do."""
    monkeypatch.setattr(winograd, "SMALLEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "SMALLEST_FRAME", 1)


def along_an_axis(scheme: Scheme, inputs: Tensor, taps: Tensor) -> Tensor:
    a, g, b = (torch.tensor(m, dtype=torch.float64) for m in (scheme.a, scheme.g, scheme.b))
    return a @ ((g @ taps) * (b @ inputs))


def plain(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int = 1) -> Tensor:
    """The convolution of (T, H, W, C) in float64, as PyTorch does it; no padding over time."""
    if weight.dim() == 4:
        weight = weight.unsqueeze(2)
    out = F.conv3d(x.double().permute(3, 0, 1, 2), weight.double(), bias.double(), (stride, 1, 1), (0, 1, 1))
    return out.permute(1, 2, 3, 0)


def operands(
    frames: int, height: int, width: int, *, spatial: int = 2, channels: tuple[int, int] = (24, 40)
) -> list[Tensor]:
    inputs, outputs = channels
    generator = torch.Generator().manual_seed(frames + height + width)
    x = torch.randn(frames, height, width, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, *[3] * spatial, generator=generator) / (3 * inputs**0.5)
    return [x, weight, torch.randn(outputs, generator=generator)]


@pytest.mark.parametrize(
    ("scheme", "outputs", "taps"),
    [(three_taps(), 4, 3), (PAIR_OF_FRAMES, 2, 3), (toom_cook(4, 2, [0, 1, -1, Fraction(1, 2)]), 4, 2)],
)
def test_each_output_is_the_sum_of_its_taps(scheme: Scheme, outputs: int, taps: int) -> None:
    inputs, kernel = torch.randn(outputs + taps - 1, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    expected = inputs.unfold(0, taps, 1) @ kernel
    torch.testing.assert_close(along_an_axis(scheme, inputs, kernel), expected)
    assert scheme.products == outputs + taps - 1


@pytest.mark.parametrize(("scheme", "inputs", "first"), [(upsampled(), 6, 1), (DOUBLED_FRAMES, 2, 0)])
def test_repeated_inputs_cost_fewer_products(scheme: Scheme, inputs: int, first: int) -> None:
    values, kernel = torch.randn(inputs, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    twice = values.repeat_interleave(2)
    expected = (twice.unfold(0, 3, 1) @ kernel)[first : first + scheme.outputs]
    torch.testing.assert_close(along_an_axis(scheme, values, kernel), expected)
    assert scheme.products < 3 * scheme.outputs


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 outputs of 3 taps need 5 distinct points, not \[0, 1, 1, 2, 3\]"):
        toom_cook(4, 3, [0, 1, 1, 2, 3])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 21), st.integers(1, 21), st.booleans())
def test_any_size_equals_the_plain_convolution(frames: int, height: int, width: int, activate: bool) -> None:
    x, weight, bias = operands(frames, height, width)
    before = x.clone()
    expected = plain(F.silu(x) if activate else x, weight, bias)
    out = convolve(x, weight, bias, three_taps(), activate=activate)
    assert torch.equal(x, before)
    torch.testing.assert_close(out, expected.float(), atol=2e-5, rtol=0)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 2), st.integers(1, 13), st.integers(1, 13))
def test_upsampling_first_equals_the_two_steps(frames: int, height: int, width: int) -> None:
    x, weight, bias = operands(frames, height, width)
    larger = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
    out = convolve(x, weight, bias, upsampled())
    torch.testing.assert_close(out, plain(larger, weight, bias).float(), atol=4e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [3, 5, 6, 9])
@pytest.mark.usefixtures("everywhere")
def test_taps_over_time_equal_a_3d_convolution(frames: int, stride: int) -> None:
    x, weight, bias = operands(frames, 9, 12, spatial=3)
    taps = Taps(24, 40, spatial=True, stride=stride)
    taps.weight.data, taps.bias.data = weight, bias
    expected = plain(x, weight, bias, stride=stride).float()
    with torch.no_grad():
        torch.testing.assert_close(taps(x[None])[0], expected, atol=2e-5, rtol=0)
        both = taps(torch.stack([x, x.flip(0)]))
    torch.testing.assert_close(both[0], expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(both[1], plain(x.flip(0), weight, bias, stride=stride).float(), atol=2e-5, rtol=0)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = operands(7, 33, 30, spatial=3)
    whole = convolve(x, weight, bias, three_taps(), single_frames())
    monkeypatch.setattr(winograd, "_SLAB_BYTES", 1)
    monkeypatch.setattr(winograd, "_SLAB_TILES", 1)
    torch.testing.assert_close(convolve(x, weight, bias, three_taps(), single_frames()), whole, atol=1e-5, rtol=0)


def test_the_error_is_that_of_the_plain_convolution() -> None:
    x, weight, bias = operands(1, 32, 32, channels=(512, 64))
    exact = plain(x, weight, bias)
    images = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
    error = (convolve(x, weight, bias, three_taps()) - exact).abs()
    assert error.square().mean() < 9 * (images - exact).square().mean()
    assert error.max() < 1e-4


def test_memory_is_shared_within_a_workspace_and_let_go_after_it() -> None:
    x, weight, bias = operands(1, 8, 8)
    alone = convolve(x, weight, bias, three_taps())
    with Workspace() as workspace:
        first = workspace.take("window", 4, 4)
        assert workspace.take("window", 8).data_ptr() == first.data_ptr()
        assert workspace.take("window", 5, 4).shape == (5, 4)
        for _ in range(2):
            assert torch.equal(convolve(x, weight, bias, three_taps()), alone)
        with Workspace() as inner:
            assert Workspace.current() is inner
        assert Workspace.current() is workspace
    assert Workspace.current() is not workspace


def test_only_where_it_pays() -> None:
    frame, weight = torch.zeros(1, 32, 32, 128), torch.zeros(128, 128, 3, 3)
    with torch.enable_grad():
        assert not winograd.pays(frame, weight)
    with torch.no_grad():
        assert winograd.pays(frame, weight)
        assert winograd.pays(frame, torch.zeros(128, 128, 3, 3, 3))
        assert not winograd.pays(frame[:, :31], weight)
        assert not winograd.pays(frame, weight[:64])
        assert not winograd.pays(frame.bfloat16(), weight.bfloat16())
        assert not winograd.pays(frame.to("meta"), weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.pays(frame, weight)


@pytest.mark.parametrize("name", ALWAYS)
def test_models_give_what_they_give_otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the same model in float64, which never takes this way: float32's own rounding differs by processor."""
    model, exact = small_model(name), small_model(name, dtype=torch.float64)
    video = make_clip(1, 3, 17 if model.is_causal else 16, 40, 48)
    with torch.no_grad():
        z = model.encode(video, sample=False)
        monkeypatch.setattr(winograd, "SMALLEST_CHANNELS", 1)
        monkeypatch.setattr(winograd, "SMALLEST_FRAME", 1)
        torch.testing.assert_close(model.moments(video).double(), exact.moments(video.double()), atol=5e-5, rtol=0)
        torch.testing.assert_close(model.decode(z).double(), exact.decode(z.double()), atol=5e-5, rtol=0)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in CAUSAL_MODELS if name in ALWAYS])
@pytest.mark.usefixtures("everywhere")
def test_streams_give_what_the_whole_gives(name: str, step: int) -> None:
    model = small_model(name)
    video = make_clip(1, 3, 33, 32, 32)
    z = model.encode(video, sample=False)
    whole = model.decode(z)
    decoder = model.decode_stream()
    pieces = [decoder.push(piece) for piece in z.split(step, 2)]
    torch.testing.assert_close(torch.cat([*pieces, decoder.flush()], 2), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "both_sides"])
@pytest.mark.usefixtures("everywhere")
def test_doubling_frames_before_convolving_costs_three_products_for_two(padding: str) -> None:
    from vidtok.models.state import StreamState

    layer = TemporalUpsample(16, padding=padding)  # type: ignore[arg-type]
    x = torch.randn(1, 5, 8, 8, 16)
    conv = layer.conv if isinstance(layer.conv, CenteredConv) else layer.conv.conv
    twice = x[0].repeat_interleave(2, 0)
    padded = F.pad(twice, (0, 0, 0, 0, 0, 0, *((1, 1) if padding == "both_sides" else (2, 0))))
    share = torch.sigmoid(layer.mix_factor)
    expected = (share * twice + (1 - share) * plain(padded, conv.weight, conv.bias).float()).detach()
    layer.slot, layer.conv.slot = 0, 1
    with torch.no_grad():
        torch.testing.assert_close(layer(x, StreamState.whole())[0], expected, atol=2e-5, rtol=0)
        if padding == "zeros":
            state = StreamState()
            parts = [layer(part, state) for part in (x[:, :2], x[:, 2:3], x[:, 3:])]
            torch.testing.assert_close(torch.cat(parts, 1)[0], expected, atol=2e-5, rtol=0)


def test_frames_for_themselves_need_no_products_over_time() -> None:
    assert (FRAME.products, FRAME.inputs, FRAME.outputs) == (1, 1, 1)
