"""The face of sinks: the forms in which a collection's records are written.

A sink takes the records of one group in order. Names follow from the group or from a record's id, bytes from the
records, so that doing a group again gives the same files. Nothing half-written has a final name.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vidtok.datasets.collection import DATA, WORK
from vidtok.datasets.records import Record
from vidtok.errors import CollectionError
from vidtok.files import CHECK_DISK, hidden_path, writing


class Sink(ABC):
    """The writer of one group's records into the collection in `folder`.

    Args:
        folder: the collection.
        group: name of the group.
        shard_bytes: size at which a shard ends and the next begins.
        about: what files say of themselves: the model, and options.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    per_record: ClassVar[bool] = False
    """True if each record is a file of its own, written by `write` as soon as it is there."""
    package: ClassVar[str | None] = None
    """Package that it needs, of the extra `collections`."""

    def __init__(self, folder: Path, group: str, shard_bytes: int, about: Mapping[str, Any]) -> None:
        self.folder, self._group, self._shard_bytes, self.about = folder, group, shard_bytes, about

    @abstractmethod
    def add(self, record: Record) -> dict[str, Any]:
        """Take the next record; returns its place, for the manifest. Raises `CollectionError` if the disk refuses."""

    @abstractmethod
    def finish(self) -> None:
        """Put all shards in their places."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what is not in its place."""


class FileSink(Sink):
    """A file a record, `data/ab/abcd….suffix`, by its id."""

    per_record = True

    @classmethod
    def place(cls, id: str) -> str:
        """Place of a record's file in the collection."""
        return f"{DATA}/{id[:2]}/{id}{cls.suffix}"

    def add(self, record: Record) -> dict[str, Any]:
        """The place of a record, whose file `write` has made."""
        return {}

    def finish(self) -> None:
        """Nothing: all files are in their places."""

    def discard(self) -> None:
        """Nothing, likewise."""

    @classmethod
    def write(cls, folder: Path, record: Record) -> dict[str, Any]:
        """Write the file of `record`, and return its place."""
        raise NotImplementedError


class ShardSink(Sink):
    """Records together in shards, `data/GROUP-000.suffix` and so on, put aside until the group is done."""

    def __init__(self, folder: Path, group: str, shard_bytes: int, about: Mapping[str, Any]) -> None:
        super().__init__(folder, group, shard_bytes, about)
        self._staged: list[tuple[Path, str]] = []
        self._shards, self._filled, self._under_way = 0, 0, False

    def add(self, record: Record) -> dict[str, Any]:
        with self._writing():
            if self._under_way and self._filled + len(record.payload) > self._shard_bytes:
                self._end()
            if not self._under_way:
                self._filled, self._under_way = 0, True
                self._begin(self._stage(self.suffix))
            self._filled += len(record.payload)
            return {"file": f"{DATA}/{self._shard_name(self._shards, self.suffix)}", **self._put(record)}

    def finish(self) -> None:
        with self._writing():
            if self._under_way:
                self._end()
            for path, _ in self._staged:
                _flush(path)
            for path, name in self._staged:
                os.replace(path, self.folder / DATA / name)
            self._sweep()
            self._staged.clear()

    def discard(self) -> None:
        if self._under_way:
            with contextlib.suppress(Exception):
                self._close()
        for path, _ in self._staged:
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._close()
        self._under_way = False
        self._shards += 1

    def _stage(self, suffix: str) -> Path:
        """A path for a file of the shard under way, to be moved to the shard's place with this suffix."""
        name = self._shard_name(self._shards, suffix)
        path = hidden_path(self.folder / WORK / name)
        self._staged.append((path, name))
        return path

    def _shard_name(self, number: int, suffix: str) -> str:
        return f"{self._group}-{number:03d}{suffix}"

    def _sweep(self) -> None:
        """Remove shards that an earlier try at the group left behind the last one, as fewer inputs failed then."""
        number = self._shards
        while (path := self.folder / DATA / self._shard_name(number, self.suffix)).exists():
            path.unlink()
            number += 1

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self.folder / DATA, CollectionError, advice=CHECK_DISK)

    @abstractmethod
    def _begin(self, path: Path) -> None:
        """Begin a shard at `path`."""

    @abstractmethod
    def _put(self, record: Record) -> dict[str, Any]:
        """Write a record into the shard under way; returns its place in it."""

    @abstractmethod
    def _close(self) -> None:
        """End the shard under way."""


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
