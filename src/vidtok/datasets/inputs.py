"""Inputs of a collection: folders, globs, lists and .tar shards, each input with a stamp that changes when it does."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vidtok.datasets.lists import COLUMN, LIST_SUFFIXES, read_rows, text_rows
from vidtok.datasets.remote import file_system, is_url, joined, open_any, remote_errors, remote_stamp
from vidtok.datasets.tars import TAR_SUFFIX, tar_videos
from vidtok.errors import CollectionError, VideoError
from vidtok.text import reason
from vidtok.video.library import PICTURE_SUFFIXES, VIDEO_SUFFIXES, find_files, is_media, unbraced

_THREADS = 16
"""Threads that ask for sizes and times, which a network file system answers slowly."""
_AHEAD = 256
_PIECE = 1 << 20
_WILD = frozenset("*?[")
STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One video or picture to tokenize."""

    source: str
    """Absolute path or URL; of a member of a .tar, those of the .tar."""
    stamp: str
    """Size and time of the last change, or a hash of the content."""
    member: str = ""
    """Name inside the .tar; empty if it lies in none."""
    offset: int = 0
    size: int = 0
    """Place of the member in the .tar, in bytes."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Values that pass through to the records, such as a caption."""

    @property
    def name(self) -> str:
        """The path or URL; of a member, with its name behind a slash."""
        return f"{self.source}/{self.member}" if self.member else self.source


class Absent(NamedTuple):
    """An input that is named but cannot be looked at."""

    name: str
    reason: str


