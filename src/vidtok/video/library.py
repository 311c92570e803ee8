"""Videos in folders and lists, by one rule: suffixes, hidden files, symbolic links."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidtok.errors import VideoError, VidTokError
from vidtok.text import near, reason

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".3gp", ".gif", ".y4m", ".mxf",
)  # fmt: skip
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LIST_SUFFIXES = (".txt", ".csv", ".lst")
OUTPUT_SUFFIXES = (".mp4", ".mov", ".mkv", ".png")
"""Videos and pictures that are written."""
TOKEN_SUFFIX = ".vtok"
_COLUMN = "videos"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Inputs:
    """Files to work on one after the other: those below a folder, or those that a list names."""

    root: Path
    """The folder that all of them lie below; outputs mirror its folders."""
    paths: list[Path]

    def place(self, output: Path, path: Path) -> Path:
        """The path below the folder `output` that stands for the input `path`."""
        return output / path.relative_to(self.root)


def is_list(path: str | os.PathLike[str]) -> bool:
    """True for a file whose name says that it lists others (`LIST_SUFFIXES`)."""
    return Path(path).suffix.lower() in LIST_SUFFIXES and Path(path).is_file()


def find_inputs(source: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Inputs:
    """The files below the folder `source` that `find_files` finds, or those that the list `source` names.

    Paths in a list count from the list's own folder, and come in its order, each once. Raises `VideoError` if there are
    none, `source` is neither folder nor list, or the list cannot be read.
    """
    source = Path(source)
    if is_list(source):
        paths = list(dict.fromkeys(source.parent / name for name in read_list(source)))
        if not paths:
            raise VideoError(
                f"{source} names no files; expected one path a line, or a CSV file with a column {_COLUMN}"
            )
        whole = [Path(os.path.abspath(path)) for path in paths]
        return Inputs(Path(os.path.commonpath([path.parent for path in whole])), whole)
    if not source.is_dir():
        raise VideoError(
            f"{source} is not a folder; give one with videos in it, or a list ({', '.join(LIST_SUFFIXES)})"
        )
    paths = [Path(path) for path in find_files(source, suffixes)]
    if not paths:
        what = "videos and no pictures" if len(suffixes) > 1 else f"{suffixes[0]} files"
        raise VideoError(f"{source} has no {what} below it; expected files that end in {', '.join(suffixes)}")
    return Inputs(source, paths)


def is_media(name: str, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> bool:
    """True if a file's name, without folders, ends in one of `suffixes` (in lower case) and is not hidden."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def find_files(folder: str | os.PathLike[str], suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> list[str]:
    """The paths of all videos below `folder`, or of the files that end in other `suffixes`, sorted folder by folder.

    Suffixes match in either case. Hidden files and folders are left out. Symbolic links are followed, and each folder
    is searched once, so that links in a circle end. A broken link counts as a file, so that its reader reports it.

    Raises `VideoError` if a folder cannot be read, since its videos would go missing unnoticed.
    """
    return sorted(_walk(os.fspath(folder), suffixes), key=lambda path: path.split(os.sep))


def read_list(path: str | os.PathLike[str], named: str = "", error: type[VidTokError] = VideoError) -> list[str]:
    """Paths of the videos that a list names, as written and in its order; the caller resolves relative ones.

    A list is a CSV file with a column `videos`, or any other text with one path per line, where empty lines and lines
    that begin with `#` are skipped. A file without the suffix `.csv` is CSV if its first line names that column.
    `named` is the option that gave `path`, for messages. Raises `error` if the file cannot be read or a row names no
    video.
    """
    place = f"{named} {os.fspath(path)}".strip()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
        first = next(csv.reader([text.partition("\n")[0]]), [])
        if os.fspath(path).lower().endswith(".csv") or _COLUMN in first:
            return _column(text, place, error)
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise error(
            f"{place} cannot be read ({reason(cause)}); expected a CSV file with a column {_COLUMN}, or a text file "
            "with one video path per line"
        ) from cause
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def unbraced(pattern: str) -> list[str]:
    """The names that ranges in braces stand for: `a{08..10}b` gives `a08b`, `a09b` and `a10b`."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [rest for number in numbers for rest in unbraced(pattern[: found.start()] + number + pattern[found.end() :])]


def _column(text: str, place: str, error: type[VidTokError]) -> list[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    if _COLUMN not in columns:
        raise error(
            f"{place} has no column {_COLUMN}, but {', '.join(columns) or 'nothing'}{near(_COLUMN, columns)}; expected "
            f"a first line that names the columns, {_COLUMN} among them"
        )
    names = []
    for row in rows:
        name = (row[_COLUMN] or "").strip()
        if not name:
            raise error(f"{place}, line {rows.line_num}: no path in the column {_COLUMN}; expected one in every row")
        names.append(name)
    return names


def _walk(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    waiting = [folder]
    seen: set[tuple[int, int]] = set()
    while waiting:
        here = waiting.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                listed = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise VideoError(
                f"{here} cannot be read: {reason(error)}; make it readable for this user, or move it elsewhere"
            ) from error
        folders = []
        for entry in listed:
            if _is_folder(entry):
                folders.append(entry.path)
            elif is_media(entry.name, suffixes) and (entry.is_symlink() or entry.is_file()):
                yield entry.path
        waiting += sorted(folders, reverse=True)  # so that of several links to one folder, the same one always counts


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False
