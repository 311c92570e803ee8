"""The near end of a worker process: starts it, hands it groups, and finds the input at fault when it dies or hangs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from vidtok.datasets.work import GroupResult, Task
from vidtok.datasets.worker import Setup
from vidtok.errors import CollectionError

STARTUP_SECONDS = 900.0
_POLL = 0.2
_DEATHS = 3
"""Deaths of a worker without an input to blame, in a row, after which the run stops."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class StoppedError(Exception):
    """The run was stopped while a group was worked on."""


@dataclass
class _Watch:
    """State of the group under way."""

    task: Task
    begun: list[str] = field(default_factory=list)
    """Inputs that this process has opened, in order."""
    blamed: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0


class Supervisor:
    """One worker process at a time, on `device`.

    Args:
        setup: for the worker.
        device: such as "cpu" or "cuda:1".
        timeout: seconds without a sign of progress after which the worker is ended.
        stop: set to end the work under way.
        environment: variables for the worker beside this process's own.
    """

    def __init__(
        self, setup: Setup, device: str, timeout: float, stop: threading.Event | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._setup, self._device, self._timeout = setup, device, timeout
        self._stop = threading.Event() if stop is None else stop
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._scratch: str | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process, if it runs."""
        return None if self._process is None else self._process.pid

    def run(self, task: Task) -> GroupResult:
        """Work on a group. An input that takes the worker down is tried again, and then set aside as failed.

        Raises `CollectionError` if the output cannot be written, the model cannot be loaded, or workers die without an
        input at fault, and `StoppedError` if the run is stopped.
        """
        watch = _Watch(task)
        while True:
            try:
                return self._attempt(watch)
            except _WorkerEndedError as ended:
                self.close()
                self._blame(watch, ended.reason)

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _blame(self, watch: _Watch, reason: str) -> None:
        """After a death have the group done again with one input open at a time; from then on blame the last one.

        A worker may be ended by something else, so that one death never condemns an input.
        """
        careful, suspects = watch.task.careful, watch.begun[-1:]
        watch.begun = []
        watch.task = replace(watch.task, careful=True)
        if not suspects:
            watch.unexplained += 1
            if watch.unexplained >= _DEATHS:
                raise CollectionError(f"workers end before they open an input ({reason}); see the messages above")
        elif careful:
            watch.unexplained = 0
            watch.blamed[suspects[0]] += 1
            if watch.blamed[suspects[0]] > self._setup.retries:
                watch.task = replace(watch.task, condemned={**watch.task.condemned, suspects[0]: reason})

    def _attempt(self, watch: _Watch) -> GroupResult:
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(watch.task)
        except OSError as error:
            raise _WorkerEndedError(self._ending()) from error
        while True:
            kind, value = self._next(self._timeout)
            if kind == "begin":
                watch.begun.append(value)
            elif kind == "result":
                result: GroupResult = value
                return result

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._scratch = tempfile.mkdtemp(prefix="vidtok-")
        threads = {name: str(self._setup.options.threads) for name in _THREAD_VARIABLES}
        environment = {**os.environ, **threads, "VIDTOK_SCRATCH": self._scratch, **self._environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._setup.module, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._connection = ours
        try:
            ours.send((self._setup, self._device))
        except OSError as error:
            raise _WorkerEndedError(self._ending()) from error
        self._next(STARTUP_SECONDS)

    def _next(self, limit: float) -> tuple[str, Any]:
        """The worker's next message. A fatal one is raised."""
        assert self._connection is not None
        seen = time.monotonic()
        while not self._connection.poll(_POLL):
            if self._stop.is_set():
                raise StoppedError
            if time.monotonic() - seen > limit:
                raise _WorkerEndedError(f"no progress for {limit:g} s")
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _WorkerEndedError(self._ending()) from error
        if kind == "fatal":
            raise CollectionError(value)
        return kind, value

    def _ending(self) -> str:
        """The worker's end in words."""
        assert self._process is not None
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return "the worker process closed its pipe"
        return f"the worker process was ended by signal {-code}" if code < 0 else f"the worker process exited ({code})"


class _WorkerEndedError(Exception):
    """The worker has died, or hangs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
