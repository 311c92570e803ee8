"""Figures of a run under way: done, failed, left, records a second, time left, by worker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from vidtok.datasets.work import GroupResult

_RECENT = 120.0
"""Seconds of work from which the rate is taken."""


@dataclass(frozen=True)
class Figures:
    """The state of a run."""

    inputs: int
    """Inputs in this run's share of the plan."""
    done: int
    """Of them, in groups that are done, by this run or before."""
    failed: int
    """Inputs that failed in this run."""
    records: int
    """Records that this run has made."""
    empty: int
    """Inputs of this run that gave no record."""
    frames: int
    bytes: int
    rate: float
    """Records a second, over the last minutes."""
    seconds: float
    """Seconds since the run began."""
    workers: dict[str, int]
    """Records by worker."""

    @property
    def left(self) -> int:
        """Inputs still to do."""
        return max(0, self.inputs - self.done)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest will take at the rate so far; None if unknown."""
        fresh = sum(self.workers.values())
        if not self.rate or not fresh or not self._fresh_inputs:
            return None
        return self.left * (fresh / self._fresh_inputs) / self.rate

    _fresh_inputs: int = 0


@dataclass
class Tally:
    """Adds up the results of groups; any thread may add."""

    inputs: int
    done: int
    _records: int = 0
    _failed: int = 0
    _empty: int = 0
    _frames: int = 0
    _bytes: int = 0
    _fresh: int = 0
    _workers: Counter[str] = field(default_factory=Counter)
    _recent: list[tuple[float, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.monotonic)

    def add(self, result: GroupResult, worker: str, planned: int) -> None:
        """Count a group of `planned` inputs that a worker has finished or found done."""
        now = time.monotonic()
        with self._lock:
            if result.state == "busy":
                return
            self.done += planned
            if result.state == "done":
                self._fresh += result.inputs
                self._records += result.records
                self._failed += len(result.failed)
                self._empty += result.empty
                self._frames += result.frames
                self._bytes += result.bytes
                self._workers[worker] += result.records
                self._recent = [each for each in self._recent if each[0] > now - _RECENT] + [(now, result.records)]

    def figures(self) -> Figures:
        """The state now."""
        now = time.monotonic()
        with self._lock:
            since = max(self._started, now - _RECENT)
            recent = sum(count for at, count in self._recent if at > now - _RECENT)
            return Figures(
                inputs=self.inputs,
                done=self.done,
                failed=self._failed,
                records=self._records,
                empty=self._empty,
                frames=self._frames,
                bytes=self._bytes,
                rate=recent / max(1e-9, now - since),
                seconds=now - self._started,
                workers=dict(self._workers),
                _fresh_inputs=self._fresh,
            )
