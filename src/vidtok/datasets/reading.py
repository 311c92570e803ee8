"""Reading a collection back, whatever its sink: records by number, memory-mapped, with memory that stays small."""

from __future__ import annotations

import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from vidtok.datasets.collection import LINES, MANIFEST, SETTINGS
from vidtok.datasets.records import from_bytes
from vidtok.errors import CollectionError
from vidtok.text import reason
from vidtok.video.library import TOKEN_SUFFIX

_OPEN = 64
"""Shards that a process keeps open."""
_ROW_GROUPS = 64
"""Row groups of Parquet that a process keeps."""
_NEWLINE = 10

Record = dict[str, Any]


class TokenDataset(Dataset[Record]):
    """The records of a collection, by number.

    A record is a dict: `latent`, (z, T', H', W') as stored, or `indices`, (T', H', W') int32; and its line of the
    manifest: `id`, `source`, `frames`, `height`, `width`, `fps`, `start` (seconds), `columns` (captions and others) and
    so on. The order is that of the plan. Only the places of the manifest's lines are held in memory, 12 bytes a record.

    Args:
        source: the folder of a collection, finished or not; or a manifest of JSON lines, such as a part of another one,
            or several.
        root: the collection's folder, where `source` is a manifest outside of it.

    Raises:
        CollectionError: `source` cannot be read, or has no records.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        given = [source] if isinstance(source, str | os.PathLike) else list(source)
        self._manifests = [path for each in given for path in _manifests(Path(each))]
        self.root = Path(root) if root is not None else _root(Path(given[0]))
        files, offsets, groups = [], [], [0]
        for number, path in enumerate(self._manifests):
            starts = _line_starts(path)
            files.append(np.full(len(starts), number, np.int32))
            offsets.append(starts)
            groups.append(groups[-1] + len(starts))
        if not groups[-1]:
            raise CollectionError(f"{source} has no records (yet); see its folders failures/ and work/")
        self._files, self._offsets = np.concatenate(files), np.concatenate(offsets)
        self.groups: npt.NDArray[np.int64] = np.array(groups, np.int64)
        """(G + 1,) number of the first record of each group of records that lie together, and of all."""
        self._cache = _Cache(self.root)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        """Record `index`. Raises `CollectionError` if it cannot be read, and `IndexError` if there is none."""
        head = self.head(index)
        values = self._cache.values(head)
        return {**head, "latent" if head["values"] == "latent" else "indices": values}

    def head(self, index: int) -> Record:
        """The line of record `index` in the manifest, without its values."""
        index = range(len(self))[index]
        path = self._manifests[int(self._files[index])]
        try:
            line = self._cache.line(path, int(self._offsets[index]))
            head: Record = json.loads(line)
            return head
        except (OSError, ValueError) as error:
            raise CollectionError(f"{path} cannot be read: {reason(error)}; get an undamaged copy") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": _Cache(self.root)}


class _Cache:
    """Files that this process has open; those of a process that forked are opened anew."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._maps: OrderedDict[Path, mmap.mmap] = OrderedDict()
        self._tables: OrderedDict[Path, Any] = OrderedDict()
        self._rows: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def line(self, path: Path, offset: int) -> bytes:
        """A line of a manifest."""
        content = self._map(path)
        end = content.find(b"\n", offset)
        return content[offset : len(content) if end < 0 else end]

    def values(self, head: Record) -> Tensor:
        """The values of a record. Raises `CollectionError` if they cannot be read."""
        path = self._root / head["file"]
        try:
            if path.suffix == TOKEN_SUFFIX:
                from vidtok.tokens import TokenFile

                with TokenFile(path) as file:
                    return file.read()[0]
            if path.suffix == ".parquet":
                payload: Any = self._row(path, head["row_group"], head["row"])
            else:
                payload = memoryview(self._map(path))[head["offset"] : head["offset"] + head["bytes"]]
            return from_bytes(payload, tuple(head["shape"]), head["dtype"])
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, CollectionError):
                raise
            raise CollectionError(f"{path} cannot be read: {reason(error)}; get an undamaged copy") from error

    def _map(self, path: Path) -> mmap.mmap:
        self._own()
        if path not in self._maps:
            with open(path, "rb") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _trim(self._maps, _OPEN)
        self._maps.move_to_end(path)
        return self._maps[path]

    def _row(self, path: Path, group: int, row: int) -> memoryview:
        self._own()
        if (path, group) not in self._rows:
            import pyarrow.parquet

            if path not in self._tables:
                self._tables[path] = pyarrow.parquet.ParquetFile(path, memory_map=True)
                _trim(self._tables, _OPEN)
            table = self._tables[path].read_row_group(group, columns=["vae_latent_bytes"], use_threads=False)
            self._rows[path, group] = table.column(0)
            _trim(self._rows, _ROW_GROUPS)
        self._rows.move_to_end((path, group))
        return memoryview(self._rows[path, group][row].as_buffer())

    def _own(self) -> None:
        if self._process != os.getpid():
            self._reset()


def _trim(cache: OrderedDict[Any, Any], most: int) -> None:
    while len(cache) > most:
        cache.popitem(last=False)


def _manifests(source: Path) -> list[Path]:
    if source.is_dir():
        folder = source / MANIFEST
        if not folder.is_dir():
            raise CollectionError(f"{source} is no collection; expected a folder that `vidtok tokenize` filled")
        return sorted(path for path in folder.iterdir() if path.suffix == LINES and not path.name.startswith("."))
    if not source.exists():
        raise CollectionError(f"{source}: no such collection or manifest; check the path")
    return [source]


def _root(source: Path) -> Path:
    """The collection that `source` is, or lies in."""
    for folder in (source, source.parent, source.parent.parent):
        if (folder / SETTINGS).exists():
            return folder
    raise CollectionError(f"{source} lies in no collection; give the folder of one (root)")


def _line_starts(path: Path) -> npt.NDArray[np.int64]:
    """Byte at which each line begins."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise CollectionError(f"{path} cannot be read: {reason(error)}; check its permissions") from error
    ends = np.flatnonzero(content == _NEWLINE)
    starts = np.concatenate([np.zeros(1, np.int64), ends + 1])
    return starts[starts < len(content)]
