"""Lazy reading of token files: whole or cut off, finished or growing, intact or damaged."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtok.errors import DamagedTokenFileError, TokenFileError
from vidtok.text import counted, reason
from vidtok.tokens.container import (
    CHUNK_HEADER_BYTES,
    FLAG_PACKED,
    FLAG_TIMES,
    ChunkEntry,
    find_chunks,
    read_chunk_header,
    read_header,
    scan_chunks,
)
from vidtok.tokens.header import MAX_SECONDS, TokenHeader
from vidtok.tokens.values import ValuesError, decode_values, largest_size

TIME_BYTES = 8
MAX_BRIDGED = 1 << 16
"""Missing or damaged latent frames, at most, that copies replace in one reading."""
MAX_TIMES = 1 << 24
"""Frames, at most, whose times are returned at once."""
_BEYOND = (
    f"more than the {MAX_BRIDGED:,} latent frames that copies may stand in for; decode the parts that are there "
    "(--start, --end), or get an undamaged copy"
)

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chunk:
    """Successive latent frames of a file."""

    first_latent: int
    values: Tensor
    """Tokens (1, T', H', W') int32, or a latent (1, z, T', H', W')."""
    times: Times
    """(T,) times at which the chunk's video frames are shown, in seconds of the source."""
    damage: str | None = None
    """Fault of the chunk, whose `values` are then copies of a latent frame near it; None: they are the stored ones.
    All pieces of one gap have the same fault."""

    @property
    def latents(self) -> int:
        """Number of latent frames."""
        return self.values.shape[-3]


