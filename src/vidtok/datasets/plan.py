"""The plan of a collection: which inputs are worked on, in groups that are written together.

A plan only grows. Each generation is a folder that appears whole, by one rename that fails where another run was
quicker; its inputs are those given that no earlier generation has. So each input has one place, whoever plans.

    plan/000000/inputs.jsonl   one line an input
    plan/000000/ids.npy        (N, 16) uint8, the ids in the same order
    plan/000000/starts.npy     (G + 1, 2) int64: first input of each group, and the byte of its line

A generation of retries, plan/r000000 and so on, has inputs that failed before; their `attempt` is above 1.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from vidtok.datasets.inputs import Absent, Input
from vidtok.errors import CollectionError
from vidtok.files import Aside, writing

ID_BYTES = 16
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
_RETRY = "r"
MOST_TOGETHER = 256
"""Inputs of a group in a large plan."""
_FEWEST_TOGETHER, _GROUPS_WANTED = 8, 64

Ids = npt.NDArray[np.void]


def input_id(input: Input, fingerprint: str, content: bool) -> str:
    """The id of `input` in a collection of this `fingerprint` (model and options): 32 hexadecimal digits.

    It is a hash of where the input is and its stamp, or with `content` of its content alone.
    """
    what = [input.stamp] if content else [input.source, input.member, input.offset, input.stamp]
    text = json.dumps([fingerprint, *what], separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * ID_BYTES]


class Unit(NamedTuple):
    """One input of a plan."""

    id: str
    input: Input
    attempt: int

    def line(self) -> bytes:
        input = self.input
        values: dict[str, Any] = {"id": self.id, "source": input.source, "stamp": input.stamp}
        if input.member:
            values |= {"member": input.member, "offset": input.offset, "size": input.size}
        if input.columns:
            values["columns"] = input.columns
        if self.attempt > 1:
            values["attempt"] = self.attempt
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Unit:
        values = json.loads(line)
        unit, attempt = values.pop("id"), values.pop("attempt", 1)
        return cls(unit, Input(**values), attempt)


@dataclass(frozen=True)
class Group:
    """Inputs of a plan that are written together."""

    generation: Path
    first: int
    count: int
    start: int
    stop: int
    """Bytes of its lines in the generation's file."""
    number: int
    mark: str
    """Hash of its ids."""

    @property
    def name(self) -> str:
        """A name that no other group of any plan has; names sort in the order of the plan."""
        return f"{self.generation.name}-{self.number:06d}-{self.mark}"

    def units(self) -> list[Unit]:
        """Its inputs, read from the plan."""
        with open(self.generation / "inputs.jsonl", "rb") as file:
            file.seek(self.start)
            return [Unit.read(line) for line in file.read(self.stop - self.start).splitlines()]


@dataclass
class Planned:
    """Result of a planning."""

    given: Ids
    """Ids of all inputs given, sorted."""
    added: int
    """Inputs that were not in the plan before."""
    repeated: int
    """Inputs that were given more than once."""
    absent: list[Absent]


