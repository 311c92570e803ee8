"""The bytes of a token file: preamble, chunk headers, index, as in docs/token-file.md.

All numbers are little-endian. Every length is compared with the size of the file before memory is taken for it.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from vidtok.errors import TokenFileError
from vidtok.text import EMPTY
from vidtok.tokens.header import MAX_FRAMES, MAX_HEADER_BYTES, LatentLayout, TokenHeader

MAGIC = b"\x89VTOK\r\n\x1a"
VERSION = 1
STREAMS_VERSION = 2
"""Version of files whose latents have several parts, which readers of version 1 must not take for a single one."""
_PREAMBLE = struct.Struct("<8sHHII")  # magic, version, 0, length and CRC-32 of the header; then the CRC-32 of all this
_CHUNK = struct.Struct("<4sIQIIII")  # tag, payload length, first latent frame, latent frames, frames, flags, its CRC-32
_CRC = struct.Struct("<I")
_INDEX = struct.Struct("<4sII")  # tag, entries, their CRC-32
_ENTRY = struct.Struct("<QQII")  # offset, first latent frame, latent frames, frames
_TRAILER = struct.Struct("<QI8s")  # offset of the index, CRC-32 of that offset, end mark

CHUNK_TAG = b"CHNK"
INDEX_TAG = b"INDX"
END = b"VTOKEND\n"
_TAG = re.compile(CHUNK_TAG + b"|" + INDEX_TAG)
CHUNK_HEADER_BYTES = _CHUNK.size + _CRC.size
_PREAMBLE_BYTES = _PREAMBLE.size + _CRC.size
_FIRST_SEARCH, _SEARCH = 1 << 12, 1 << 20
"""Bytes of the first block that a search reads, and of the largest."""

FLAG_TIMES = 1
"""The payload begins with the times of the frames."""
FLAG_PACKED = 2
"""The tokens are packed in spite of the coding in the header, since entropy coding made them no smaller."""


@dataclass(frozen=True)
class ChunkEntry:
    """The place of a chunk in the file, and the frames that it holds."""

    offset: int
    """Byte of the file at which the chunk's header begins."""
    first_latent: int
    """Number of the chunk's first latent frame, from 0 on."""
    latents: int
    """Number of latent frames."""
    frames: int
    """Number of video frames that they stand for."""


@dataclass(frozen=True)
class ChunkHeader:
    """The header of a chunk."""

    entry: ChunkEntry
    length: int
    """Bytes of the payload."""
    flags: int
    crc: int
    """CRC-32 of the payload."""


@dataclass(frozen=True)
class Layout:
    """The chunks of a file, as far as they can be found."""

    entries: tuple[ChunkEntry, ...]
    complete: bool
    """True if the file has its end, so that no chunk is missing there."""
    end: int
    """Offset behind the last chunk found."""
    from_index: bool
    """True if the file's index lists them; False if they were searched for, one after another."""


def preamble(header: TokenHeader) -> bytes:
    """Bytes of the beginning of a file, up to its first chunk."""
    content = header.to_json()
    version = STREAMS_VERSION if header.latent.streams else VERSION
    fixed = _PREAMBLE.pack(MAGIC, version, 0, len(content), zlib.crc32(content))
    return fixed + _CRC.pack(zlib.crc32(fixed)) + content


def chunk(entry: ChunkEntry, payload: bytes, flags: int) -> bytes:
    """Bytes of a chunk: its header, and `payload`."""
    fixed = _CHUNK.pack(
        CHUNK_TAG, len(payload), entry.first_latent, entry.latents, entry.frames, flags, zlib.crc32(payload)
    )
    return fixed + _CRC.pack(zlib.crc32(fixed)) + payload


def index(entries: Sequence[ChunkEntry], offset: int) -> bytes:
    """Bytes of the index and the trailer that end a finished file; the index is at `offset`."""
    listed = b"".join(_ENTRY.pack(e.offset, e.first_latent, e.latents, e.frames) for e in entries)
    where = struct.pack("<Q", offset)
    return (
        _INDEX.pack(INDEX_TAG, len(entries), zlib.crc32(listed))
        + listed
        + _TRAILER.pack(offset, zlib.crc32(where), END)
    )


