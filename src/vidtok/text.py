"""Counts and near names, as messages say them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1,024 frames`: `noun` in its singular, and takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def near(name: object, known: Iterable[str], count: int = 3) -> str:
    """`" (did you mean A or B?)"` with the entries of `known` nearest to `name`, or nothing if none is near."""
    matches = get_close_matches(str(name), list(known), n=count, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
