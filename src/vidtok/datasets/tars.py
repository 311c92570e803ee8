"""Videos in uncompressed .tar files (WebDataset's shards), with the captions and columns that lie beside them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vidtok.datasets.remote import open_any
from vidtok.errors import CollectionError
from vidtok.text import one_line, reason
from vidtok.video.library import is_media

TAR_SUFFIX = ".tar"
_MOST_TEXT = 1 << 20
"""Bytes of a caption or of columns; longer ones are left out."""


class Member(NamedTuple):
    """A video inside a .tar."""

    name: str
    offset: int
    size: int
    columns: dict[str, Any]
    problem: str = ""
    """The reason that its columns cannot be read; empty if they can."""


def tar_videos(path: str, suffixes: tuple[str, ...]) -> Iterator[Member]:
    """The videos of the .tar at `path`, a path or URL, in its order; hidden members are left out.

    Members of one sample have one name up to the first dot: a `.json` gives the columns of a video, a `.txt` its
    caption. Raises `CollectionError` if the file is no uncompressed .tar or is cut off; the columns of one sample that
    cannot be read are a problem of its videos alone.
    """
    try:
        with open_any(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            yield from _samples(archive, suffixes)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CollectionError(
            f"{path} cannot be read as a .tar ({reason(error)}); expected an uncompressed one, whole"
        ) from error


def _samples(archive: tarfile.TarFile, suffixes: tuple[str, ...]) -> Iterator[Member]:
    key = problem = ""
    videos: list[tarfile.TarInfo] = []
    columns: dict[str, Any] = {}
    for member in archive:
        parts = PurePosixPath(member.name)
        if not member.isfile() or any(part.startswith(".") for part in parts.parts):
            continue
        stem, _, suffix = parts.name.partition(".")
        if (own := str(parts.parent / stem)) != key:
            yield from _members(videos, columns, problem)
            key, videos, columns, problem = own, [], {}, ""
        if is_media(parts.name, suffixes):
            videos.append(member)
        elif suffix in ("json", "txt") and member.size <= _MOST_TEXT:
            try:
                columns |= _columns(archive, member, suffix)
            except ValueError as error:
                problem = f"{member.name} beside it is no JSON ({one_line(error)}); mend it or take it out"
    yield from _members(videos, columns, problem)


def _members(videos: list[tarfile.TarInfo], columns: dict[str, Any], problem: str) -> Iterator[Member]:
    for video in videos:
        yield Member(video.name, video.offset_data, video.size, dict(columns), problem)


def _columns(archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> dict[str, Any]:
    file = archive.extractfile(member)
    content = b"" if file is None else file.read()
    if suffix == "txt":
        return {"caption": content.decode("utf-8", "replace").strip()}
    found = json.loads(content)
    return found if isinstance(found, dict) else {}
