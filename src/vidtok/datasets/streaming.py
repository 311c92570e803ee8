"""Training on a collection: an order shuffled by groups, shared among ranks and workers, resumable; and batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vidtok.datasets.reading import Record, TokenDataset
from vidtok.errors import CollectionError

_MIXED = 4
"""Groups whose records are mixed."""


class TokenStream(IterableDataset[Record]):
    """The records of `dataset` in an order that is shuffled each epoch, each record once an epoch.

    All ranks and all workers of their `DataLoader`s share one order, of which each takes a stretch of its own: the
    groups of the collection are shuffled, and then the records among `mixed` groups in a row, so that shards are read
    nearly in sequence. An epoch ends for some one record earlier than for others where the shares are not equal.

    Args:
        dataset: the records.
        shuffle: shuffle; False: the order of the plan.
        seed: of the order; the same for all ranks.
        mixed: groups whose records are mixed.
        rank, ranks: the share of this process; None: as `torch.distributed` says, or the only one.
        even: leave the last records of an epoch out, so that all shares are equal.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        *,
        shuffle: bool = True,
        seed: int = 0,
        mixed: int = _MIXED,
        rank: int | None = None,
        ranks: int | None = None,
        even: bool = False,
    ) -> None:
        self.dataset, self._shuffle, self._seed, self._mixed, self._even = dataset, shuffle, seed, mixed, even
        here = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._rank = rank if rank is not None else torch.distributed.get_rank() if here else 0
        self._ranks = ranks if ranks is not None else torch.distributed.get_world_size() if here else 1
        if not 0 <= self._rank < self._ranks or mixed < 1:
            raise CollectionError(
                f"rank is {self._rank} of {self._ranks}, mixed is {mixed}; expected a rank below ranks, and mixed of "
                "at least 1"
            )
        self._epoch, self._taken, self._consumers = 0, 0, 0
        self._batches: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Begin `epoch`, which decides the order. Call it each epoch where a `DataLoader` has workers."""
        self._epoch, self._taken, self._batches = epoch, 0, None

    def resume(self, epoch: int, batches: int, batch_size: int) -> None:
        """Go on in `epoch` after the first `batches` that this rank's `DataLoader` gave, of `batch_size` each."""
        self.set_epoch(epoch)
        self._batches = batches, batch_size

    def state_dict(self) -> dict[str, int]:
        """The place in the epoch, of the process that iterates; torchdata's `StatefulDataLoader` asks each worker."""
        return {"epoch": self._epoch, "taken": self._taken, "consumers": self._consumers, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` was taken. Raises `CollectionError` if it is of another seed."""
        if state["seed"] != self._seed:
            raise CollectionError(f"the state is of seed {state['seed']}, this stream has {self._seed}; give the same")
        self.set_epoch(state["epoch"])
        self._taken, self._consumers = state["taken"], state["consumers"]

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Numbers of all records in the order of `epoch`, over all ranks."""
        count = len(self.dataset)
        if not self._shuffle:
            return np.arange(count)
        draw = np.random.default_rng([self._seed, epoch])
        groups = self.dataset.groups
        shuffled = draw.permutation(len(groups) - 1)
        parts = []
        for at in range(0, len(shuffled), self._mixed):
            ranges = [np.arange(groups[each], groups[each + 1]) for each in shuffled[at : at + self._mixed]]
            parts.append(draw.permutation(np.concatenate(ranges)))
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[Record]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        consumers = self._ranks * workers
        if self._taken and self._consumers != consumers:
            raise CollectionError(
                f"the state is of {self._consumers} ranks times workers, and there are {consumers} now; give as many"
            )
        if self._batches is not None:
            batches, size = self._batches
            self._taken = size * len(range(worker, batches, workers))
            self._batches = None
        self._consumers = consumers
        share = self._share(self._rank * workers + worker, consumers)
        for index in share[self._taken :].tolist():
            self._taken += 1
            yield self.dataset[index]
        self._epoch, self._taken = self._epoch + 1, 0

    def _share(self, consumer: int, consumers: int) -> npt.NDArray[np.int64]:
        order = self.order(self._epoch)
        count = len(order) // consumers * consumers if self._even else len(order)
        return order[consumer * count // consumers : (consumer + 1) * count // consumers]


def collate(records: Sequence[Record]) -> dict[str, Any]:
    """A batch: `latent` (B, z, T', H', W') or `indices` (B, T', H', W'), and the rest.

    Smaller records are filled up with zeros: `lengths` (B,) has their T', and `sizes` (B, 2) their H' and W'. All else
    comes as lists under its name.
    """
    key = "latent" if "latent" in records[0] else "indices"
    values: list[Tensor] = [record[key] for record in records]
    largest = [max(value.shape[axis] for value in values) for axis in range(values[0].ndim)]
    batch = values[0].new_zeros(len(values), *largest)
    for row, value in zip(batch, values, strict=True):
        row[tuple(slice(side) for side in value.shape)] = value
    names = dict.fromkeys(name for record in records for name in record if name != key)
    return {
        key: batch,
        "lengths": torch.tensor([value.shape[-3] for value in values]),
        "sizes": torch.tensor([value.shape[-2:] for value in values]),
        **{name: [record.get(name) for record in records] for name in names},
    }
