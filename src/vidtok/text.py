"""Counts, near names, the causes of errors and faults of a command line, as messages say them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

EMPTY = "is empty; get an undamaged copy"
"""The words after the path of a file without bytes."""


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


def unforeseen(error: BaseException) -> str:
    """`error`, which no code expected, with its type, on one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def reason(error: BaseException) -> str:
    """The cause of `error` on one line: the system's or FFmpeg's words alone, else the message, else the type."""
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__


_ARGUMENT = re.compile(r"argument (\S+): (.*)")
_QUOTE = "'"
_CHOICE = re.compile(r"invalid choice: (.+?) \(choose from (.*)\)")


def fault(message: str, prog: str) -> str:
    """The `message` of `argparse` about the command line of `prog`, as one sentence in this package's form."""
    message, see = one_line(message), f"; see `{prog} --help`"
    match = _ARGUMENT.fullmatch(message)
    if match is None:
        return message + see
    name, problem = match[1].split("/")[-1], match[2]
    choice = _CHOICE.fullmatch(problem)
    if choice is not None:
        return f"{name} is {choice[1]}; expected one of {choice[2].replace(_QUOTE, '')}"
    # Types of this package say "is 0; expected ...".
    return f"{name} {problem}" if problem.startswith("is ") else f"{name}: {problem}{see}"


def shortened(text: str, most: int = 80) -> str:
    """`text`, cut to at most `most` characters; a cut one ends in dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
