"""Whole-or-nothing writing, places to write to, locks, and tensors in files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import uuid
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vidtok.errors import VidTokError
from vidtok.text import reason

if TYPE_CHECKING:
    from torch import Tensor

CHECK_DISK = "check the folder and the space left on the disk"
_NAME_BYTES, _SUFFIX_BYTES = 100, 32
_MARK = "[0-9a-f]{12}"
"""The part of hidden names between stem and suffix."""


class Aside:
    """A file or folder that is written beside its place, under a hidden name, and moved to its place when it is whole.

    As a context manager it makes the file, empty, and gives its path. The end of the block moves it to its place, where
    an old one stays until then; any exception, `KeyboardInterrupt` too, removes the new one. Without a block, `make`,
    `commit` and `discard` do the same, and an object that is dropped before `commit` removes what was written. Files
    that killed processes left for the same place are removed first.

    Args:
        place: a path in a folder that exists.
        folder: write a folder. It is made with the folders above it. If `place` is a folder already, the new files are
            moved into it one by one, and its other files stay.
        sync: flush the content to the disk before the move, so that a power cut cannot lose both old and new.

    Raises:
        OSError: the file system refuses; nothing is left behind.
    """

    def __init__(self, place: Path, *, folder: bool = False, sync: bool = False) -> None:
        self.place = place
        self.path = hidden_path(place)
        """The path to write to; it has the suffix of `place`, since writers may choose a format by it."""
        self._folder = folder
        self._sync = sync
        self._held: list[int] = []
        self._remove = weakref.finalize(self, _discard, self.path, self._held)

    def make(self) -> Path:
        """Make the file or folder, empty, lock it, so that `sweep` can tell it from a leftover, and return its path."""
        sweep(self.place)
        while True:
            if self._folder:
                self.path.mkdir(parents=True, exist_ok=True)
                if os.name == "nt":  # which opens no folders
                    return self.path
                try:
                    handle = os.open(self.path, os.O_RDONLY)
                except FileNotFoundError:  # a sweep was quicker
                    continue
            else:
                handle = os.open(self.path, os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
            if self._hold(handle):
                return self.path

    def _hold(self, handle: int) -> bool:
        """Keep `handle` locked, where the system can; False if a sweep was quicker and takes the file away."""
        try:
            if not lock(handle):
                os.close(handle)
                return True
            if os.path.samestat(os.fstat(handle), self.path.stat()):
                self._held.append(handle)
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)
        return False

    def commit(self) -> None:
        """Move the written file or folder to its place."""
        try:
            if self._sync:
                _flush(self.path)
            if self._folder:
                _move_folder(self.path, self.place)
            else:
                os.replace(self.path, self.place)
        finally:
            self._remove()

    def discard(self) -> None:
        """Remove the written file or folder; nothing happens after `commit`."""
        self._remove()

    def __enter__(self) -> Path:
        return self.make()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


@contextlib.contextmanager
def aside(
    place: Path,
    error: type[VidTokError] = VidTokError,
    *,
    folder: bool = False,
    sync: bool = False,
    problem: str | None = None,
    advice: str = CHECK_DISK,
) -> Iterator[Path]:
    """An `Aside` around the block, with `error` for errors of the file system; see `writing`."""
    with writing(place, error, problem=problem, advice=advice), Aside(place, folder=folder, sync=sync) as path:
        yield path


def write_whole(place: Path, content: str | bytes, error: type[VidTokError] = VidTokError) -> None:
    """Write a file, whole or not at all, and its folder where that is missing. Raises `error` if that fails."""
    with writing(place, error):
        place.parent.mkdir(parents=True, exist_ok=True)
    with aside(place, error) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(
    place: Path,
    error: type[VidTokError] = VidTokError,
    *,
    problem: str | None = None,
    advice: str = CHECK_DISK,
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn errors of the file system, and exceptions of the types `also`, into `error`: "PROBLEM: REASON; ADVICE".

    `problem` is "PLACE cannot be written" by default.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except kinds as cause:
        raise error(f"{problem or f'{place} cannot be written'}: {reason(cause)}; {advice}") from cause


def check_place(place: Path, error: type[VidTokError], example: str) -> None:
    """Raise `error` if no file can be written at `place`; for a folder, the message suggests `example` in it."""
    folder = place.parent
    absent = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with writing(place, error, advice="choose another path"), absent:
        if stat.S_ISDIR(os.stat(place).st_mode):
            raise error(f"{place} is a folder; give the path of a file in it, such as {place / example}")
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise error(f"{place} cannot be written: {folder} is {what}; make the folder first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise error(f"{place} cannot be written: no permission to write in {folder}; choose another folder")


def make_folder(folder: Path, error: type[VidTokError], advice: str) -> None:
    """Make `folder` and the folders above it, where they are missing. Raises `error` if that fails."""
    with writing(folder, error, problem=f"{folder} cannot be made", advice=advice):
        folder.mkdir(parents=True, exist_ok=True)


def hidden_path(place: Path) -> Path:
    """A new hidden name beside `place`, with its suffix, short enough for any file system."""
    stem, suffix = _hidden_parts(place)
    return place.with_name(f".{stem}-{uuid.uuid4().hex[:12]}{suffix}")


def sweep(place: Path) -> None:
    """Remove files that killed processes left for `place`: those under its hidden names that no process holds."""
    stem, suffix = map(re.escape, _hidden_parts(place))
    _sweep(place.parent, re.compile(rf"\.{stem}-{_MARK}{suffix}"))


def sweep_folder(folder: Path) -> None:
    """Remove files that killed processes left in `folder`, for whatever place; its subfolders are not searched."""
    _sweep(folder, re.compile(rf"\..+-{_MARK}(\.[^.]*)?"))


def _sweep(folder: Path, leftover: re.Pattern[str]) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if leftover.fullmatch(entry.name)]:
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    """Remove `path` unless a process holds it, or that cannot be found out.

    The lock is kept until it is removed, so that whoever has just made it and not locked it yet makes another.
    """
    try:
        # Some network file systems lock no file that is opened for reading alone.
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return
    try:
        if lock(handle):
            _remove(path)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` to `path` with the permissions that the process gives to new files.

    safetensors itself makes files that their owner alone can read. Raises `safetensors.SafetensorError` or `OSError`.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=dict(metadata))
    os.chmod(path, mode)


def lock(handle: int, *, of_process: bool = False) -> bool:
    """Lock the open file `handle`; returns True if it is locked. Raises `BlockingIOError` if another holds the lock.

    The open file holds the lock, and forked children share it. With `of_process` this process alone holds it, until it
    ends, whatever its children do. Nothing is locked on Windows and on file systems without locks, some network ones
    among them.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    take = fcntl.lockf if of_process else fcntl.flock
    try:
        take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except PermissionError as error:  # some systems' answer where a record lock is taken
        raise BlockingIOError(*error.args) from error
    except OSError:
        return False
    return True


def _hidden_parts(place: Path) -> tuple[str, str]:
    """Stem and suffix of hidden names beside `place`."""
    return _cut(place.stem.lstrip("."), _NAME_BYTES), _cut(place.suffix, _SUFFIX_BYTES)


def _cut(text: str, size: int) -> str:
    """The first characters of `text`, up to `size` bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _flush(path: Path) -> None:
    """Flush a file, or all files below a folder, to the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            handle = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _move_folder(path: Path, place: Path) -> None:
    """Move the folder `path` to `place`. A folder that is there may be some process's current one: it stays, and takes
    the files."""
    if place.is_dir():
        for file in sorted(path.iterdir()):
            os.replace(file, place / file.name)
    else:
        os.rename(path, place)


def _discard(path: Path, held: list[int]) -> None:
    """Remove the file or folder at `path`, and close the handles that hold it."""
    _remove(path)
    while held:
        os.close(held.pop())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
