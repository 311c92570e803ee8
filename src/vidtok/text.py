"""Counts, near names and the causes of errors, as messages say them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1,024 frames`; `noun` is a singular that takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def near(name: object, known: Iterable[str], count: int = 3) -> str:
    """`" (did you mean A or B?)"` with the entries of `known` nearest to `name`; empty if none is near."""
    matches = get_close_matches(str(name), list(known), n=count, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def one_line(text: object) -> str:
    """`text`, such as a library's error, on one line."""
    return " ".join(str(text).split())


def reason(error: BaseException) -> str:
    """The cause of `error` on one line: the system's or FFmpeg's words alone, else the message, else the type."""
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__