def read_header(file: BinaryIO, name: str) -> tuple[TokenHeader, int]:
    """The header of a file, and the offset of its first chunk. Raises `TokenFileError` if it is not a token file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    fixed = file.read(_PREAMBLE_BYTES)
    if fixed[: len(MAGIC)] != MAGIC:
        other = "does not begin as a token file does; expected a file that `vidtok encode` wrote"
        raise TokenFileError(f"{name} {other if fixed else EMPTY}")
    if len(fixed) < _PREAMBLE_BYTES:
        raise TokenFileError(f"{name} is cut off in its header, of which nothing can be decoded; encode again")
    _, version, _, length, crc = _PREAMBLE.unpack_from(fixed)
    if zlib.crc32(fixed[: _PREAMBLE.size]) != _CRC.unpack_from(fixed, _PREAMBLE.size)[0]:
        raise TokenFileError(f"{name} is damaged in its first {_PREAMBLE_BYTES} bytes; get an undamaged copy")
    if version not in (VERSION, STREAMS_VERSION):
        raise TokenFileError(
            f"{name} is a token file of version {version}; this version of the package reads up to {STREAMS_VERSION} "
            "(a newer one may read it: `pip install --upgrade vidtok`)"
        )
    if length > min(MAX_HEADER_BYTES, size - _PREAMBLE_BYTES):
        raise TokenFileError(f"{name} is cut off in its header, of which nothing can be decoded; encode again")
    content = file.read(length)
    if zlib.crc32(content) != crc:
        raise TokenFileError(f"{name} is damaged in its header; get an undamaged copy")
    try:
        header = TokenHeader.from_json(content)
    except TokenFileError as error:
        raise TokenFileError(f"{name}: {error}") from error
    return header, _PREAMBLE_BYTES + length


def find_chunks(file: BinaryIO, start: int, latent: LatentLayout) -> Layout:
    """The chunks of a file, the first of which is at offset `start`: from its index, or searched for if it has none."""
    size = os.fstat(file.fileno()).st_size
    found = _read_index(file, start, size, latent)
    return scan_chunks(file, start, latent) if found is None else found


def _read_index(file: BinaryIO, start: int, size: int, latent: LatentLayout) -> Layout | None:
    """The chunks that the index lists; None if there is no index, or no intact one."""
    if size < start + _INDEX.size + _TRAILER.size:
        return None
    file.seek(size - _TRAILER.size)
    offset, crc, end = _TRAILER.unpack(file.read(_TRAILER.size))
    room = size - offset - _INDEX.size - _TRAILER.size
    if end != END or zlib.crc32(struct.pack("<Q", offset)) != crc or offset < start or room < 0:
        return None
    file.seek(offset)
    tag, count, crc = _INDEX.unpack(file.read(_INDEX.size))
    if tag != INDEX_TAG or count * _ENTRY.size != room:
        return None
    listed = file.read(room)
    if zlib.crc32(listed) != crc:
        return None
    entries = tuple(ChunkEntry(*numbers) for numbers in _ENTRY.iter_unpack(listed))
    behind = 0
    for entry in entries:
        if not (_fits(entry, latent) and start <= entry.offset < offset and entry.first_latent >= behind):
            return None
        start, behind = entry.offset + CHUNK_HEADER_BYTES, entry.first_latent + entry.latents
    return Layout(entries, True, offset, True)


def scan_chunks(file: BinaryIO, start: int, latent: LatentLayout, *, behind: int = 0) -> Layout:
    """The chunks from offset `start` on, searched for one after another; damaged bytes are stepped over.

    `behind` is the number of the first latent frame after the chunks before `start`. A last chunk that is not whole is
    left out.
    """
    size = os.fstat(file.fileno()).st_size
    entries: list[ChunkEntry] = []
    at = start
    while True:
        if _tag_at(file, at) == INDEX_TAG:
            return Layout(tuple(entries), True, at, False)
        header = read_chunk_header(file, at, latent)
        if header is not None and header.entry.first_latent >= behind:
            if at + CHUNK_HEADER_BYTES + header.length > size:
                return Layout(tuple(entries), False, at, False)
            entries.append(header.entry)
            behind = header.entry.first_latent + header.entry.latents
            at += CHUNK_HEADER_BYTES + header.length
            continue
        if at + CHUNK_HEADER_BYTES > size:
            return Layout(tuple(entries), False, at, False)
        found = next((place for place in _tags(file, at + 1, size) if _plausible(file, place, latent, behind)), None)
        if found is None:
            return Layout(tuple(entries), False, at, False)
        at = found


def _tags(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    """Offsets, from `start` on, of bytes that read like the tag of a chunk or of the index.

    The blocks read grow from a small one on, so that a search takes time in proportion to the distance of its find.
    """
    overlap = len(CHUNK_TAG) - 1
    length = _FIRST_SEARCH
    while start + overlap < size:
        file.seek(start)
        for match in _TAG.finditer(file.read(length + overlap)):
            yield start + match.start()
        start += length
        length = min(2 * length, _SEARCH)


def _plausible(file: BinaryIO, offset: int, latent: LatentLayout, behind: int) -> bool:
    """True if an index, or a chunk of latent frames from `behind` on, begins at `offset`."""
    if _tag_at(file, offset) == INDEX_TAG:
        size = os.fstat(file.fileno()).st_size
        _, count, _ = _INDEX.unpack(_read_at(file, offset, _INDEX.size).ljust(_INDEX.size, b"\0"))
        return bool(offset + _INDEX.size + count * _ENTRY.size + _TRAILER.size == size)
    header = read_chunk_header(file, offset, latent)
    return header is not None and header.entry.first_latent >= behind


def read_chunk_header(file: BinaryIO, offset: int, latent: LatentLayout) -> ChunkHeader | None:
    """The header of the chunk at `offset`; None if there is no intact one."""
    fixed = _read_at(file, offset, CHUNK_HEADER_BYTES)
    if len(fixed) < CHUNK_HEADER_BYTES:
        return None
    tag, length, first, latents, frames, flags, crc = _CHUNK.unpack_from(fixed)
    if tag != CHUNK_TAG or zlib.crc32(fixed[: _CHUNK.size]) != _CRC.unpack_from(fixed, _CHUNK.size)[0]:
        return None
    entry = ChunkEntry(offset, first, latents, frames)
    return ChunkHeader(entry, length, flags, crc) if _fits(entry, latent) else None


def _fits(entry: ChunkEntry, latent: LatentLayout) -> bool:
    """True if a file of this layout can have this chunk."""
    if not 1 <= entry.latents <= latent.chunk or entry.first_latent > MAX_FRAMES or entry.first_latent % latent.chunk:
        return False
    most = latent.frames_before(entry.first_latent + entry.latents) - latent.frames_before(entry.first_latent)
    return max(1, most - latent.temporal_factor + 1) <= entry.frames <= most


def _tag_at(file: BinaryIO, offset: int) -> bytes:
    return _read_at(file, offset, len(CHUNK_TAG))


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
