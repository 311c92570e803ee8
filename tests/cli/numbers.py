"""The options of all commands and scripts that take a number, found by looking at the commands themselves."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import pytest
import typer

from vidtok.cli.app import app
from vidtok.cli.usage import Number
from vidtok.training.runs.arguments import TRAINER_VALUES, SentenceParser

HUGE = "1" + "0" * 21
BAD = ("0", "-1", HUGE, "nan", "inf", "")
SCRIPTS = (
    "scripts.inference_evaluate",
    "scripts.inference_reconstruct",
    "vidtwin.scripts.inference_evaluate",
    "vidtwin.scripts.inference_reconstruct",
    "vidtwin.scripts.inference_vidtwin_cross_reconstruct",
)
_TEXTS = ("--size", "--start", "--end", "--max-memory")
"""Options whose numbers come as text."""


class Option(NamedTuple):
    """An option of the command that begins with `words`, which name it and all that it must be given."""

    words: tuple[str, ...]
    name: str
    parser: Any


def commands() -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """All commands but `train`, which parses on its own, with their functions."""
    groups: list[tuple[tuple[str, ...], typer.Typer]] = [((), app)]
    groups += [((str(group.name),), group.typer_instance) for group in app.registered_groups if group.typer_instance]
    for path, group in groups:
        for command in group.registered_commands:
            if command.name != "train" and command.callback is not None:
                yield (*path, str(command.name)), command.callback


def options(path: str) -> Iterator[Option]:
    """Each option of each command that takes a number; everything else that must be given is `path`."""
    for words, function in commands():
        parameters = inspect.signature(function, eval_str=True).parameters
        given: list[str] = []
        found: list[tuple[str, Any]] = []
        for name, parameter in parameters.items():
            if parameter.annotation is typer.Context:
                continue
            assert get_origin(parameter.annotation) is Annotated, f"{words} {name}"
            kind, info = get_args(parameter.annotation)[:2]
            flags = [each for each in getattr(info, "param_decls", None) or () if each.startswith("--")]
            flag = flags[0] if flags else f"--{name.replace('_', '-')}"
            if parameter.default is inspect.Parameter.empty:
                given += [path] if isinstance(info, typer.models.ArgumentInfo) else [flag, path]
            if {int, float} & {kind, *get_args(kind)}:
                assert isinstance(info.parser, Number), f"{flag} of {words} has no bounds"
                found.append((flag, info.parser))
            elif flag in _TEXTS:
                found.append((flag, info.parser))
        for flag, parser in found:
            yield Option((*words, *given), flag, parser)


def trainer_options() -> list[str]:
    """The options of `vidtok train` that take a number."""
    flags = {bool, type(None)}
    numeric = [name for name, hint in TRAINER_VALUES.items() if not {*get_args(hint)} <= flags and hint is not bool]
    return [f"--{name}" for name in numeric if name not in ("deterministic", "max_time")] + ["--seed"]


def script_parser(name: str) -> SentenceParser:
    """The parser of the script `name`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceParser, "parse_args", lambda self, argv=None: self)
        parser = import_module(name).parse_arguments([])
    assert isinstance(parser, SentenceParser)
    return parser


def script_options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a script's parser that take a number."""
    numeric = [action for action in parser._actions if isinstance(action.default, int | float)]
    return [action.option_strings[-1] for action in numeric if action.nargs is None and action.type is not None]
