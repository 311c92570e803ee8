"""Moving averages of weights, under the names that the published checkpoints give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidtok.training.sharding import local

_SLOWEST_START = 10
"""The n-th update moves the average by at least 9 / (10 + n), so that it soon forgets the initial weights."""


class MovingAverages(nn.Module):
    """Averages of the given parameters: one buffer each, under the parameter's name without its dots.

    As `model_ema` of a training module, they and `decay` and `num_updates` are the `model_ema.*` section of a
    checkpoint.
    """

    decay: Tensor
    num_updates: Tensor

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        super().__init__()
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0, dtype=torch.int64))
        self._parameters_by_name: dict[str, nn.Parameter] = {}
        for name, parameter in parameters:
            plain = name.replace(".", "")
            self._parameters_by_name[plain] = parameter
            self.register_buffer(plain, parameter.detach().clone())
        # Kept as numbers, so that an update waits for no device.
        self._limit, self._count = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters' present values."""
        self._count += 1
        self.num_updates += 1
        share = 1 - min(self._limit, (1 + self._count) / (_SLOWEST_START + self._count))
        torch._foreach_lerp_(self._averages(), self._values(), share)

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from the parameters' present values."""
        self._count = 0
        self.num_updates.zero_()
        torch._foreach_copy_(self._averages(), self._values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the averages' values inside the block."""
        with torch.no_grad():
            parameters = self._values()
            before = [p.clone() for p in parameters]
            torch._foreach_copy_(parameters, self._averages())
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)

    def _averages(self) -> list[Tensor]:
        return [local(self.get_buffer(name)) for name in self._parameters_by_name]

    def _values(self) -> list[Tensor]:
        return [local(parameter.detach()) for parameter in self._parameters_by_name.values()]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._count = int(self.num_updates)
