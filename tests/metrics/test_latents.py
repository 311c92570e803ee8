from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vidtok.metrics.latents import MOST_COVARIANCES, LatentStatistics


def latent(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 100


def test_figures_are_those_of_all_positions_together() -> None:
    statistics = LatentStatistics(4)
    pieces = [latent(1, 4, frames, 5, 6, seed=frames) for frames in (1, 3, 2)]
    for piece in pieces:
        statistics.update(piece, variance=piece.square())
    statistics.update(latent(1, 4, 0, 5, 6))
    rows = torch.cat(pieces, 2).double().movedim(1, -1).reshape(-1, 4).numpy()
    figures = statistics.result()
    assert figures.positions == len(rows) == 180
    np.testing.assert_allclose(figures.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(figures.std, rows.std(0), rtol=1e-10)
    np.testing.assert_allclose(figures.covariance or (), np.cov(rows.T, bias=True), atol=1e-10)
    np.testing.assert_allclose(figures.posterior_std or (), np.sqrt(np.square(rows).mean(0)), rtol=1e-6)
    assert (figures.low, figures.high) == (tuple(rows.min(0)), tuple(rows.max(0)))
    assert figures.codebook is None


def test_parts_merge_to_the_whole_also_through_json() -> None:
    whole, first, second = (LatentStatistics(3, 64) for _ in range(3))
    for seed in range(6):
        z, tokens = latent(1, 3, 2, 4, 4, seed=seed), torch.randint(0, 64, (1, 2, 4, 4))
        whole.update(z, z.abs(), tokens)
        (first if seed < 2 else second).update(z, z.abs(), tokens)
    merged = LatentStatistics.from_state(json.loads(json.dumps(first.state())))
    merged.merge(LatentStatistics(3, 64))
    merged.merge(LatentStatistics.from_state(json.loads(json.dumps(second.state()))))
    one, other = whole.result(), merged.result()
    for name in ("mean", "std", "low", "high", "covariance", "posterior_std"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9)
    assert (one.codebook, one.positions) == (other.codebook, other.positions)


def test_a_constant_channel_divides_by_one() -> None:
    statistics = LatentStatistics(2)
    statistics.update(torch.stack([torch.full((2, 2, 2), 0.1), torch.arange(8.0).view(2, 2, 2)])[None])
    assert statistics.result().std == (1.0, pytest.approx(np.arange(8).std()))


def test_many_channels_have_variances_alone() -> None:
    statistics = LatentStatistics(MOST_COVARIANCES + 1)
    z = latent(1, MOST_COVARIANCES + 1, 3, 1, 1)
    statistics.update(z[:, :, :1])
    statistics.update(z[:, :, 1:])
    figures = statistics.result()
    assert figures.covariance is None
    np.testing.assert_allclose(figures.std, z[0, :, :, 0, 0].double().numpy().std(1), rtol=1e-9)


def test_other_latents_do_not_merge() -> None:
    with pytest.raises(ValueError, match="do not merge"):
        LatentStatistics(3).merge(LatentStatistics(4))
    with pytest.raises(ValueError, match="do not merge"):
        LatentStatistics(3, 64).merge(LatentStatistics(3))
    with pytest.raises(ValueError, match="expected \\(B, 3, T', H', W'\\)"):
        LatentStatistics(3).update(latent(1, 4, 1, 1, 1))
    with pytest.raises(ValueError, match="no latents were counted"):
        LatentStatistics(3).result()


@pytest.mark.parametrize(
    "change", [{"mean": [1.0]}, {"mean": None}, {"squares": "x"}, {"channels": "x"}, {"variance": [1.0, float("nan")]}]
)
def test_damaged_states_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        LatentStatistics.from_state(LatentStatistics(2).state() | change)
    state = LatentStatistics(2).state()
    del state["squares"]
    with pytest.raises(ValueError, match="no statistics of latents"):
        LatentStatistics.from_state(state)