class Plan:
    """The plan in the folder `folder`, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def generations(self) -> list[Path]:
        """The folders of the generations, in order."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(entry.name for entry in os.scandir(self._folder) if not entry.name.startswith("."))
            return [self._folder / name for name in names]
        return []

    def retries(self) -> list[Path]:
        """The generations of retries, in order."""
        return [path for path in self.generations() if path.name.startswith(_RETRY)]

    def retried(self) -> Iterator[Unit]:
        """All retries of inputs."""
        for generation in self.retries():
            with open(generation / "inputs.jsonl", "rb") as file:
                yield from map(Unit.read, file)

    def groups(self) -> Iterator[Group]:
        """All groups in order."""
        for generation in self.generations():
            starts, ids = np.load(generation / "starts.npy"), np.load(generation / "ids.npy", mmap_mode="r")
            for number in range(len(starts) - 1):
                (first, start), (last, stop) = starts[number].tolist(), starts[number + 1].tolist()
                mark = hashlib.sha256(np.ascontiguousarray(ids[first:last]).tobytes()).hexdigest()[:8]
                yield Group(generation, first, last - first, start, stop, number, mark)

    def count(self) -> int:
        """Number of inputs, each counted once."""
        return len(self.ids())

    def ids(self) -> Ids:
        """The ids of all inputs, sorted."""
        parts = [np.load(generation / "ids.npy") for generation in self.generations()]
        return _distinct(np.concatenate(parts) if parts else np.empty((0, ID_BYTES), np.uint8))

    def add(
        self, inputs: Iterable[Input | Absent], fingerprint: str, *, content: bool = False, together: int | None = None
    ) -> Planned:
        """Plan the inputs that are in no generation yet, `together` of them a group (None: as suits their number).

        Raises `CollectionError` if the plan cannot be written.
        """
        absent: list[Absent] = []

        def units() -> Iterator[Unit]:
            for input in inputs:
                if isinstance(input, Absent):
                    absent.append(input)
                else:
                    yield Unit(input_id(input, fingerprint, content), input, 1)

        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = _Draft(self._folder, units())
            try:
                given = _distinct(draft.ids)
                added = 0
                while True:
                    # The number first: where another run plans meanwhile, it is taken, and all is done again.
                    number = len(self.generations()) - len(self.retries())
                    known = self.ids()
                    added = draft.keep_new(known)
                    if not added or draft.publish(self._folder / f"{number:06d}", together):
                        break
            finally:
                draft.discard()
        return Planned(given, added, draft.total - len(given), absent)

    def retry(self, units: Iterable[Unit], number: int, together: int | None = None) -> int:
        """Plan `units` that have failed once more; returns their number, 0 if another run was quicker.

        `number` is the number of `retries` before the failures were looked for.
        """
        with self._writing():
            draft = _Draft(self._folder, (unit._replace(attempt=unit.attempt + 1) for unit in units))
            try:
                published = draft.total and draft.publish(self._folder / f"{_RETRY}{number:06d}", together)
                return draft.total if published else 0
            finally:
                draft.discard()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self._folder, CollectionError)


class _Draft:
    """A generation before it has its place."""

    def __init__(self, folder: Path, units: Iterable[Unit]) -> None:
        self._aside, self._lines = Aside(folder / "draft", folder=True), Aside(folder / "lines")
        self._path = self._aside.make()
        digests = bytearray()
        with open(self._lines.make(), "wb") as file:
            for unit in units:
                file.write(unit.line())
                digests += bytes.fromhex(unit.id)
        self.ids = np.frombuffer(bytes(digests), np.uint8).reshape(-1, ID_BYTES)
        self.total = len(self.ids)
        self._kept: npt.NDArray[np.bool_] = np.ones(self.total, bool)

    def keep_new(self, known: Ids) -> int:
        """Keep the first of each id that is not `known`; returns their number."""
        own = _void(self.ids)
        self._kept = np.zeros(self.total, bool)
        self._kept[np.unique(own, return_index=True)[1]] = True
        if len(known):
            at = np.minimum(np.searchsorted(known, own), len(known) - 1)
            self._kept &= known[at] != own
        return int(self._kept.sum())

    def publish(self, place: Path, together: int | None) -> bool:
        """Move the generation to `place`; False if another run has put one there."""
        count = int(self._kept.sum())
        size = together or min(MOST_TOGETHER, max(_FEWEST_TOGETHER, count // _GROUPS_WANTED))
        starts = [(0, 0)]
        with open(self._lines.path, "rb") as lines, open(self._path / "inputs.jsonl", "wb") as file:
            self._write(lines, file, size, starts)
        np.save(self._path / "ids.npy", self.ids[self._kept])
        np.save(self._path / "starts.npy", np.array(starts, np.int64))
        try:
            os.rename(self._path, place)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def _write(self, lines: BinaryIO, file: BinaryIO, size: int, starts: list[tuple[int, int]]) -> None:
        number = 0
        for kept, line in zip(self._kept, lines, strict=True):
            if not kept:
                continue
            file.write(line)
            number += 1
            if number % size == 0:
                starts.append((number, file.tell()))
        if starts[-1][0] != number:
            starts.append((number, file.tell()))

    def discard(self) -> None:
        self._aside.discard()
        self._lines.discard()


def _void(ids: npt.NDArray[np.uint8]) -> Ids:
    return np.ascontiguousarray(ids).view(f"V{ID_BYTES}").reshape(-1)


def _distinct(ids: npt.NDArray[np.uint8]) -> Ids:
    return np.unique(_void(ids))
