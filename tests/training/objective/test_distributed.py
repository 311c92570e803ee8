"""The objective on two ranks equals the objective on one process with all clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.losses import Objective

pytestmark = pytest.mark.gradients


def make() -> tuple[Objective, nn.Conv3d]:
    torch.manual_seed(0)
    config = ObjectiveConfig(perceptual_weight=0.0, disc_start=0)
    # BatchNorm's statistics are each rank's own; with those of the running averages the ranks can be compared.
    objective = Objective(config).train()
    objective.discriminator.eval()
    return objective, nn.Conv3d(3, 3, 1)


def clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs, target = (torch.rand(2, 3, 2, 24, 24, generator=generator) * 2 - 1 for _ in range(2))
    inputs[1] *= 3  # so that the ranks' adaptive weights would differ
    return inputs, target


def step(inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    objective, layer = make()
    reconstruction = layer(inputs)
    loss, log = objective({}, target, reconstruction, 0, 0, layer.weight)
    loss.backward()
    _, adversary_log = objective({}, target, reconstruction, 1, 1)
    assert layer.weight.grad is not None
    assert objective.lecam is not None
    return {
        "d_weight": log["train/d_weight"],
        "total_loss": log["train/total_loss"],
        "gradient": layer.weight.grad,
        "average": objective.lecam.real_average,
        "disc_loss": adversary_log["train/disc_loss"],
    }


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    inputs, target = clips()
    torch.save(step(inputs[rank, None], target[rank, None]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_with_all_clips(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    whole = step(*clips())
    for name in ("d_weight", "average"):
        torch.testing.assert_close(first[name], whole[name], rtol=1e-4, atol=0)
        torch.testing.assert_close(second[name], whole[name], rtol=1e-4, atol=0)
    for name in ("total_loss", "gradient"):
        torch.testing.assert_close((first[name] + second[name]) / 2, whole[name], rtol=1e-4, atol=1e-4)
