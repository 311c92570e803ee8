"""Signs of life of long work: a bar on a terminal, a line every half minute elsewhere, nothing if quiet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from vidtok.cli.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 30.0
"""Seconds between lines where the output is no terminal."""
REFRESH = 0.5
"""Seconds between two looks of a terminal's line."""
_ENCODING = 0.3
"""The share of the encoder in the time of a reconstruction, about; it only guides the time left."""


class Work:
    """The state of work over `total` units: units done, and the tile at hand of the frames at hand."""

    def __init__(self, what: str, total: int | None, unit: str, *, both: bool) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0.0
        self.tile = ""
        self._both = both
        self._within = 0.0
        self._started = time.monotonic()

    def update(self, done: float) -> None:
        """Note that `done` units are finished."""
        self.done, self._within, self.tile = done, 0.0, ""

    def on_tile(self, number: int, of: int, frames: int, encodes: bool) -> None:
        """Note that tile `number` of `of` of the next `frames` frames is finished, by the encoder or the decoder."""
        share = number / of
        if self._both:
            share = _ENCODING * share if encodes else _ENCODING + (1 - _ENCODING) * share
        self._within = frames * share
        self.tile = f"{'encoding' if encodes else 'decoding'} tile {number} of {of}"

    @property
    def reached(self) -> float:
        """Units done, with a share of those at hand."""
        return self.done + self._within if self.total is None else min(self.done + self._within, self.total)

    def left(self) -> str:
        """The time left in words; empty while it is unknown."""
        if self.total is None or not self.reached:
            return ""
        elapsed = time.monotonic() - self._started
        return _clock(elapsed * (self.total - self.reached) / self.reached)

    def line(self) -> str:
        """One line on the state."""
        of = "" if self.total is None else f" of {self.total:,}"
        tile = f", {self.tile}" if self.tile else ""
        left = f", {self.left()} left" if self.left() else ""
        since = _clock(time.monotonic() - self._started)
        return f"{self.what}: {int(self.done):,}{of} {self.unit}{tile}, {since} so far{left}"


@contextmanager
def progress_bar(
    what: str, total: int | None, unit: str = "frames", *, both: bool = False
) -> Iterator[Callable[[float], None]]:
    """Show progress over `total` units on stderr; gives a function to call with the number done.

    On a terminal it is a bar with the time so far and left, elsewhere a line every `EVERY` seconds, and with `--quiet`
    nothing. Tiles of large frames are counted within a group of frames; `both` says that each is encoded and decoded.
    """
    if is_quiet():
        yield lambda done: None
        return
    from rich.console import Console

    work = Work(what, total, unit, both=both)
    console = Console(stderr=True)
    with reporting(work.on_tile), _bar(work, console) if console.is_terminal else _lines(work):
        yield work.update


@contextmanager
def status(what: str) -> Iterator[None]:
    """Show on a terminal that `what` is being done, while the block runs."""
    if is_quiet():
        yield
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{what} ..."):
        yield


@contextmanager
def _bar(work: Work, console: Console) -> Iterator[None]:
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(work.unit),
        TextColumn("{task.fields[tile]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task(escape(work.what), total=work.total, tile="", left="")

    def show() -> None:
        left = f"{work.left()} left" if work.left() else ""
        bar.update(task, completed=int(work.reached), tile=work.tile, left=left)

    with bar, repeating(REFRESH, show):
        yield


@contextmanager
def _lines(work: Work) -> Iterator[None]:
    with repeating(EVERY, lambda: typer.echo(work.line(), err=True)):
        yield


@contextmanager
def repeating(seconds: float, show: Callable[[], None]) -> Iterator[None]:
    """Call `show` every so many seconds from a thread of its own, also while the work itself says nothing."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            try:
                show()
            except (OSError, ValueError):  # stderr has gone
                return

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def reporting(on_tile: Callable[[int, int, int, bool], None]) -> Iterator[None]:
    """Call `on_tile` after each tile, if the model's code is loaded at all."""
    import sys

    if "torch" not in sys.modules:
        yield
        return
    from vidtok.models.tiles import reporting_tiles

    with reporting_tiles(on_tile):
        yield


def _clock(seconds: float) -> str:
    """`0:42`, `12:05`, `3:00:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
