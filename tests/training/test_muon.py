"""Muon: orthogonal steps for matrices, Adam's for the rest, and how a configuration asks for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from vidtok.errors import ConfigError
from vidtok.training.config import TrainingConfig, optimizer_options
from vidtok.training.muon import Muon, orthogonalize
from vidtok.training.optimization import make_optimizer


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_orthogonalizing_keeps_the_singular_vectors_and_evens_out_the_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    values = (u.T @ orthogonalize(matrix).float() @ vh.T).diagonal()
    assert values.min() > 0.55
    assert values.max() < 1.35


@pytest.mark.parametrize(("shape", "norm"), [((16, 16, 3, 3), 1.0), ((64, 16), 2.0)])
def test_a_step_changes_wide_and_narrow_weights_by_one_spectral_norm(shape: tuple[int, ...], norm: float) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 1e-4
    Muon([weight], lr=0.01).step()
    assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(0.01 * norm, rel=0.25)


@pytest.mark.parametrize("shape", [(7,), (3, 16, 3, 3, 3), (16, 3)])
def test_vectors_and_what_meets_colours_take_adams_steps(shape: tuple[int, ...]) -> None:
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    muon = Muon([ours], lr=0.1, adam_factor=0.1, betas=(0.9, 0.99))
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("shape", "axis"), [((3,), 0), ((3, 16, 3, 3, 3), 0), ((16, 3, 3, 3), 1)])
def test_opponent_colours_are_adams_own_axes(shape: tuple[int, ...], axis: int) -> None:
    generator = torch.Generator().manual_seed(6)
    spread, magenta = torch.rand(shape, generator=generator) + 0.5, torch.tensor([-1.0, 2.0, -1.0]) / 6**0.5
    weight = nn.Parameter(torch.zeros(shape))
    muon = Muon([weight], lr=0.1, adam_factor=0.1, opponent_colours=True)
    for _ in range(3):  # nearly grey: less than a thousandth of the gradient is green against magenta
        grey = spread.select(axis, 0).unsqueeze(axis)
        weight.grad = grey + 1e-4 * (magenta * grey.movedim(axis, -1)).movedim(-1, axis)
        with torch.autocast("cpu", torch.bfloat16):
            muon.step()
    along = torch.tensordot(weight.detach(), magenta, dims=([axis], [0]))
    torch.testing.assert_close(along, torch.full_like(along, -0.03), rtol=0.02, atol=0)


@pytest.mark.gradients
def test_a_saved_state_goes_on_as_if_never_saved() -> None:
    def steps(net: nn.Module, muon: Muon, seeds: range) -> None:
        for seed in seeds:
            x = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
            muon.zero_grad()
            (net(x) - x).square().mean().backward()
            muon.step()

    torch.manual_seed(0)
    net = nn.Linear(16, 16)
    muon = Muon(net.parameters(), lr=0.05)
    steps(net, muon, range(3))
    other = copy.deepcopy(net)
    resumed = Muon(other.parameters(), lr=1.0)
    resumed.load_state_dict(copy.deepcopy(muon.state_dict()))
    steps(net, muon, range(3, 6))
    steps(other, resumed, range(3, 6))
    assert torch.equal(net.weight, other.weight)
    assert torch.equal(net.bias, other.bias)


@pytest.mark.parametrize("missing", [["opponent_colours"], ["opponent_colours", "keep_norm"]])
def test_a_state_of_before_an_option_goes_on_as_it_was(missing: list[str]) -> None:
    weights = [nn.Parameter(torch.eye(16)) for _ in range(2)]
    before, after = Muon(weights[:1], relative=True, keep_norm=True), Muon(weights[1:], opponent_colours=True)
    for weight in weights:
        weight.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(7))
    before.step()
    weights[1].data.copy_(weights[0].data)
    saved = copy.deepcopy(before.state_dict())
    for name in missing:
        del saved["param_groups"][0][name]
    after.load_state_dict(saved)
    before.step()
    after.step()
    assert torch.equal(*weights)
    assert not after.param_groups[0]["opponent_colours"]


@pytest.mark.gradients
def test_it_learns_a_badly_scaled_map() -> None:
    torch.manual_seed(0)
    scales = torch.logspace(0, -2, 16)
    x = torch.randn(256, 16) * scales
    wanted = x @ torch.randn(16, 16)
    weight = nn.Parameter(torch.zeros(16, 16))
    muon = Muon([weight], lr=0.1)
    start = float(wanted.square().mean())
    for _ in range(200):
        muon.zero_grad()
        loss = (x @ weight.T - wanted).square().mean()
        loss.backward()
        muon.step()
    assert loss.item() < 0.02 * start


def test_weight_decay_shrinks_matrices_alone() -> None:
    weight, bias = nn.Parameter(torch.ones(16, 16)), nn.Parameter(torch.ones(16))
    for parameter in (weight, bias):
        parameter.grad = torch.zeros_like(parameter)
    Muon([weight, bias], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.full((16, 16), 0.95))
    assert torch.equal(bias, torch.ones(16))


@pytest.mark.parametrize("keep_norm", [False, True])
def test_relative_steps_turn_every_matrix_alike(keep_norm: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    small = torch.randn(16, 40, generator=generator) * 1e-3
    weights = [nn.Parameter(small.clone()), nn.Parameter(small * 4096.0)]
    muon = Muon(weights, lr=0.02, relative=True, keep_norm=keep_norm)
    for _ in range(5):
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
        muon.step()
        for weight, start in zip(weights, before, strict=True):
            turned = float((weight - start).norm() / start.norm())
            assert turned == pytest.approx(0.02, rel=0.05 if keep_norm else 1e-4)
            if keep_norm:
                torch.testing.assert_close(weight.norm(), start.norm())
    torch.testing.assert_close(weights[1], weights[0] * 4096.0)


def test_relative_steps_can_shrink_and_grow_a_matrix() -> None:
    weights = [nn.Parameter(torch.eye(16)), nn.Parameter(torch.eye(16))]
    muon = Muon(weights, lr=0.02, relative=True)
    for _ in range(10):
        weights[0].grad, weights[1].grad = torch.eye(16), -torch.eye(16)
        muon.step()
    torch.testing.assert_close(weights[0].detach(), torch.eye(16) * 0.98**10)
    torch.testing.assert_close(weights[1].detach(), torch.eye(16) * 1.02**10)


def test_relative_steps_leave_zeros_free_to_grow_and_what_has_no_gradient_alone() -> None:
    zeros, still = nn.Parameter(torch.zeros(16, 16)), nn.Parameter(torch.ones(16, 16))
    zeros.grad, still.grad = torch.eye(16), torch.zeros(16, 16)
    Muon([zeros, still], lr=0.1, relative=True).step()
    assert zeros.norm() > 0.1
    torch.testing.assert_close(still.detach(), torch.ones(16, 16))


def test_a_configuration_asks_for_it_by_name() -> None:
    kind, options = optimizer_options(
        {"target": "vidtok.training.muon.Muon", "params": {"momentum": 0.9, "betas": [0.9, 0.95]}}
    )
    settings = TrainingConfig(base_learning_rate=1e-3, optimizer=kind, optimizer_options=options)
    muon = make_optimizer([nn.Parameter(torch.zeros(2, 2))], settings, 1e-3)
    assert isinstance(muon, Muon)
    assert muon.defaults["momentum"] == 0.9
    assert muon.defaults["betas"] == (0.9, 0.95)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"momentum": 1.0}, r"optimizer_config\.params\.momentum is 1\.0; expected a number from 0 to less than 1"),
        ({"opponent_colours": 1}, r"optimizer_config\.params\.opponent_colours is 1; expected true or false"),
        ({"keep_norm": "yes"}, r"optimizer_config\.params\.keep_norm is 'yes'; expected true or false"),
        ({"relative": 1}, r"optimizer_config\.params\.relative is 1; expected true or false"),
        ({"amsgrad": True}, r"optimizer_config\.params\.amsgrad is not known"),
    ],
)
def test_options_that_it_cannot_take_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizer_options({"target": "vidtok.training.muon.Muon", "params": params})


def test_sharded_parameters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtok.training.optimization.is_sharded", lambda parameter: True)
    settings = TrainingConfig(base_learning_rate=1e-3, optimizer="muon")
    with pytest.raises(ConfigError, match="Muon, whose steps need whole matrices, and the strategy is FSDP"):
        make_optimizer([nn.Parameter(torch.zeros(2, 2))], settings, 1e-3)
