"""Optimisers and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidtok.training.settings import TrainingSettings


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainingSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser that `settings` ask for."""
    kind: type[torch.optim.Adam] = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(list(parameters), lr=learning_rate, **settings.optimizer_options)


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scale the gradients down to a joint norm of at most `max_norm` and return the norm they had."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
    if max_norm is not None:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
