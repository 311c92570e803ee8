"""Files behind URLs, by way of fsspec; local paths do without it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vidtok.errors import CollectionError
from vidtok.text import reason

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MARKS = ("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created")
"""Entries of a listing that change when a file does, the surest first."""
_PIECE = 1 << 20


def is_url(name: str) -> bool:
    """True for names such as `s3://bucket/a.mp4`."""
    return _URL.match(name) is not None


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url`, and the path in it. Raises `CollectionError` if a package for it is missing."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise CollectionError(f"{url} needs the package fsspec; pip install 'vidtok[collections]'") from error
    try:
        found: tuple[Any, str] = url_to_fs(url)
        return found
    except (ImportError, ValueError) as error:
        raise CollectionError(f"{url} cannot be opened: {reason(error)}") from error


@contextlib.contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn errors of file systems, which have no common base, into `CollectionError`."""
    try:
        yield
    except CollectionError:
        raise
    except Exception as error:
        raise CollectionError(
            f"{url} cannot be read: {type(error).__name__}: {reason(error)}; check the URL and its permissions"
        ) from error


def remote_stamp(info: Mapping[str, Any]) -> str:
    """Size and mark of the last change of a file as its listing gives them."""
    mark = next((f"{info[name]}" for name in _MARKS if info.get(name) is not None), "")
    return f"{info.get('size')}-{mark}"


def open_any(name: str) -> Any:
    """A binary file for reading, at a path or a URL."""
    if not is_url(name):
        return open(name, "rb")
    system, path = file_system(name)
    return system.open(path, "rb")


def fetch(url: str, folder: Path, part: tuple[int, int] | None = None, name: str = "") -> Path:
    """Copy the file at `url`, or `part` (offset, size) of it, into `folder`, under its own name or `name`.

    Raises `CollectionError` if it cannot be read, or the copy cannot be written.
    """
    place = folder / (PurePosixPath(name or url.partition("?")[0]).name or "input")
    with remote_errors(url):
        if part is None and is_url(url):
            system, path = file_system(url)
            system.get_file(path, str(place))
        else:
            with open_any(url) as source, open(place, "wb") as target:
                source.seek(part[0] if part else 0)
                _copy(source, target, part[1] if part else None)
    return place


def _copy(source: Any, target: BinaryIO, size: int | None) -> None:
    left = size
    while left is None or left > 0:
        piece = source.read(_PIECE if left is None else min(_PIECE, left))
        if not piece:
            break
        target.write(piece)
        left = None if left is None else left - len(piece)
    if left:
        raise OSError(f"it ends {left} bytes early")


def joined(folder: str, name: str) -> str:
    """`name` relative to `folder`, either of which may be a URL or absolute."""
    if is_url(name) or os.path.isabs(name):
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)
