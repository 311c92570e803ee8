"""The application class: every command gets plain help, `-q` and `-v`, and a place in the list of commands for free.

`app.command("name")(function)` is all that a new command needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from vidtok.cli.verbosity import with_options

Function = TypeVar("Function", bound=Callable[..., Any])
_MOST_COLUMNS = 100
_OTHER = "Other commands"
_METAVARS = {"str": "TEXT", "path": "PATH", "int": "N", "float": "NUMBER"}
"""Plain words for the parser's names of types."""
_TYPE = re.compile(r"<([^<>]+)>")
_ARGUMENT = re.compile(r"^\{(.*?)\}")
_DEFAULT = re.compile(r"\[default: \((.*)\)((?:; required)?)\]$")
_ZERO = re.compile(r"\[default: (\d+)\.0\]$")


class App(typer.Typer):
    """A Typer application whose commands are alike: help in plain words, `--quiet` and `--verbose`."""

    def __init__(self, **settings: Any) -> None:
        defaults: dict[str, Any] = {"rich_markup_mode": None, "cls": Group, "add_completion": False}
        super().__init__(**{**defaults, **settings})

    def command(
        self, name: str | None = None, *, verbosity: bool = True, panel: str = _OTHER, **settings: Any
    ) -> Callable[[Function], Function]:
        """Register a function as the command `name`, listed under the heading `panel`.

        `verbosity` is False for a command that parses its arguments on its own.
        """
        register = super().command(name, **{"cls": Command, "rich_help_panel": panel, **settings})

        def add(function: Function) -> Function:
            register(with_options(function) if verbosity else function)
            return function

        return add


class Command(TyperCommand):
    """A command whose help has plain words for types and defaults."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return _usage(super().collect_usage_pieces(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self.get_params(ctx), ctx, formatter)


class Group(TyperGroup):
    """A group of commands, each listed with its whole first sentence below its heading."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return _usage(super().collect_usage_pieces(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        # Commands first: they are what a newcomer looks for.
        self.format_commands(ctx, formatter)
        _write_options(self.get_params(ctx), ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, command) for name, command in found if command is not None and not command.hidden]
        widest = max((len(name) for name, _ in shown), default=0)
        panels = dict.fromkeys(_panel(command) for _, command in shown)
        for panel in sorted(panels, key=lambda panel: panel == _OTHER):
            rows = [
                (name.ljust(widest), command.get_short_help_str(1000)) for name, command in shown
                if _panel(command) == panel
            ]  # fmt: skip
            with formatter.section(panel if len(panels) > 1 else "Commands"):
                formatter.write_dl(rows)


def _panel(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else _OTHER


def _usage(pieces: Iterable[str]) -> list[str]:
    """The usage line without the parser's braces: `{input}` is INPUT."""
    return [_ARGUMENT.sub(lambda match: match[1].upper(), piece) for piece in pieces]


def _write_options(params: Iterable[Any], ctx: Any, formatter: Any) -> None:
    rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in params:
        record = param.get_help_record(ctx)
        if record is not None:
            argument = param.param_type_name == "argument"
            rows["Arguments" if argument else "Options"].append(_plain(*record, argument=argument))
    for title, listed in rows.items():
        if listed:
            with formatter.section(title):
                formatter.write_dl(listed)


def _plain(name: str, help: str, *, argument: bool) -> tuple[str, str]:
    """A row of the help: `--checkpoint PATH`, `[default: none]`; an argument is INPUT, without its type."""
    if argument:
        name = _TYPE.sub("", name).strip().upper()
    else:
        name = _TYPE.sub(lambda match: _METAVARS.get(match[1], match[1]), name)
    help = _ZERO.sub(r"[default: \1]", _DEFAULT.sub(r"[default: \1\2]", help))
    return name, help.replace("  [", " [")


MOST_COLUMNS = {"max_content_width": _MOST_COLUMNS}
"""Settings of the context: help as wide as the terminal, within reason."""
