"""Threads that keep the model busy: one prepares its input ahead of it, one works on its output behind it.

PyTorch, NumPy and FFmpeg let other threads run while they compute, so threads suffice, and frames need no copies.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

_DEPTH = 4
_POLL = 0.1
_LAST_SECONDS = 10.0
"""Seconds that threads have to end when the process does."""

_running: set[tuple[threading.Event, threading.Event]] = set()
"""Of each thread that runs, the event that tells it to end and the one that it has ended."""


class Ahead(Generic[T]):
    """The items of `iterable`, made by a thread of its own up to `depth` items ahead of the iteration.

    An exception in the thread is raised by the iteration. Iterate only once; `close` ends the thread.
    """

    def __init__(self, iterable: Iterable[T], depth: int = _DEPTH) -> None:
        self.waited = 0.0
        """Seconds that the iteration has waited for items."""
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._wait = _start(lambda: self._fill(iterable), self._stop)

    def _fill(self, iterable: Iterable[T]) -> None:
        try:
            for item in iterable:
                if not self._put((item,)):
                    return
        except BaseException as error:  # raised again by the iteration
            self._error = error
        self._put(None)

    def _put(self, item: tuple[T] | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            started = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - started
            if item is None:
                break
            yield item[0]
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; items that were not taken are dropped."""
        self._stop.set()
        self._wait()


class Behind:
    """Runs tasks in order, in a thread of its own, up to `depth` tasks behind.

    An exception in a task is raised by the next `put` or by `finish`, and the tasks after it are dropped. At the end of
    a `with` block all tasks are finished, or abandoned if the block raises.
    """

    def __init__(self, depth: int = _DEPTH) -> None:
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._wait = _start(self._work, self._stop)

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            if self._error is None and not self._stop.is_set():
                try:
                    task()
                except BaseException as error:  # raised again in the thread that puts
                    self._error = error

    def _next(self) -> Callable[[], None] | None:
        """The next task; None at the end, or once the thread has to stop."""
        while True:
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if self._stop.is_set():
                    return None

    def put(self, task: Callable[[], None]) -> None:
        """Queue `task`; wait while the queue is full."""
        self._check()
        self._queue.put(task)

    def finish(self) -> None:
        """Wait until all tasks are done, and end the thread."""
        self._queue.put(None)
        self._wait()
        self._check()

    def abandon(self) -> None:
        """End the thread; tasks that have not begun are dropped."""
        self._stop.set()
        self._queue.put(None)
        self._wait()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _start(work: Callable[[], None], stop: threading.Event) -> Callable[[], None]:
    """Do `work`, which ends early once `stop` is set, in a thread; returns a function that waits for its end."""
    ended = threading.Event()

    def run() -> None:
        try:
            with torch.no_grad():
                work()
        finally:
            _running.discard((stop, ended))
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    _running.add((stop, ended))
    thread.start()

    def wait() -> None:
        # An event first: a `join` that an interruption ends takes the thread for ended (CPython up to 3.12).
        ended.wait()
        thread.join()

    return wait


@atexit.register
def _end_all() -> None:
    """End the threads that an interrupted program has left.

    A thread that still computes when the interpreter shuts down is torn out of C++ code, which aborts the process.
    """
    left = list(_running)
    for stop, _ in left:
        stop.set()
    for _, ended in left:
        ended.wait(_LAST_SECONDS)
