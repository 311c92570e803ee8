"""Optimisers and the clipping of gradients, of whole and of sharded parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vidtok.errors import ConfigError
from vidtok.training.config import TrainingConfig
from vidtok.training.muon import Muon
from vidtok.training.sharding import is_sharded, local

_KINDS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainingConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser that `settings` ask for. Raises `ConfigError` for Muon on sharded parameters."""
    parameters = list(parameters)
    if settings.optimizer == "muon" and any(map(is_sharded, parameters)):
        raise ConfigError(
            "model.params.optimizer_config asks for Muon, whose steps need whole matrices, and the strategy is FSDP, "
            "which shards them; use DDP, or torch.optim.AdamW"
        )
    # The tensors of a group are updated together, so they must be all sharded or all whole.
    groups = [[p for p in parameters if is_sharded(p) == sharded] for sharded in (False, True)]
    whole = [{"params": group} for group in groups if group]
    optimizer: torch.optim.Optimizer = _KINDS[settings.optimizer](whole, lr=learning_rate, **settings.optimizer_options)
    return optimizer


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scale the gradients down to a joint norm of at most `max_norm`; returns the norm they had, over all shards."""
    with_gradients = [p for p in parameters if p.grad is not None]
    if not with_gradients:
        return torch.zeros(())
    gradients = [local(p.grad) for p in with_gradients if p.grad is not None]
    squares = torch.stack(torch._foreach_norm(gradients)).float() ** 2
    total = squares.sum()
    sharded = [is_sharded(p) for p in with_gradients]
    if any(sharded):
        mask = torch.tensor(sharded, device=squares.device)
        of_shards = squares[mask].sum()
        dist.all_reduce(of_shards)
        total = squares[~mask].sum() + of_shards
    norm: Tensor = total.sqrt()
    if max_norm is not None:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
