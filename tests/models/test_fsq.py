"""Finite scalar quantization against golden figures, and its entropies against the direct form."""

from __future__ import annotations

from math import log, log1p, prod
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from vidtok.models import fsq
from vidtok.models.bottleneck import make_bottleneck
from vidtok.models.config import FSQConfig

pytestmark = pytest.mark.gradients

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses.safetensors")
LEVELS = {"fsq4": (8,) * 4, "fsq5": (8,) * 5, "fsq_odd": (7, 5, 5, 5, 5), "fsq_mixed": (8, 6, 5)}

level_sets = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


def golden_latent(levels: tuple[int, ...]) -> torch.Tensor:
    return GOLDEN["fsq_in"][:, : len(levels)].movedim(1, -1)


def direct_entropies(z: torch.Tensor, levels: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    codebook = fsq.indices_to_codes(torch.arange(prod(levels)), levels).double()
    p = torch.softmax(200 * z.double().reshape(-1, len(levels)) @ codebook.T, dim=-1)

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.clamp(min=1e-5).log()).sum(-1)

    return entropy(p).mean(), entropy(p.mean(0))


@pytest.mark.parametrize("name", LEVELS)
def test_codes_and_indices_agree_with_golden_figures(name: str) -> None:
    codes, indices = fsq.quantize(golden_latent(LEVELS[name]), LEVELS[name])
    torch.testing.assert_close(codes.movedim(-1, 1), GOLDEN[f"{name}/z"], atol=1e-4, rtol=0)
    assert indices.dtype == torch.int32
    assert torch.equal(indices, GOLDEN[f"{name}/indices"])


@pytest.mark.parametrize("step", [0, 500, 5000])
@pytest.mark.parametrize("name", ["fsq4", "fsq5"])
def test_auxiliary_loss_and_gradient_agree_with_golden_figures(name: str, step: int) -> None:
    levels = LEVELS[name]
    z = golden_latent(levels).clone().requires_grad_()
    loss = fsq.auxiliary_loss(z, fsq.quantize(z, levels)[0], levels, step)
    loss.backward()
    expected = GOLDEN[f"{name}/{step}/grad"].movedim(1, -1)
    torch.testing.assert_close(loss, GOLDEN[f"{name}/{step}/aux_loss"], rtol=1e-4, atol=0)
    assert z.grad is not None
    assert (z.grad - expected).abs().max() <= 1e-4 * expected.abs().max()


