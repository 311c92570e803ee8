"""How much a command says: `--quiet`, the usual, or `--verbose`. One setting for the process, made anew by each run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and errors alone: no progress, no warnings, no hints.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more: files and weights in use, sizes, tiles, and times.")
]
_OPTIONS = {"quiet": QuietOption, "verbose": VerboseOption}

_state = {"quiet": False}


class _Form(logging.Formatter):
    """`warning: ...`, in the form of the errors; what is only told stands alone."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


def start() -> None:
    """The usual setting, at the start of a run; warnings go to stderr."""
    logging.basicConfig(level=logging.WARNING)
    root = logging.getLogger()
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_Form())
    _set(False, False)


def apply(*, quiet: bool, verbose: bool) -> None:
    """Take in the options of a command; a command that has neither keeps what the ones before it said."""
    if quiet or verbose:
        _set(quiet, verbose)


def is_quiet() -> bool:
    """True if progress and hints are unwanted."""
    return _state["quiet"]


def hint(text: str) -> None:
    """Print advice on the next step to stderr, unless it is unwanted."""
    if not is_quiet():
        typer.echo(text, err=True)


def _set(quiet: bool, verbose: bool) -> None:
    _state["quiet"] = quiet
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.getLogger("vidtok").setLevel(level if quiet or verbose else logging.NOTSET)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, a command, with the options `--quiet` and `--verbose` behind its own."""
    hints = get_type_hints(function, include_extras=True)

    @wraps(function)
    def command(*args: Any, **named: Any) -> Any:
        apply(quiet=named.pop("quiet"), verbose=named.pop("verbose"))
        return function(*args, **named)

    own = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _OPTIONS.items()
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {**hints, **_OPTIONS}
    return command
