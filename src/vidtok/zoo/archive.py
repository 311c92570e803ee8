"""Records of the zip archives that `torch.save` writes: mapped if they are stored uncompressed, else unpacked.

Sizes are checked first: an archive that would unpack to much more than its own size is refused.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import torch

MAX_RECORDS = 1 << 17
"""Records of an archive; a tensor is one."""
MAX_RATIO = 20
"""Bytes that an archive unpacks to for each of its own: deflated weights come to less than 2, zeros to 1,000."""
FREE_BYTES = 1 << 26
"""Bytes that any archive may unpack to."""

_END = struct.Struct("<4s4H2IH")  # of the directory: tag, disks, records here and in all, bytes, offset, comment
_END_64 = struct.Struct("<4sQ2H2I4Q")  # tag, size, versions, disks, records here and in all, bytes, offset
_LOCAL = struct.Struct("<4s5H3I2H")  # tag, …, lengths of name and extra field
_TAIL_BYTES = _END.size + (1 << 16) + 256
_RECORD_BYTES = 46 + 256
"""Bytes that a record takes in the directory, at most for names of our kind."""
_BLOCK = 1 << 20


class ArchiveError(ValueError):
    """An archive is damaged, or would unpack to too much."""


class Records:
    """The records of the archive at `path`, by their names below its one folder. Use it in a `with` block.

    With `mapped`, uncompressed records stay in the file, which has to stay whole, and their checksums are not compared.
    Raises `ArchiveError` or `OSError` if it is damaged, of something else, or unpacks to too much.
    """

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._check_directory()
            self._zip = zipfile.ZipFile(self._file)
            self._records = self._listed()
            self.swapped = self._is_swapped()
            """True if numbers are stored in the other byte order."""
        except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeError) as error:
            self._file.close()
            raise ArchiveError(str(error)) from error
        except BaseException:
            self._file.close()
            raise
        self._whole = torch.UntypedStorage.from_file(str(path), False, self._size) if mapped else None

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    @property
    def total(self) -> int:
        """Bytes of all records, unpacked."""
        return sum(info.file_size for info in self._records.values())

    def size(self, name: str) -> int:
        """Bytes of a record, unpacked. Raises `ArchiveError` if there is no such record."""
        if name not in self._records:
            raise ArchiveError(f"it has no record {name[:80]!r}")
        return self._records[name].file_size

    def read(self, name: str, most: int) -> bytes:
        """The content of a record. Raises `ArchiveError` if it has more than `most` bytes."""
        if self.size(name) > most:
            raise ArchiveError(f"its record {name!r} has {self.size(name):,} bytes, of at most {most:,}")
        return b"".join(self._blocks(name))

    def storage(self, name: str, alignment: int) -> torch.UntypedStorage:
        """The content of a record as memory; a mapped one if it begins at a multiple of `alignment` bytes."""
        size, info = self.size(name), self._records[name]
        if self._whole is not None and not self.swapped and info.compress_type == zipfile.ZIP_STORED:
            offset = self._offset(info)
            if size and offset % alignment == 0:
                return cast(torch.UntypedStorage, self._whole[offset : offset + size])
        values = torch.empty(size, dtype=torch.uint8)
        at = 0
        for block in self._blocks(name):
            values[at : at + len(block)] = torch.frombuffer(bytearray(block), dtype=torch.uint8)
            at += len(block)
        return values.untyped_storage()

    def _check_directory(self) -> None:
        """Raise `ArchiveError` if the directory, which is read as a whole, lists more than any checkpoint has."""
        self._file.seek(max(0, self._size - _TAIL_BYTES))
        tail = self._file.read(_TAIL_BYTES)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > len(tail):
            raise ArchiveError("it has no directory at its end")
        *_, count, size, _, _ = _END.unpack_from(tail, at)
        at = tail.rfind(b"PK\x06\x06")
        if at >= 0 and at + _END_64.size <= len(tail):
            *_, count_64, size_64, _ = _END_64.unpack_from(tail, at)
            count, size = max(count, count_64), max(size % 0xFFFFFFFF, size_64)
        if count > MAX_RECORDS or size > MAX_RECORDS * _RECORD_BYTES:
            raise ArchiveError(
                f"it lists {count:,} records in {size:,} bytes; expected at most {MAX_RECORDS:,} records"
            )

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        """The records by name. Raises `ArchiveError` for sizes and packings that no checkpoint has."""
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        odd = next(
            (info for info in infos if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), None
        )
        if odd is not None or any(info.flag_bits & 1 for info in infos):
            raise ArchiveError("its records are packed in a way that no checkpoint is")
        if sum(info.compress_size for info in infos) > self._size:
            raise ArchiveError("its records overlap")
        total = sum(info.file_size for info in infos)
        if total > max(FREE_BYTES, MAX_RATIO * self._size):
            raise ArchiveError(
                f"its {self._size:,} bytes would unpack to {total:,}, of at most {MAX_RATIO} times as many"
            )
        folders = [name.removesuffix("data.pkl") for name in (info.filename for info in infos)
                   if name == "data.pkl" or name.endswith("/data.pkl")]  # fmt: skip
        if len(folders) != 1:
            raise ArchiveError("it is an archive of something else")
        return {info.filename.removeprefix(folders[0]): info for info in infos}

    def _is_swapped(self) -> bool:
        name = "byteorder"
        return name in self._records and self.read(name, len("little")).decode("ascii") != sys.byteorder

    def _offset(self, info: zipfile.ZipInfo) -> int:
        """The place of a stored record's content in the file."""
        self._file.seek(info.header_offset)
        head = self._file.read(_LOCAL.size)
        tag, *_, name, extra = _LOCAL.unpack(head) if len(head) == _LOCAL.size else (b"", 0, 0)
        offset = info.header_offset + _LOCAL.size + int(name) + int(extra)
        if tag != b"PK\x03\x04" or info.compress_size != info.file_size or offset + info.file_size > self._size:
            raise ArchiveError("its directory does not fit its records")
        return offset

    def _blocks(self, name: str) -> Iterator[bytes]:
        """The content of a record, block by block. Raises `ArchiveError` at the end if it is not whole."""
        left = self._records[name].file_size
        try:
            with self._zip.open(self._records[name]) as record:
                while left and (block := record.read(min(left, _BLOCK))):
                    left -= len(block)
                    yield block
                record.read(1)  # has the checksum compared
        except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, struct.error, zlib.error) as error:
            raise ArchiveError(str(error) or "a record of it is cut off") from error
        if left:
            raise ArchiveError("a record of it is cut off")
