"""The command `vidtok`: all subcommands, and the version."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

import vidtok
from vidtok.cli import (
    compare,
    decode,
    encode,
    evaluate,
    example,
    export,
    info,
    metrics,
    models,
    reconstruct,
    reenact,
    synthesize,
    train,
)
from vidtok.cli.guard import guarded
from vidtok.cli.usage import one_sentence

app = typer.Typer(
    name="vidtok",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vidtok {vidtok.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    allow_base: Annotated[
        list[Path] | None,
        typer.Option(
            "--allow-base",
            metavar="PATH",
            help="Let `base:` of a YAML file lead to this file or folder, which need not lie below the YAML file.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Video tokenizer: video to compact latents or discrete tokens and back."""
    if allow_base:
        from vidtok.config.layers import allowing_bases

        context.with_resource(allowing_bases(*allow_base))


app.command("reconstruct")(reconstruct.reconstruct)
app.command("reenact")(reenact.reenact)
app.command("encode")(encode.encode)
app.command("decode")(decode.decode)
app.command("info")(info.info)
app.add_typer(models.app, name="models")
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.add_typer(metrics.app, name="metrics")
app.command("example")(example.example)
app.command("synthesize")(synthesize.synthesize)
app.command("train", context_settings=train.SETTINGS)(train.train)
app.command("export")(export.export)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's own arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments))


@cache
def _command() -> Any:
    return get_command(app)


def _run(arguments: list[str]) -> None:
    with one_sentence():
        code = _command().main(args=arguments, prog_name="vidtok", standalone_mode=False)
    if isinstance(code, int):  # a command ended itself, by --version or an interruption
        raise SystemExit(code)
