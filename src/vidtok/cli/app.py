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
    distill,
    encode,
    evaluate,
    example,
    export,
    info,
    metrics,
    models,
    recipes,
    reconstruct,
    reenact,
    stats,
    synthesize,
    tokenize,
    train,
)
from vidtok.cli.commands import MOST_COLUMNS, App
from vidtok.cli.guard import guarded
from vidtok.cli.usage import one_sentence
from vidtok.cli.verbosity import QuietOption, VerboseOption, apply

app = App(
    name="vidtok",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], **MOST_COLUMNS},
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
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Video tokenizer: video to compact latents or discrete tokens and back.

    Begin with `vidtok example`. `vidtok COMMAND --help` shows the options of a command.
    """
    apply(quiet=quiet, verbose=verbose)
    if allow_base:
        from vidtok.config.layers import allowing_bases

        context.with_resource(allowing_bases(*allow_base))


_VIDEOS, _FIGURES, _MODELS, _TRAINING = "Videos and tokens", "Evaluation", "Models", "Training"

app.command("example", panel=_VIDEOS)(example.example)
app.command("reconstruct", panel=_VIDEOS)(reconstruct.reconstruct)
app.command("encode", panel=_VIDEOS)(encode.encode)
app.command("tokenize", panel=_VIDEOS)(tokenize.tokenize)
app.command("decode", panel=_VIDEOS)(decode.decode)
app.command("info", panel=_VIDEOS)(info.info)
app.command("reenact", panel=_VIDEOS)(reenact.reenact)
app.command("synthesize", panel=_FIGURES)(synthesize.synthesize)
app.command("evaluate", panel=_FIGURES)(evaluate.evaluate)
app.command("compare", panel=_FIGURES)(compare.compare)
app.add_typer(metrics.app, name="metrics", rich_help_panel=_FIGURES)
app.add_typer(models.app, name="models", rich_help_panel=_MODELS)
app.command("export", panel=_MODELS)(export.export)
app.command("stats", panel=_MODELS)(stats.stats)
app.command("train", panel=_TRAINING, verbosity=False, context_settings=train.SETTINGS)(train.train)
app.command("distill", panel=_TRAINING, context_settings=distill.SETTINGS)(distill.distill)
app.command("preview", panel=_TRAINING)(distill.preview)
app.command("recipes", panel=_TRAINING)(recipes.recipes)


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