class TokenFile:
    """A token file, opened for reading. Use it in a `with` block, or `close` it.

    Opening reads the header and the index; everything else is read when it is asked for, chunk by chunk, so that memory
    does not grow with the file. A file without its end, because it is still being written or was cut off, gives the
    chunks that it has (`complete` is False); `refresh` looks for more.

    Raises `TokenFileError` if the file cannot be read, is not a token file, or has a damaged header.
    """

    header: TokenHeader
    """The header of the file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise TokenFileError(f"{path} is a folder; expected a token file, which `vidtok encode` writes")
        try:
            self._file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError as error:
            raise TokenFileError(f"{path}: no such file; check the path") from error
        except OSError as error:
            raise TokenFileError(f"{path} cannot be read: {reason(error)}; check its permissions") from error
        try:
            self.header, self._start = read_header(self._file, str(path))
            self._layout = find_chunks(self._file, self._start, self.header.latent)
        except OSError as error:
            self._file.close()
            raise TokenFileError(f"{path} cannot be read: {reason(error)}") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TokenFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read after that."""
        self._file.close()

    def refresh(self) -> bool:
        """Look for chunks written since; return True if there are any, or the file is complete now."""
        if self._layout.complete:
            return False
        before = self._layout
        found = scan_chunks(self._file, before.end, self.header.latent, behind=self.latent_frames)
        entries = before.entries + found.entries
        self._layout = type(found)(entries, found.complete, found.end, False)
        return found.complete or len(entries) > len(before.entries)

    @property
    def complete(self) -> bool:
        """True if the file was finished and has its end."""
        return self._layout.complete

    @property
    def entries(self) -> tuple[ChunkEntry, ...]:
        """The chunks that were found."""
        return self._layout.entries

    @property
    def latent_frames(self) -> int:
        """Number of latent frames, T', up to the last chunk that was found."""
        last = self._layout.entries[-1:]
        return last[0].first_latent + last[0].latents if last else 0

    @property
    def frames(self) -> int:
        """Number of video frames, T, up to the last chunk that was found."""
        last = self._layout.entries[-1:]
        return self.header.latent.frames_before(last[0].first_latent) + last[0].frames if last else 0

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of the video, as `Tokenizer.decode(…, size=…)` takes them."""
        return self.frames, self.header.video.height, self.header.video.width

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def timed(self) -> bool:
        """True if times are stored, because the frame rate alone does not give them; reads all chunk headers."""
        headers = (read_chunk_header(self._file, entry.offset, self.header.latent) for entry in self.entries)
        return any(header is not None and bool(header.flags & FLAG_TIMES) for header in headers)

    def read(self, start: int = 0, stop: int | None = None, *, skip_damaged: bool = False) -> Tensor:
        """The latent frames from `start` to before `stop` (None: to the end), as one tensor.

        Arguments, shapes and errors are as for `chunks`. `latents_of` turns video frames into latent frames.
        """
        start, stop = self._range(start, stop)
        parts = [chunk.values for chunk in self.chunks(start, stop, skip_damaged=skip_damaged)]
        return torch.cat(parts, -3)

    def latents_of(self, start: int, stop: int | None = None) -> tuple[int, int]:
        """The latent frames, (first, after the last), that the video frames from `start` to before `stop` belong to.

        `stop` None means to the end. Raises `TokenFileError` if the file does not have these frames.
        """
        stop = self.frames if stop is None else stop
        if not 0 <= start < stop <= self.frames:
            raise TokenFileError(f"frames {start} to {stop} were asked for; {self.path} has {self.frames}")
        latent = self.header.latent
        return latent.latent_of(start), latent.latent_of(stop - 1) + 1

    def chunks(self, start: int = 0, stop: int | None = None, *, skip_damaged: bool = False) -> Iterator[Chunk]:
        """The latent frames from `start` to before `stop` (None: to the end), chunk by chunk, as they are stored.

        The first and the last chunk are cut to the range. Tokens come as (1, T', H', W') int32, latents as
        (1, z, T', H', W') in the dtype that they are stored in, float32 for int8.

        Raises `TokenFileError` for a range that the file does not have, and `DamagedTokenFileError` where a chunk is
        damaged or missing. With `skip_damaged`, such a chunk has copies of the last latent frame before it (at the
        start, of the first after it), and its `damage` names the fault; more than `MAX_BRIDGED` copies are refused
        with `TokenFileError`.
        """
        start, stop = self._range(start, stop)
        self._check_gaps(start, stop)
        fill: Tensor | None = None
        bridged = 0
        for first, latents, entry in self._slots():
            low, high = max(start, first), min(stop, first + latents)
            if low >= high:
                continue
            piece = self._piece(first, latents, entry)
            if isinstance(piece, Chunk):
                fill = piece.values[..., -1:, :, :]
                yield self._cut(piece, low - first, high - first)
                continue
            if not skip_damaged:
                raise DamagedTokenFileError(
                    f"{self.path}: {piece}; decode the rest with --skip-damaged (skip_damaged=True)"
                )
            bridged += high - low
            if bridged > MAX_BRIDGED:
                raise TokenFileError(f"{self.path} is damaged beyond use: {piece}, {_BEYOND}")
            fill = self._nearest(first) if fill is None else fill
            yield from self._bridge(low, high, fill, piece)

    def times(self, start: int = 0, stop: int | None = None, *, skip_damaged: bool = False) -> Times:
        """Times (T,) of the video frames from `start` to before `stop` (None: to the end), in seconds of the source.

        Float64: the source's exact times where they are stored, else multiples of `1 / fps` from the header's `start`
        on. Raises as `chunks` does, and `TokenFileError` for more than `MAX_TIMES` frames.
        """
        low, high = self.latents_of(start, stop)
        if self.header.latent.frames_before(high) - self.header.latent.frames_before(low) > MAX_TIMES:
            raise TokenFileError(f"{self.path} has the times of more than {MAX_TIMES:,} frames; ask for fewer at once")
        parts = [chunk.times for chunk in self.chunks(low, high, skip_damaged=skip_damaged)]
        begin = self.header.latent.frames_before(low)
        return np.concatenate(parts)[start - begin : (self.frames if stop is None else stop) - begin]

    def damages(self) -> list[str]:
        """Faults of the chunks, one line each; reads all of the file."""
        pieces = (self._piece(*slot) for slot in self._slots())
        found = [piece for piece in pieces if isinstance(piece, str)]
        if not self.complete:
            found.append(f"the end is missing: after {self.frames} frames, the file is cut off or still being written")
        return found

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.latent_frames if stop is None else stop
        if not 0 <= start < stop <= self.latent_frames:
            raise TokenFileError(
                f"latent frames {start} to {stop} were asked for; {self.path} has {self.latent_frames}"
            )
        return start, stop

    def _check_gaps(self, start: int, stop: int) -> None:
        """Raise `TokenFileError` if more latent frames are missing from `start` to before `stop` than `MAX_BRIDGED`."""
        gaps = [(max(start, first), min(stop, first + latents)) for first, latents, entry in self._slots() if not entry]
        gaps = [(low, high) for low, high in gaps if low < high]
        if sum(high - low for low, high in gaps) > MAX_BRIDGED:
            low, high = max(gaps, key=lambda gap: gap[1] - gap[0])
            more = f" and in {counted(len(gaps) - 1, 'other place')}" if len(gaps) > 1 else ""
            raise TokenFileError(f"{self.path} has nothing between the latent frames {low} and {high}{more}, {_BEYOND}")

    def _slots(self) -> Iterator[tuple[int, int, ChunkEntry | None]]:
        """(first latent frame, number of latent frames, chunk) in order; the chunk is None for a gap."""
        at = 0
        for entry in self._layout.entries:
            if at < entry.first_latent:
                yield at, entry.first_latent - at, None
            yield entry.first_latent, entry.latents, entry
            at = entry.first_latent + entry.latents

    def _piece(self, first: int, latents: int, entry: ChunkEntry | None) -> Chunk | str:
        """The chunk of a slot, or the fault of one that is damaged or missing."""
        latent = self.header.latent
        before = latent.frames_before(first)
        frames = entry.frames if entry is not None else latent.frames_before(first + latents) - before
        low, high = first // latent.chunk, (first + latents - 1) // latent.chunk
        shown = f"(frames {before} to {before + frames - 1})"
        if entry is None:
            return f"chunk {low} {shown} is missing" if low == high else f"chunks {low} to {high} {shown} are missing"
        try:
            values, times = self._load(entry)
        except ValuesError as error:
            return f"chunk {low} {shown} is damaged: {error}"
        return Chunk(first, values, self._regular_times(before, frames) if times is None else times)

    def _bridge(self, first: int, last: int, fill: Tensor, damage: str) -> Iterator[Chunk]:
        """Copies of `fill` in place of the latent frames from `first` to before `last`, in pieces of a chunk's size."""
        latent = self.header.latent
        while first < last:
            end = min(last, (first // latent.chunk + 1) * latent.chunk)
            before = latent.frames_before(first)
            times = self._regular_times(before, min(latent.frames_before(end), self.frames) - before)
            values = fill.expand(*fill.shape[:-3], end - first, *fill.shape[-2:])
            yield Chunk(first, values, times, damage)
            first = end

    def _load(self, entry: ChunkEntry) -> tuple[Tensor, Times | None]:
        """The values of a chunk, and the times that it stores. Raises `ValuesError` if it is damaged."""
        try:
            header = read_chunk_header(self._file, entry.offset, self.header.latent)
            if header is None or header.entry != entry:
                raise ValuesError("its header does not match its checksum")
            timed = TIME_BYTES * entry.frames if header.flags & FLAG_TIMES else 0
            if header.length > timed + largest_size(self.header.latent, entry.latents):
                raise ValuesError(f"its length of {header.length} bytes is more than it can need")
            self._file.seek(entry.offset + CHUNK_HEADER_BYTES)
            payload = self._file.read(header.length)
        except OSError as error:
            raise ValuesError(f"it cannot be read ({reason(error)})") from error
        if len(payload) < header.length:
            raise ValuesError("it is cut off")
        if zlib.crc32(payload) != header.crc:
            raise ValuesError("it does not match its checksum")
        if header.length < timed:
            raise ValuesError("it is too short for the times of its frames")
        times = np.frombuffer(payload[:timed], "<f8").astype(np.float64) if timed else None
        if times is not None and not (np.abs(times) <= MAX_SECONDS).all():
            raise ValuesError("its times are not numbers of seconds")
        packed = bool(header.flags & FLAG_PACKED) and self.header.latent.discrete
        return decode_values(payload[timed:], self.header.latent, entry.latents, packed=packed), times

    def _regular_times(self, first: int, frames: int) -> Times:
        video = self.header.video
        return video.start + np.arange(first, first + frames) / float(video.fps)

    def _nearest(self, latent: int) -> Tensor:
        """The last latent frame before `latent` that can be read, else the first one after it."""
        slots = list(self._slots())
        before = [slot for slot in slots if slot[0] < latent]
        for slot in (*reversed(before), *slots[len(before) :]):
            piece = self._piece(*slot)
            if isinstance(piece, Chunk):
                return piece.values[..., -1:, :, :] if slot[0] < latent else piece.values[..., :1, :, :]
        raise DamagedTokenFileError(f"{self.path}: all of its chunks are damaged; get an undamaged copy")

    def _cut(self, piece: Chunk, low: int, high: int) -> Chunk:
        if low == 0 and high == piece.latents:
            return piece
        latent = self.header.latent
        begin, first, last = (
            latent.frames_before(piece.first_latent + offset) for offset in (0, low, high)
        )  # fmt: skip
        return Chunk(
            piece.first_latent + low, piece.values[..., low:high, :, :], piece.times[first - begin : last - begin]
        )  # fmt: skip
