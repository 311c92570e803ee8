"""Errors of the command line in one sentence, and the numbers that options take, each within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, get_args

import typer

from vidtok.errors import VidTokError
from vidtok.fields import Within, from_text, memory_bytes
from vidtok.text import near, one_line

_SHOWN = 300
_QUOTE = "'"
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""The base of all errors of Typer's parser, whose own name for it differs between versions."""
_VALUE = re.compile(r"Invalid value for (.+?): (.*)")
_MISSING = re.compile(r"Missing (\w+) (.+?)\.(?: .*)?")
_MEANT = re.compile(r"\. Did you mean (.*)\?")
_CHOICE = re.compile(r"(.+?) is not one of (.*?)\.?")
_UNKNOWN = re.compile(r"No such option:? '?(.+?)'?[. ]?(?: .*)?")


class OptionError(typer.BadParameter):
    """An option's value that cannot be used; the message follows the option's name: "is 0; expected ..."."""


class Number:
    """Parser of a number for Typer's `parser`; `hint` is an int or float annotated with `Within`."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        self.__name__ = get_args(hint)[0].__name__

    def __call__(self, text: object) -> Any:
        try:
            return from_text(str(text), self.hint)
        except ValueError as error:
            raise OptionError(str(error)) from None


def memory(text: object) -> str:
    """Parser of an amount of memory for Typer's `parser`."""
    try:
        memory_bytes(str(text))
    except VidTokError as error:
        raise OptionError(str(error).removeprefix("max_memory ")) from None
    return str(text)


MOST_PIXELS = 65535
SIDE = Number(Annotated[int, Within(1, MOST_PIXELS)])
OVERLAP = Number(Annotated[int, Within(0, MOST_PIXELS)])
COUNT = Number(Annotated[int, Within(1, 10**9)])
STREAM = Number(Annotated[int, Within(0, 10**4)])
WORKERS = Number(Annotated[int, Within(1, 64)])
SEED = Number(Annotated[int, Within(0, 2**32 - 1)])
RATE = Number(Annotated[float, Within(1e-5, 1e6, expected="a rate from 0.00001 to 1000000 frames per second")])
SECONDS = Number(Annotated[float, Within(0, 1e9, expected="seconds from 0 to 1000000000")])


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn errors of Typer's parser into `VidTokError`s; help in place of missing arguments is printed unchanged."""
    try:
        yield
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(str(error), err=True)
            raise SystemExit(2) from None
        raise VidTokError(_sentence(error)) from None


def _sentence(error: Any) -> str:
    message = one_line(error.format_message())
    context = getattr(error, "ctx", None)
    see = "" if context is None else f"; see `{context.command_path} --help`"
    if match := _MISSING.fullmatch(message):
        name = _name(match[2])
        return f"{name.upper() if match[1] == 'argument' else name} is missing{see}"
    if match := _UNKNOWN.fullmatch(message):
        known = [] if context is None else [name for each in context.command.params for name in each.opts]
        return f"there is no option {_short(match[1])}{near(match[1], known)}{see}"
    match = _VALUE.fullmatch(message)
    if match is None:
        message = _MEANT.sub(r" (did you mean \1?)", message)
        return _short(f"{message[:1].lower()}{message[1:].rstrip('.')}") + see
    name, problem = _name(match[1]), match[2].removeprefix("Value error, ")
    if isinstance(error, OptionError):
        return f"{name} {problem}"
    if choice := _CHOICE.fullmatch(problem):
        return f"{name} is {_short(choice[1])}; expected one of {choice[2].replace(_QUOTE, '')}"
    return f"{name}: {_short(problem.rstrip('.'))}"


def _name(hint: str) -> str:
    """The option's long name, or the argument, of the parser's `hint`, such as "'-o' / '--output'"."""
    names: list[str] = re.findall(r"'([^']+)'", hint) or [hint]
    return next((name for name in names if name.startswith("--")), names[0])


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