def indices_of(codes: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Indices (...), int32, of `codes` (..., C), digit by digit."""
    indices = torch.zeros(codes.shape[:-1], dtype=torch.int32)
    for channel in reversed(range(len(levels))):
        half = levels[channel] // 2
        indices = indices * levels[channel] + (codes[..., channel] * half).round().int() + half
    return indices


def test_every_index_of_the_largest_codebook_survives_the_way_through_codes() -> None:
    levels = (8,) * 6
    indices = torch.arange(8**6, dtype=torch.int32)
    codes = fsq.indices_to_codes(indices, levels)
    assert codes.dtype == torch.float32
    assert codes.min() == -1
    assert codes.max() == 0.75
    assert torch.equal(indices_of(codes, levels), indices)
    assert torch.equal(codes[1] - codes[0], torch.tensor([0.25, 0, 0, 0, 0, 0])), (
        "the first channel is not the lowest digit"
    )


@settings(deadline=None, max_examples=40)
@given(levels=level_sets, seed=st.integers(0, 2**31), scale=st.floats(0, 20))
def test_quantization_is_consistent_for_any_level_set(levels: tuple[int, ...], seed: int, scale: float) -> None:
    z = scale * torch.randn(64, len(levels), generator=torch.Generator().manual_seed(seed))
    codes, indices = fsq.quantize(z, levels)
    assert indices.min() >= 0
    assert indices.max() < prod(levels)
    assert torch.equal(fsq.indices_to_codes(indices, levels), codes)
    assert torch.equal(indices_of(codes, levels), indices)
    half_widths = torch.tensor([level // 2 for level in levels])
    assert ((codes - fsq.bound(z, levels) / half_widths).abs() * half_widths).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5), (4, 7, 2)])
def test_every_level_is_reached(levels: tuple[int, ...]) -> None:
    sweep = torch.linspace(-9, 9, 4001)[:, None].expand(-1, len(levels))
    for channel, level in enumerate(levels):
        digits = fsq.quantize(sweep, levels)[0][:, channel] * (level // 2)
        assert digits.unique().tolist() == list(range(-(level // 2), (level + 1) // 2))


def test_a_value_that_is_not_a_number_has_no_index() -> None:
    z = torch.zeros(2, 3, 5)
    z[0, 1, 4] = torch.nan
    z[1, 2] = torch.inf
    indices = fsq.quantize(z, [8, 8, 8, 8, 8])[1]
    assert indices[0, 1] == -1
    assert indices[1, 2] == 8**5 - 1
    assert int((indices < 0).sum()) == 1


def test_codes_carry_the_gradient_of_the_bound() -> None:
    levels = (8, 5)
    z = torch.randn(10, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    through_codes = torch.autograd.grad(fsq.quantize(z, levels)[0].sum(), z)[0]
    through_bound = torch.autograd.grad((fsq.bound(z, levels) / torch.tensor([4.0, 2.0])).sum(), z)[0]
    torch.testing.assert_close(through_codes, through_bound)


def test_autocast_and_half_precision_change_nothing() -> None:
    levels = (8, 8, 8)
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    codes, indices = fsq.quantize(z.float(), levels)
    loss = fsq.auxiliary_loss(z.float(), codes, levels, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_codes, half_indices = fsq.quantize(z, levels)
        half_loss = fsq.auxiliary_loss(z, half_codes, levels, 7)
    assert half_codes.dtype == half_loss.dtype == torch.float32
    assert torch.equal(half_codes, codes)
    assert torch.equal(half_indices, indices)
    assert torch.equal(half_loss, loss)


def test_shapes_can_be_had_without_memory() -> None:
    codes, indices = fsq.quantize(torch.empty(2, 3, 5, device="meta"), (8,) * 5)
    assert codes.shape == (2, 3, 5)
    assert indices.shape == (2, 3)


@settings(deadline=None, max_examples=40)
@given(levels=level_sets, seed=st.integers(0, 2**31), scale=st.sampled_from([3e-4, 1e-3, 0.01, 0.1, 1.0, 100.0]))
def test_entropies_and_gradients_equal_the_direct_form(levels: tuple[int, ...], seed: int, scale: float) -> None:
    z = scale * torch.randn(24, len(levels), generator=torch.Generator().manual_seed(seed))
    z.requires_grad_()
    expected, actual = direct_entropies(z, levels), fsq.entropies(z, levels)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
        gradient, reference = (torch.autograd.grad(value, z, retain_graph=True)[0] for value in (one, other))
        # Logits are 200 z: what float32 can resolve of them bounds what its gradient can.
        assert (gradient - reference).abs().max() <= 1e-4 * reference.abs().max() + 1e-4


def test_probabilities_below_the_floor_count_as_the_floor() -> None:
    per_token, of_mean = fsq.entropies(torch.zeros(3, 6), (8,) * 6)
    torch.testing.assert_close(per_token, torch.tensor(-log(1e-5)))
    torch.testing.assert_close(of_mean, torch.tensor(-log(1e-5)))


def test_chunks_of_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z = 0.02 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    results = []
    for elements in (2**22, 64 * 7):
        monkeypatch.setattr(fsq, "_CHUNK_ELEMENTS", elements)
        leaf = z.clone().requires_grad_()
        per_token, of_mean = fsq.entropies(leaf, (8, 8, 8, 8))
        (per_token - of_mean).backward()
        results.append((per_token.detach(), of_mean.detach(), leaf.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the largest storage that any operation gives, in bytes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.untyped_storage().nbytes())
        return result


def test_memory_stays_bounded_for_the_largest_codebook() -> None:
    z = (0.05 * torch.randn(5120, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    with LargestTensor() as largest:
        codes, _ = fsq.quantize(z, (8,) * 6)
        fsq.auxiliary_loss(z, codes, (8,) * 6, 0).backward()
    assert 0 < largest.size <= 64 * 2**20


@pytest.mark.parametrize("levels", [(8, 8), (8, 5, 4)])
def test_spread_is_zero_for_uniform_independent_codes_and_grows_with_what_is_not(levels: tuple[int, ...]) -> None:
    uniform = torch.rand(200_000, len(levels), generator=torch.Generator().manual_seed(0)) * 2 - 1
    half = torch.tensor([(level - 1) / 2 * 1.001 for level in levels])
    shift = torch.atanh(torch.tensor([(1 - level % 2) / 2 for level in levels]) / half)
    best = torch.atanh(uniform) - shift
    counts = torch.bincount(fsq.quantize(best, levels)[1], minlength=prod(levels))
    assert float(fsq.spread_loss(best, levels)) < 1e-3
    assert counts.min() > 0, "what has no loss does not use all codes"
    assert float(fsq.spread_loss(torch.zeros_like(best) - shift, levels)) == pytest.approx(1, rel=0.01), "one code"
    # By integrating over the shares of the distributions.
    channels = len(levels)
    narrow = torch.atanh(0.3 * uniform) - shift
    assert float(fsq.spread_loss(narrow, levels)) == pytest.approx(0.7**2, rel=0.01), "idle outer levels"
    corners = (1 + 2 * (2**0.5 - 1) * (channels - 1)) / channels
    assert float(fsq.spread_loss(uniform * 1e4 - shift, levels)) == pytest.approx(corners, rel=0.01), (
        "idle inner levels"
    )
    same, alike = best[:, :1].expand_as(best) + shift[:1] - shift, 0.6 * (channels - 1) / channels
    assert float(fsq.spread_loss(same, levels)) == pytest.approx(alike, rel=0.01), "one for all"
    signs = (torch.rand(len(best), len(levels), generator=torch.Generator().manual_seed(1)) < 0.5) * 2.0 - 1
    together = torch.atanh(uniform[:, :1] * signs) - shift
    assert float(fsq.spread_loss(together, levels)) > 0.01, "large together, though uniform and uncorrelated"


def test_spread_can_be_descended_from_a_collapsed_code() -> None:
    drawn = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    weight, bias = (0.1 * torch.eye(5) + 0.3).requires_grad_(), torch.zeros(5, requires_grad=True)
    before = fsq.quantize(drawn @ weight, (8,) * 5)[1].unique().numel()
    optimizer = torch.optim.Adam([weight, bias], lr=0.02)
    for _ in range(200):
        loss = fsq.spread_loss(drawn @ weight + bias, (8,) * 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01
    assert fsq.quantize(drawn @ weight + bias, (8,) * 5)[1].unique().numel() > 4 * before


@pytest.mark.parametrize(("step", "expected"), [(0, 0.3), (500, 0.25), (1000, 0.2), (2000, 0.1), (5000, 0.1)])
def test_entropy_weight_falls_linearly(step: int, expected: float) -> None:
    assert fsq.entropy_weight(step, 0.1, 2000, 3.0) == pytest.approx(expected)
    assert fsq.entropy_weight(step, 0.1, 0, 3.0) == 0.1


def test_loss_without_entropy_is_the_commitment_alone() -> None:
    z = torch.tensor([[0.1, 0.9]])
    codes = torch.tensor([[0.0, 0.5]])
    loss = fsq.auxiliary_loss(z, codes, (8, 8), 0, entropy_loss_weight=0.0, commitment_loss_weight=0.5)
    torch.testing.assert_close(loss, torch.tensor(0.5 * (0.01 + 0.16) / 2))


def _entropies_of_a_rank(rank: int, folder: str, z: torch.Tensor, levels: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    leaf = z.chunk(2)[rank].clone().requires_grad_()
    codes, _ = fsq.quantize(leaf, levels)
    loss = fsq.auxiliary_loss(leaf, codes, levels, 100) + fsq.spread_loss(leaf, levels)
    loss.backward()
    assert leaf.grad is not None
    apart = fsq.auxiliary_loss(leaf.detach(), codes, levels, 100, across_ranks=False)
    uneven = fsq.spread_loss(z.split([25, 15])[rank], levels)
    torch.save((loss.detach(), leaf.grad, apart, uneven), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_with_all_tokens(tmp_path: Path) -> None:
    levels = (8, 5, 4)
    z = 0.05 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    mp.spawn(_entropies_of_a_rank, args=(str(tmp_path), z, levels), nprocs=2)
    losses, gradients, apart, uneven = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    leaf = z.clone().requires_grad_()
    whole = fsq.auxiliary_loss(leaf, fsq.quantize(leaf, levels)[0], levels, 100) + fsq.spread_loss(leaf, levels)
    whole.backward()
    torch.testing.assert_close(torch.stack(losses).mean(), whole.detach())
    torch.testing.assert_close(torch.stack(uneven), fsq.spread_loss(z, levels).expand(2))
    # Data parallelism averages gradients over the ranks.
    torch.testing.assert_close(torch.cat(gradients) / 2, leaf.grad, rtol=1e-4, atol=1e-6)
    for alone, half in zip(apart, z.chunk(2), strict=True):
        torch.testing.assert_close(alone, fsq.auxiliary_loss(half, fsq.quantize(half, levels)[0], levels, 100))


def _latent_of(bounded: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """What is bounded to `bounded` (..., C), values in -1..1 of the width of its channel."""
    half = torch.tensor([(level - 1) / 2 * 1.001 for level in levels])
    return torch.atanh(bounded) - torch.atanh(torch.tensor([(1 - level % 2) / 2 for level in levels]) / half)


def test_crowding_is_at_chance_for_uniform_codes_and_largest_for_equal_ones() -> None:
    levels = (4, 3)
    uniform = torch.rand(1, 1, 64, 64, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert float(fsq.crowding_loss(_latent_of(uniform, levels), levels)) == pytest.approx(log(2), abs=0.06)
    # By integrating exp(-d^2 / 2) over two values between 0 and 6, and between 0 and 4, half levels.
    chance = 0.36222 * 0.50166
    alike = _latent_of(torch.zeros(1, 2, 4, 4, 2), levels)
    assert float(fsq.crowding_loss(alike, levels)) == pytest.approx(log1p(1 / chance), rel=1e-3)


def test_crowding_is_that_of_a_clip_over_places_and_time() -> None:
    levels = (8,) * 5
    corners = torch.tensor([[0.9] * 5, [-0.9] * 5])
    apart = _latent_of(corners.view(1, 1, 1, 2, 5).expand(3, 1, 1, 2, 5), levels)
    assert float(fsq.crowding_loss(apart, levels)) < 1e-3, "equal between clips alone"
    assert float(fsq.crowding_loss(apart.transpose(1, 3), levels)) < 1e-3, "one place, two times"
    assert float(fsq.crowding_loss(apart.repeat(1, 2, 1, 1, 1), levels)) > 5, "what is at a place is there later"
    assert float(fsq.crowding_loss(apart[:, :, :, :1], levels)) == 0, "there is one token only"


def test_crowding_drives_what_changes_at_a_place_apart_and_leaves_what_does_not() -> None:
    z = torch.zeros(2, 4, 1, 1, 5)
    z[1] += 1e-2 * torch.randn(4, 1, 1, 5, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(fsq.crowding_loss(z.requires_grad_(), (8,) * 5), z)
    still, changing = gradient
    assert float(still.abs().max()) < 1e-6
    before = z.detach()[1].view(4, 5)
    after = before - 1e-3 * changing.view(4, 5) / changing.abs().max()
    assert float(torch.pdist(after).mean()) > float(torch.pdist(before).mean())


def test_crowding_drives_equal_tokens_apart() -> None:
    z = (1e-3 * torch.randn(1, 2, 6, 6, 5, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = fsq.quantize(z, (8,) * 5)[1].unique().numel()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = fsq.crowding_loss(z, (8,) * 5)
        loss.backward()
        optimizer.step()
    assert fsq.quantize(z, (8,) * 5)[1].unique().numel() > max(50, 2 * before)
    assert loss < log(2)


def test_crowding_of_many_tokens_is_found_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whole = fsq.crowding_loss(z, (8,) * 5)
    (gradient,) = torch.autograd.grad(whole, z)
    monkeypatch.setattr(fsq, "_CHUNK_ELEMENTS", 2 * 60 * 7)
    pieces = fsq.crowding_loss(z, (8,) * 5)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, z)[0], gradient)


def test_the_bottleneck_computes_the_losses_that_are_wanted_alone() -> None:
    levels = (8,) * 5
    bottleneck = make_bottleneck(FSQConfig(levels=levels)).train()
    moments = torch.randn(2, 5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert set(bottleneck(moments)[1]) == {"indices", "aux_loss"}, "as published, where nobody says"
    bottleneck.want(["kl_loss", "spread_loss", "crowding_loss"])
    log = bottleneck(moments)[1]
    assert set(log) == {"indices", "spread_loss", "crowding_loss"}
    assert torch.equal(log["spread_loss"], fsq.spread_loss(moments.movedim(1, -1), levels))
    assert torch.equal(log["crowding_loss"], fsq.crowding_loss(moments.movedim(1, -1), levels))
    assert set(bottleneck.eval()(moments)[1]) == {"indices"}
