"""Batches in order, made by worker processes, from any point of an epoch on."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from vidtok.training.data.batches import Batch, Loaded
from vidtok.training.data.order import EvaluationOrder, Order, Place, Position, TrainingOrder
from vidtok.training.data.unreadable import Unreadable


class ClipSource(Protocol):
    """Makes clips; copies of it do so in workers."""

    def load(self, places: list[Place]) -> Loaded:
        """The batch of the clips at `places`; it depends on these and the source's arguments alone."""


class Loading(NamedTuple):
    """The number of worker processes (0: this process makes the batches), and whether batches lie in pinned memory."""

    workers: int = 0
    pin_memory: bool = False


class ClipLoader:
    """Passes over the batches of an `EvaluationOrder`; raises `DataError` when too many videos are unreadable."""

    def __init__(self, source: ClipSource, order: EvaluationOrder, unreadable: Unreadable, loading: Loading) -> None:
        self._source = source
        self._order = order
        self._unreadable = unreadable
        self._loading = loading

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        for loaded in _load(self._source, self._order, range(len(self)), self._loading):
            yield self._unreadable.check(loaded)


class TrainingLoader:
    """Batches of a `TrainingOrder`: each pass begins after the last batch that was marked as done.

    A pass is as long as an epoch, from any start. Workers run on from pass to pass, so that short passes lose no time.
    Raises `DataError` when too many videos are unreadable.
    """

    def __init__(
        self, source: ClipSource, order: TrainingOrder, position: Position, unreadable: Unreadable, loading: Loading
    ) -> None:
        self._source = source
        self._order = order
        self._position = position
        self._unreadable = unreadable
        self._loading = loading
        self._stream: _Stream | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        stream = self._stream
        if stream is None or stream.number != self._position.batches:
            stream = self._stream = _Stream(self._source, self._order, self._position.batches, self._loading)
        for _ in range(len(self)):
            yield self._unreadable.check(next(stream))

    def close(self) -> None:
        """End the workers, once no pass is under way."""
        self._stream = None

    # Lightning tells by these methods that the loader can resume in the middle of an epoch.
    def state_dict(self) -> dict[str, int]:
        """See `Position.state_dict`."""
        return self._position.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Position.load_state_dict`."""
        self._position.load_state_dict(state)


class _Stream:
    """Endless batches from one number on; `number` is the number of the next one."""

    def __init__(self, source: ClipSource, order: TrainingOrder, number: int, loading: Loading) -> None:
        self.number = number
        self._batches = _load(source, order, itertools.count(number), loading)

    def __next__(self) -> Loaded:
        loaded = next(self._batches)
        self.number += 1
        return loaded


def _load(source: ClipSource, order: Order, numbers: Iterable[int], loading: Loading) -> Iterator[Loaded]:
    return iter(
        DataLoader(
            _Batches(source),
            batch_size=None,  # a source makes whole batches
            sampler=_Places(order, numbers),
            num_workers=loading.workers,
            pin_memory=loading.pin_memory,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            # By default a seed for the workers is drawn from PyTorch's own generator, and a resumed run, which starts
            # its workers once more, would go on with other random numbers than one that was never interrupted.
            generator=torch.Generator(),
        )
    )


class _Batches(Dataset[Loaded]):
    def __init__(self, source: ClipSource) -> None:
        self._source = source

    def __getitem__(self, places: list[Place]) -> Loaded:
        return self._source.load(places)


class _Places:
    def __init__(self, order: Order, numbers: Iterable[int]) -> None:
        self._order = order
        self._numbers = numbers

    def __iter__(self) -> Iterator[list[Place]]:
        return (self._order.batch(number) for number in self._numbers)


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _start_worker(worker: int) -> None:
    """One thread a worker; Ctrl-C and SIGTERM are left to the process that trains, which ends its workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(parent: int) -> None:
    """End this process at a SIGTERM of its parent, not at one that a scheduler sends to all processes of a run.

    After the scheduler's, the parent still finishes its batch, for which it may need this worker.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
