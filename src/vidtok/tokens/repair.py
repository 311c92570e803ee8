"""A new index for a token file that was cut off, or whose end is damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from vidtok.errors import TokenFileError
from vidtok.text import reason
from vidtok.tokens.container import find_chunks, index, read_header
from vidtok.tokens.writer import check_place, opened_partial

_BLOCK = 1 << 20


def rebuild_index(path: str | os.PathLike[str]) -> bool:
    """Give the token file at `path` an index of the chunks that are there; return False if it has an index already.

    A last chunk that is not whole is removed, and the file ends with the chunk before it. Chunks are kept as they are,
    damaged ones too. The file is replaced when the new one is whole.

    Raises `TokenFileError` if it is not a token file, no chunk is left, or it cannot be read or written.
    """
    path = Path(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise TokenFileError(f"{path} cannot be read: {reason(error)}; check the path") from error
    with file:
        header, start = read_header(file, str(path))
        layout = find_chunks(file, start, header.latent)
        if layout.from_index:
            return False
        if not layout.entries:
            raise TokenFileError(f"{path} is cut off before its first chunk ends; encode again")
        check_place(path)
        with opened_partial(path) as output:
            _copy(file, output, layout.end)
            output.write(index(layout.entries, layout.end))
    return True


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    source.seek(0)
    while length:
        block = source.read(min(length, _BLOCK))
        target.write(block)
        length -= len(block)