class _Found(NamedTuple):
    """An input before its stamp is known."""

    source: str
    columns: dict[str, Any]
    stamp: str = ""
    member: str = ""
    offset: int = 0
    size: int = 0
    problem: str = ""
    """The reason that it cannot be an input."""

    @property
    def name(self) -> str:
        return f"{self.source}/{self.member}" if self.member else self.source


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Inputs as a user names them.

    A word is a video, a folder, a pattern with `*`, `?` or `[...]`, a list that ends in one of `LIST_SUFFIXES`, a .tar
    with videos, any of them with ranges such as `{000..127}` or as a URL that fsspec knows, or `-` for a list on
    standard input, of paths of any of these kinds. Paths in a list are relative to its folder, or to `root`.
    """

    words: tuple[str, ...]
    column: str = COLUMN
    """Column of the paths in lists with columns."""
    root: str | None = None
    content: bool = False
    """Hash the content of each input; else its size and time of change stand for it."""
    pictures: bool = True
    """Take pictures in folders and .tar files too."""

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return VIDEO_SUFFIXES + PICTURE_SUFFIXES if self.pictures else VIDEO_SUFFIXES

    def inputs(self) -> Iterator[Input | Absent]:
        """All inputs in a fixed order, with stamps; inputs that cannot be looked at come as `Absent`.

        So do .tar files among others that cannot be read. Raises `CollectionError` if a word leads to nothing that can
        be, or a list cannot be read.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[Future[Input | Absent]] = deque()
            for found in self._found():
                waiting.append(pool.submit(self._stamped, found))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _found(self) -> Iterator[_Found]:
        for word in self.words:
            if word == STDIN:
                for row in text_rows(sys.stdin):
                    yield from self._expanded(joined(self.root or os.curdir, row.name), row.columns)
                continue
            names: list[str] = []
            for name in unbraced(word):
                if name.lower().endswith(LIST_SUFFIXES) and not _WILD & set(name):
                    root = self.root or (name.rpartition("/")[0] if is_url(name) else os.path.dirname(name))
                    for row in read_rows(name, self.column):
                        yield from self._expanded(joined(root, row.name), row.columns)
                else:
                    names.append(name)
            yield from self._named(names)

    def _named(self, names: Sequence[str]) -> Iterator[_Found]:
        """The inputs that the names of a word lead to; one that leads to nothing is a mistake."""
        usable, problem = 0, ""
        for name in names:
            some = False
            for found in self._matches(name):
                some = True
                usable += not found.problem
                problem = problem or found.problem
                yield found
            if not some:
                raise CollectionError(
                    f"there is no input {name}, or no video in it; expected videos, folders, patterns, .tar files, or "
                    f"lists that end in {', '.join(LIST_SUFFIXES)}"
                )
        if problem and not usable:
            raise CollectionError(problem)

    def _matches(self, name: str) -> Iterator[_Found]:
        if is_url(name):
            yield from self._remote(name)
        elif os.path.isdir(name):
            try:
                paths = find_files(name, (*self._suffixes, TAR_SUFFIX))
            except VideoError as error:
                raise CollectionError(str(error)) from error
            for path in paths:
                yield from self._expanded(path, {})
        elif os.path.exists(name):
            yield from self._expanded(name, {})
        elif _WILD & set(name):
            for path in sorted(glob.glob(name, recursive=True)):
                yield from self._matches(path)

    def _remote(self, url: str) -> Iterator[_Found]:
        system, path = file_system(url)
        with remote_errors(url):
            if _WILD & set(path):
                listed = system.glob(path, detail=True)
            elif url.endswith("/") or (not _is_file_name(path, self._suffixes) and system.isdir(path)):
                listed = system.find(path, detail=True)
                listed = {at: info for at, info in listed.items() if _is_file_name(at, self._suffixes)}
            else:
                listed = {path: system.info(path)}
        for at in sorted(listed):
            if listed[at].get("type", "file") == "file":
                yield from self._expanded(_full(system, at), {}, remote_stamp(listed[at]))

    def _expanded(self, name: str, columns: dict[str, Any], stamp: str = "") -> Iterator[_Found]:
        """An input, or the videos of a .tar."""
        name = name if is_url(name) else os.path.abspath(name)
        if not name.lower().endswith(TAR_SUFFIX):
            yield _Found(name, columns, stamp)
            return
        try:
            stamp = stamp or _stamp_of(name)
            members = list(tar_videos(name, self._suffixes))
        except (CollectionError, OSError) as error:
            yield _Found(name, columns, problem=reason(error))
            return
        for member in members:
            merged = columns | member.columns
            yield _Found(name, merged, stamp, member.name, member.offset, member.size, member.problem)

    def _stamped(self, found: _Found) -> Input | Absent:
        if found.problem:
            return Absent(found.name, found.problem)
        try:
            stamp = found.stamp
            if self.content:
                stamp = _content(found)
            elif not stamp:
                stamp = _stamp_of(found.source)
        except (CollectionError, OSError, ValueError) as error:
            return Absent(found.source, reason(error))
        return Input(found.source, stamp, found.member, found.offset, found.size, found.columns)


def _is_file_name(path: str, suffixes: tuple[str, ...]) -> bool:
    return is_media(path.rpartition("/")[2], (*suffixes, TAR_SUFFIX))


def _full(system: Any, path: str) -> str:
    """The URL of a path in a file system."""
    return path if is_url(path) else str(system.unstrip_protocol(path))


def _stamp_of(name: str) -> str:
    """Size and time of the last change. Raises `OSError` or `CollectionError` if there is no such file."""
    if is_url(name):
        system, path = file_system(name)
        with remote_errors(name):
            return remote_stamp(system.info(path))
    status = os.stat(name)
    return f"{status.st_size}-{status.st_mtime_ns}"


def _content(found: _Found) -> str:
    """Hash of the content of a file, or of all pictures of a folder."""
    digest = hashlib.sha256()
    for name in _files_of(found.source):
        with open_any(name) as file:
            file.seek(found.offset)
            left = found.size if found.member else None
            while left is None or left > 0:
                piece = file.read(_PIECE if left is None else min(_PIECE, left))
                if not piece:
                    break
                digest.update(piece)
                left = None if left is None else left - len(piece)
    return digest.hexdigest()


def _files_of(name: str) -> Iterable[str]:
    return find_files(name, PICTURE_SUFFIXES) if not is_url(name) and os.path.isdir(name) else (name,)
