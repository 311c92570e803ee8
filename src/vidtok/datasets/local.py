"""The local engine: worker processes on this machine, each with a thread here that hands it groups."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from vidtok.datasets.plan import Group
from vidtok.datasets.supervisor import StoppedError, Supervisor
from vidtok.datasets.work import GroupResult, Task
from vidtok.datasets.worker import Setup

OnResult = Callable[[Group, GroupResult, str], None]
"""Function called with a group, its result, and the name of the worker; any thread may call it."""
_POLL = 0.2


class Engine(Protocol):
    """Whatever works on the groups of a plan, in parallel."""

    def run(self, groups: Iterator[Group], on_result: OnResult) -> None:
        """Work on all `groups`; each gives one result.

        Raises what stops the run: a `CollectionError`, or whatever `on_result` raises.
        """


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Worker processes on this machine, one a device of `devices`.

    Args:
        setup: for the workers.
        devices: a device for each worker, such as ["cpu", "cpu"] or ["cuda:0", "cuda:1"].
        timeout: seconds without a sign of progress after which a worker is ended.
    """

    def __init__(self, setup: Setup, devices: list[str], timeout: float) -> None:
        self._setup, self._devices, self._timeout = setup, devices, timeout

    def run(self, groups: Iterator[Group], on_result: OnResult) -> None:
        """See `Engine`."""
        stop, lock = threading.Event(), threading.Lock()
        errors: list[BaseException] = []

        def take() -> Group | None:
            with lock:
                return None if stop.is_set() else next(groups, None)

        ended = [threading.Event() for _ in self._devices]

        def work(number: int, device: str) -> None:
            supervisor = Supervisor(self._setup, device, self._timeout, stop)
            try:
                while (group := take()) is not None:
                    on_result(group, supervisor.run(Task(group.name, group.units())), f"{number} ({device})")
            except StoppedError:
                pass
            except BaseException as error:
                errors.append(error)
                stop.set()
            finally:
                supervisor.close()
                ended[number].set()

        threads = [
            threading.Thread(target=work, args=(number, device), daemon=True)
            for number, device in enumerate(self._devices)
        ]
        try:
            for thread in threads:
                thread.start()
            # Events, since a `join` that Ctrl-C ends takes the thread for ended (CPython up to 3.12).
            for event in ended:
                while not event.wait(_POLL):
                    pass
        finally:
            stop.set()
            for event, thread in zip(ended, threads, strict=True):
                if thread.ident is not None:
                    event.wait()
        if errors:
            raise errors[0]
