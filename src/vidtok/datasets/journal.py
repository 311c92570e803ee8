"""Journals: what a group has finished so far, so that a killed run loses no more than one block of inputs.

A journal is also the claim on its group: the process that works on it holds a lock. It is a row of frames,

    head length (4 bytes), payload length (8), CRC-32 of both (4), head (JSON), payload

A block of inputs counts once its closing frame is whole; what follows the last such frame is cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from vidtok.errors import CollectionError
from vidtok.files import lock, writing

_FRAME = struct.Struct("<IQI")
_BLOCK = "block"
SUFFIX = ".journal"
_ADVICE = "check the folder and the space left on the disk, and start again: finished work is kept"


class Entry(NamedTuple):
    """A frame that a finished block has."""

    head: dict[str, Any]
    offset: int
    size: int
    """Place of the payload in the file, in bytes."""


class Journal:
    """The journal at `path`, claimed by this process; `claim` opens it."""

    def __init__(self, path: Path, file: BinaryIO, *, keep: bool) -> None:
        self._path, self._file = path, file
        self.entries: list[Entry] = []
        self.blocks: list[dict[str, Any]] = []
        """Closing frames of the finished blocks."""
        self._open: list[Entry] = []
        self._end = 0
        self._held = 0
        if keep:
            self._recover()
        with self._writing():
            self._file.truncate(self._end)
            self._file.seek(self._end)

    def append(self, head: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        """Add a record of the block under way. Raises `CollectionError` if the disk refuses."""
        with self._writing():
            self._open.append(self._write(head, payload))

    def close_block(self, head: Mapping[str, Any]) -> None:
        """Finish the block under way."""
        with self._writing():
            self._write({**head, _BLOCK: len(self.blocks)}, b"")
            self._file.flush()
        self._end = self._held
        self.blocks.append(dict(head))
        self.entries += self._open
        self._open = []

    def drop_block(self) -> None:
        """Take back all records of the block under way."""
        with self._writing():
            self._file.flush()
            self._file.truncate(self._end)
            self._file.seek(self._end)
        self._held, self._open = self._end, []

    def read(self, entry: Entry) -> bytes:
        """The payload of an entry."""
        with self._writing():
            self._file.flush()
        return os.pread(self._file.fileno(), entry.size, entry.offset)

    def remove(self) -> None:
        """Remove the journal, once its group is done."""
        with self._writing():
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the claim up; the file stays."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, head: Mapping[str, Any], payload: bytes | memoryview) -> Entry:
        text = json.dumps(head, separators=(",", ":")).encode()
        crc = zlib.crc32(payload, zlib.crc32(text))
        self._file.write(_FRAME.pack(len(text), len(payload), crc))
        self._file.write(text)
        self._file.write(payload)
        offset = self._held + _FRAME.size + len(text)
        self._held = offset + len(payload)
        return Entry(dict(head), offset, len(payload))

    def _recover(self) -> None:
        """Take the finished blocks that an earlier process has left."""
        waiting: list[Entry] = []
        for entry in _frames(self._file):
            if _BLOCK in entry.head:
                head = {name: value for name, value in entry.head.items() if name != _BLOCK}
                self.blocks.append(head)
                self.entries += waiting
                waiting, self._end = [], entry.offset + entry.size
            else:
                waiting.append(entry)
        self._held = self._end

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self._path, CollectionError, advice=_ADVICE)


def claim(folder: Path, group: str) -> Journal | None:
    """The journal of `group` in `folder`, claimed; None if another process holds it.

    Where files cannot be locked, no claim is known, and the process starts a journal of its own: the group's results
    are the same, whoever is first. Raises `CollectionError` if the disk refuses.
    """
    path = folder / f"{group}{SUFFIX}"
    while True:
        with writing(path, CollectionError, advice=_ADVICE):
            file = open(os.open(path, os.O_CREAT | os.O_RDWR, 0o666), "r+b", buffering=1 << 20)  # noqa: SIM115
        try:
            if not lock(file.fileno()):
                file.close()
                return _own(folder, group)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return Journal(path, file, keep=True)
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:  # another process has finished the group between the two
            pass
        file.close()


def _own(folder: Path, group: str) -> Journal:
    path = folder / f"{group}.{os.uname().nodename}-{os.getpid()}{SUFFIX}"
    with writing(path, CollectionError, advice=_ADVICE):
        file = open(path, "w+b", buffering=1 << 20)  # noqa: SIM115
    return Journal(path, file, keep=False)


def _frames(file: BinaryIO) -> Iterator[Entry]:
    """Whole frames from the start of `file` on, up to the first that is not."""
    file.seek(0)
    at = 0
    while len(start := file.read(_FRAME.size)) == _FRAME.size:
        length, size, crc = _FRAME.unpack(start)
        at += _FRAME.size
        left = os.fstat(file.fileno()).st_size - at
        if length + size > left:
            return
        text = file.read(length)
        payload = file.read(size)
        if zlib.crc32(payload, zlib.crc32(text)) != crc:
            return
        try:
            head = json.loads(text)
        except ValueError:
            return
        yield Entry(head, at + length, size)
        at += length + size
