"""Writing of token files chunk by chunk; none is ever half-written at its final path."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import BeingWrittenError, TokenFileError
from vidtok.files import check_place as check_any_place
from vidtok.files import lock, writing
from vidtok.tokens.container import (
    CHUNK_HEADER_BYTES,
    FLAG_PACKED,
    FLAG_TIMES,
    ChunkEntry,
    chunk,
    index,
    preamble,
    read_chunk_header,
)
from vidtok.tokens.header import MAX_SECONDS, TokenHeader
from vidtok.tokens.values import encode_values, int8_error

PARTIAL_SUFFIX = ".part"


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Path at which a token file for `path` is written until it is finished."""
    path = Path(path)
    return path.with_name(path.name + PARTIAL_SUFFIX)


class TokenWriter:
    """Writes a token file chunk by chunk. Use it in a `with` block.

    Until it is finished, the file is at `path` with `.part` appended, where `TokenFile` can read what it has; when the
    block ends, it moves to `path`. If the block raises, nothing is left behind. A `.part` that a killed process has
    left is overwritten.

    With `resume`, the intact whole chunks at the start of such a `.part` are kept, if its header is the same to the
    byte. `latent_frames` is then the number of latent frames kept, and writing continues after them. A block that is
    interrupted (by `KeyboardInterrupt` or `SystemExit`) then leaves its whole chunks in the `.part`, if it has any.

    Raises `TokenFileError` if the file cannot be written, another process is writing it, or values do not fit.
    """

    def __init__(self, path: str | os.PathLike[str], header: TokenHeader, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.header = header
        self.partial = partial_path(path)
        self.latent_frames = 0
        """Number of latent frames written so far, including those kept from a `.part`."""
        self._resume = resume
        self._entries: list[ChunkEntry] = []
        self._values: list[Tensor] = []
        self._held = 0
        self._times: list[float] = []
        self._timed = False
        self._energy = [0.0, 0.0]
        check_place(self.path)
        beginning = preamble(header)
        with writing(self.path, TokenFileError):
            self._file = _open_partial(self.partial, self.path)
            self._remove = weakref.finalize(self, _discard, self._file, self.partial)
            self._offset = 0
            if not (resume and self._take_over(beginning)):
                self._file.seek(0)
                self._file.truncate()
                self._put(beginning)

    @property
    def int8_snr(self) -> float | None:
        """Signal to quantization noise of the latent written so far, in dB; None without int8 coding."""
        signal, noise = self._energy
        return 10 * math.log10(signal / noise) if signal and noise else None

    def write(self, values: Tensor, times: Sequence[float] | None = None) -> None:
        """Append `values`: tokens (1, T', H', W') or a latent (1, z, T', H', W'), T' >= 0.

        `times` are the times of the next video frames in seconds of the source, of any number of frames: they need not
        match `values` call by call. Give them for all frames, if the header's frame rate does not give them, or for
        none. Raises `TokenFileError` if `values` do not fit the header, or the file is finished.
        """
        latent = self.header.latent
        if latent.discrete:
            fits = values.dim() == 4 and not values.is_floating_point() and values.dtype != torch.bool
            expected = f"whole numbers (1, T', {latent.height}, {latent.width})"
        else:
            fits = values.dim() == 5 and values.is_floating_point() and values.shape[1] == latent.channels
            expected = f"float (1, {latent.channels}, T', {latent.height}, {latent.width})"
        if not fits or values.shape[0] != 1 or tuple(values.shape[-2:]) != (latent.height, latent.width):
            raise TokenFileError(f"values are {values.dtype} of shape {tuple(values.shape)}; expected {expected}")
        if self._file.closed:
            raise TokenFileError(f"{self.path} is finished; open another writer to write more")
        if times is not None:
            self._times.extend(times)
            self._timed = True
        if values.shape[-3]:
            self._values.append(values[0].detach().cpu())
            self._held += values.shape[-3]
            self.latent_frames += values.shape[-3]
        # The last chunk waits for the end, since only then the number of its video frames is known.
        while self._held > latent.chunk:
            self._write_chunk(latent.chunk, None)

    def finish(self, frames: int | None = None) -> None:
        """Write the rest and the index, and move the file to its path; do nothing if it is finished already.

        `frames` is the number of video frames; None: the last latent frame stands for all of its f frames. Raises
        `TokenFileError` if the latent frames written do not stand for `frames`, or there are none.
        """
        if self._file.closed:
            return
        try:
            latent = self.header.latent
            most = latent.frames_before(self.latent_frames)
            frames = most if frames is None else frames
            least = max(1, most - latent.temporal_factor + 1)
            if not least <= frames <= most:
                raise TokenFileError(
                    f"{self.latent_frames} latent frames were written to {self.path} for {frames} frames; "
                    f"expected {least} to {most}" if most else f"nothing was written to {self.path}"
                )  # fmt: skip
            while self._held:
                self._write_chunk(min(self._held, latent.chunk), frames)
            with writing(self.path, TokenFileError):
                self._put(index(self._entries, self._offset))
                _move(self._file, self.partial, self.path)
                self._remove.detach()
                self._file.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up, and remove the unfinished file."""
        self._remove()

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif self._resume and self._entries and issubclass(kind, KeyboardInterrupt | SystemExit):
            self._remove.detach()
            self._file.close()
        else:
            self.abort()

    def _take_over(self, beginning: bytes) -> bool:
        """Keep the intact chunks of a `.part` that begins with `beginning`; return False if it does not."""
        file, latent = self._file, self.header.latent
        size = os.fstat(file.fileno()).st_size
        if file.read(len(beginning)) != beginning:
            return False
        at = len(beginning)
        while (found := read_chunk_header(file, at, latent)) is not None:
            first, entry = self.latent_frames, found.entry
            frames = latent.frames_before(first + latent.chunk) - latent.frames_before(first)
            whole = (entry.first_latent, entry.latents, entry.frames) == (first, latent.chunk, frames)
            end = at + CHUNK_HEADER_BYTES + found.length
            if not whole or end > size or zlib.crc32(file.read(found.length)) != found.crc:
                break
            self._entries.append(entry)
            self.latent_frames, at = first + latent.chunk, end
        file.seek(at)
        file.truncate()
        self._offset = at
        return True

    def _write_chunk(self, latents: int, end: int | None) -> None:
        """Write a chunk of the next `latents` latent frames; `end` is the number of all video frames, once known."""
        latent = self.header.latent
        held = torch.cat(self._values, -3)
        values = held[..., :latents, :, :]
        self._values = [held[..., latents:, :, :]]
        self._held -= latents
        first = self._entries[-1].first_latent + self._entries[-1].latents if self._entries else 0
        before, after = latent.frames_before(first), latent.frames_before(first + latents)
        frames = (after if end is None else min(after, end)) - before
        flags, timing = self._timing(frames)
        content, packed = encode_values(values, latent)
        if latent.coding == "int8":
            self._energy = [a + b for a, b in zip(self._energy, int8_error(values, latent), strict=True)]
        flags |= FLAG_PACKED if packed else 0
        entry = ChunkEntry(self._offset, first, latents, frames)
        with writing(self.path, TokenFileError):
            self._put(chunk(entry, timing + content, flags))
        self._entries.append(entry)

    def _timing(self, frames: int) -> tuple[int, bytes]:
        """The flag and the bytes of the next `frames` frames' times; 0 and no bytes if none were given."""
        if not self._timed:
            return 0, b""
        times = np.asarray(self._times[:frames], "<f8")
        if len(times) < frames:
            raise TokenFileError(f"{len(times)} times were given for {frames} frames of {self.path}; give one for each")
        if not (np.abs(times) <= MAX_SECONDS).all():
            raise TokenFileError(f"a frame of {self.path} has no time within {MAX_SECONDS:g} seconds of 0; give others")
        del self._times[:frames]
        return FLAG_TIMES, times.tobytes()

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._offset += len(content)


def check_place(path: Path) -> None:
    """Raise `TokenFileError` if no file can be written at `path`."""
    check_any_place(path, TokenFileError, "video.vtok")


@contextlib.contextmanager
def opened_partial(path: Path) -> Iterator[BinaryIO]:
    """A file to write, moved to `path` when the block ends, or removed if it raises."""
    partial = partial_path(path)
    with writing(path, TokenFileError):
        file = _open_partial(partial, path)
        try:
            file.truncate(0)
            yield file
            _move(file, partial, path)
        except BaseException:
            _discard(file, partial)
            raise
        file.close()


def _move(file: BinaryIO, partial: Path, path: Path) -> None:
    """Move a file to `path` while it is locked, so that no other process takes `partial` for its own."""
    os.fsync(file.fileno())
    os.replace(partial, path)


def _open_partial(partial: Path, path: Path) -> BinaryIO:
    """The file at `partial`, as it is or new, locked for this process where the system can do that.

    Raises `TokenFileError` if another process has locked it.
    """
    while True:
        handle = os.open(partial, os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        file = open(handle, "r+b", buffering=0)  # noqa: SIM115
        try:
            lock(handle)
            # The process that had the lock may have moved the file to its final path meanwhile.
            if partial.exists() and os.path.samestat(os.fstat(handle), partial.stat()):
                return file
        except BlockingIOError as error:
            file.close()
            raise BeingWrittenError(
                f"{path} is being written by another process, to {partial}; wait for it, or choose another output"
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()


def _discard(file: BinaryIO, path: Path) -> None:
    if file.closed:
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    file.close()
