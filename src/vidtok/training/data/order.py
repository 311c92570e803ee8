"""Clips of each batch, and the position of training among them: pure arithmetic, without data.

The order follows from the seed, the epoch, the rank, the number of ranks and the batch size alone. All ranks together
take successive stretches of one sequence, so that two ranks with batches of B see the same clips in a step as one
with 2 B.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from vidtok.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """One clip of a batch, with all that a worker needs to make it."""

    epoch: int
    position: int
    """Place in the epoch's sequence, all ranks' clips counted."""
    item: int
    """Number of the video or synthetic clip."""


@dataclass(frozen=True)
class Ranks:
    """The split of a step's clips among the processes that train together."""

    batch_size: int
    """Clips of each rank in a step."""
    rank: int = 0
    world_size: int = 1

    @property
    def clips(self) -> int:
        """Clips of all ranks in a step."""
        return self.batch_size * self.world_size


def this_process() -> tuple[int, int]:
    """(rank, world size) from `torch.distributed` if it is initialised, else from RANK and WORLD_SIZE."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Order(Protocol):
    """Batches of one rank, by number."""

    def __len__(self) -> int:
        """The number of batches in an epoch; the same on every rank."""

    def batch(self, number: int) -> list[Place]:
        """The clips of batch `number`."""


class TrainingOrder:
    """Endless batches, counted on through the epochs; an epoch is a pass over `count` clips.

    Clips left over at the end of an epoch, too few for a step of all ranks, are not used in it. With fewer clips than
    one step takes, an epoch is one step, in which clips come more than once.

    Args:
        count: number of videos, or the number of clips of an endless sequence that count as an epoch.
        ranks: the processes that share each step.
        seed: seed of the order of videos.
        shuffle: True: items are the numbers 0..count-1, in another order each epoch; False: they are 0, 1, 2, ...
            without end.
    """

    def __init__(self, count: int, ranks: Ranks, seed: int, *, shuffle: bool) -> None:
        self.count = count
        self.ranks = ranks
        self.seed = seed
        self._shuffle = shuffle
        self._shuffled: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return max(1, self.count // self.ranks.clips)

    def batch(self, number: int) -> list[Place]:
        epoch, step = divmod(number, len(self))
        first = step * self.ranks.clips + self.ranks.rank * self.ranks.batch_size
        positions = range(first, first + self.ranks.batch_size)
        if not self._shuffle:
            before = epoch * len(self) * self.ranks.clips
            return [Place(epoch, position, before + position) for position in positions]
        order = self._permutation(epoch)
        return [Place(epoch, position, int(order[position % self.count])) for position in positions]

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._shuffled[1]


class EvaluationOrder:
    """Each of `count` items once, in turn, over all ranks; the last batches may be smaller.

    Every rank has the same number of batches, with at least one clip in each, as collective operations need: if the
    last clips are fewer than the ranks, the ranks without one take item 0 once more.
    """

    def __init__(self, count: int, ranks: Ranks) -> None:
        self.count = count
        self.ranks = ranks

    def __len__(self) -> int:
        return -(-self.count // self.ranks.clips)

    def batch(self, number: int) -> list[Place]:
        first = number * self.ranks.clips
        left = min(self.ranks.clips, self.count - first)
        if left == self.ranks.clips:
            first += self.ranks.rank * self.ranks.batch_size
            positions = range(first, first + self.ranks.batch_size)
        else:
            positions = range(first + self.ranks.rank, first + left, self.ranks.world_size)
        return [Place(0, position, position) for position in positions] or [Place(0, first + self.ranks.rank, 0)]


class Position:
    """Number of batches that the trainer has finished; workers may have loaded more.

    Its state is plain numbers. A state can be loaded before the order is known; it then takes effect in `attach`.
    """

    def __init__(self) -> None:
        self.batches = 0
        """Batches done since the start of training, over all epochs."""
        self._order: TrainingOrder | None = None
        self._loaded: dict[str, int] = {}

    def attach(self, order: TrainingOrder) -> None:
        """Count in batches of `order` from now on, from the place in a loaded state or in the order before."""
        state = self.state_dict()
        self._order = order
        if state:
            self.load_state_dict(state)

    def mark_batch_done(self) -> None:
        """Count one more batch that was trained on."""
        self.batches += 1

    def state_dict(self) -> dict[str, int]:
        """The epoch, the batches done in it, and the values that the order of clips depends on."""
        if self._order is None:
            return dict(self._loaded)
        epoch, batches = divmod(self.batches, len(self._order))
        return {"epoch": epoch, "batches": batches, **self._settings(self._order)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, or as near to it as an order that has changed since allows.

        Raises `ConfigError` if `state` is not the state of a position.
        """
        wanted = ("epoch", "batches", "batch_size", "world_size", "clips", "seed")
        if not state or any(not isinstance(state.get(key), int) for key in wanted):
            raise ConfigError(
                f"the place in the training data is {dict(state)!r}; expected whole numbers for {', '.join(wanted)}; "
                "the checkpoint was not written by this training: start from its weights (model.params.ckpt_path)"
            )
        self._loaded = {key: int(state[key]) for key in wanted}
        if self._order is None:
            return
        now = self._settings(self._order)
        batches = self._loaded["batches"]
        changed = [f"{key} {self._loaded[key]} -> {now[key]}" for key in now if self._loaded[key] != now[key]]
        if changed:
            log.warning(
                "training data goes on in another order than before, since these changed: %s", ", ".join(changed)
            )
            done = batches * self._loaded["batch_size"] * self._loaded["world_size"]
            batches = min(done // self._order.ranks.clips, len(self._order) - 1)
        self.batches = self._loaded["epoch"] * len(self._order) + batches

    @staticmethod
    def _settings(order: TrainingOrder) -> dict[str, int]:
        ranks = order.ranks
        return {
            "batch_size": ranks.batch_size,
            "world_size": ranks.world_size,
            "clips": order.count,
            "seed": order.seed,
        }
