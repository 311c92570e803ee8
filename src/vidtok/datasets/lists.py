"""Lists of inputs: text, CSV, JSON lines and Parquet; columns beside the paths are kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vidtok.datasets.remote import open_any
from vidtok.errors import CollectionError
from vidtok.text import near, one_line, reason
from vidtok.video import library

LIST_SUFFIXES = (*library.LIST_SUFFIXES, ".jsonl", ".parquet")
COLUMN = "videos"
_ROWS = 1024


class Row(NamedTuple):
    """A path or URL as a list names it, and the other columns of its row."""

    name: str
    columns: dict[str, Any]


def read_rows(path: str, column: str = COLUMN) -> Iterator[Row]:
    """The rows of the list at `path`, a path or URL that ends in one of `LIST_SUFFIXES`; memory does not grow.

    In `.txt`, each line is a path; empty lines and lines that begin with `#` are skipped. The others have a `column` of
    paths. Raises `CollectionError` if the list cannot be read, has no such column, or a row has no path in it.
    """
    try:
        if path.lower().endswith(".parquet"):
            yield from _parquet(path, column)
            return
        with open_any(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            if path.lower().endswith(".csv"):
                yield from _csv(text, path, column)
            elif path.lower().endswith(".jsonl"):
                yield from _jsonl(text, path, column)
            else:
                yield from text_rows(text)
    except CollectionError:
        raise
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(f"{path} cannot be read: {reason(error)}; check the list") from error


def text_rows(lines: Iterable[str]) -> Iterator[Row]:
    """The paths of a list with one a line."""
    stripped = map(str.strip, lines)
    yield from (Row(line, {}) for line in stripped if line and not line.startswith("#"))


def _csv(text: io.TextIOWrapper, path: str, column: str) -> Iterator[Row]:
    rows = csv.DictReader(text)
    _check_column(column, rows.fieldnames or [], path)
    for row in rows:
        columns: dict[str, Any] = {name: value for name, value in row.items() if name is not None}
        yield _row(columns, column, f"{path}, line {rows.line_num}")


def _jsonl(text: io.TextIOWrapper, path: str, column: str) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise CollectionError(f"{path}, line {number} is no JSON: {one_line(error)}; mend the list") from error
        if not isinstance(found, dict):
            raise CollectionError(f"{path}, line {number} is no object; expected one with the key {column}")
        _check_column(column, list(found), f"{path}, line {number}")
        yield _row(found, column, f"{path}, line {number}")


def _parquet(path: str, column: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CollectionError(f"{path} needs the package pyarrow; pip install 'vidtok[collections]'") from error
    try:
        with open_any(path) as file:
            table = pyarrow.parquet.ParquetFile(file)
            _check_column(column, table.schema_arrow.names, path)
            for batch in table.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield _row(row, column, path)
    except pyarrow.ArrowException as error:
        raise CollectionError(f"{path} cannot be read as Parquet: {one_line(error)}; check the list") from error


def _row(columns: dict[str, Any], column: str, place: str) -> Row:
    name = columns.pop(column)
    if not isinstance(name, str) or not name.strip():
        raise CollectionError(f"{place}: no path in the column {column}; expected one in every row")
    return Row(name.strip(), {key: value for key, value in columns.items() if _is_plain(value)})


def _is_plain(value: object) -> bool:
    """True for values that JSON holds as they are."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


def _check_column(column: str, columns: Iterable[str], place: str) -> None:
    known = list(columns)
    if column not in known:
        raise CollectionError(
            f"{place} has no column {column}, but {', '.join(known) or 'nothing'}{near(column, known)}; give the "
            "column of paths (--column)"
        )
