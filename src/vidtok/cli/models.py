"""`vidtok models`: the models that have a name, and each one's configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vidtok.cli.commands import App
from vidtok.metrics.table import PUBLISHED

app = App(help="List the models that can be loaded by name.")

_COLUMNS = ("name", "TxHxW", "latent", "version")
"""The columns before the published figures."""


@app.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the weights' places in full.")] = False,
) -> None:
    """List the models that can be loaded by name.

    TxHxW are the frames, rows and columns that become one position of the latent. A position holds channels, or one of
    the codes of a codebook; a VidTwin's latent has one position a clip. PSNR, SSIM, LPIPS and FVD are as published.
    Weights that are not at hand are downloaded when first used. In a pipe the table is plain, with tabs between its
    columns.
    """
    if context.invoked_subcommand is not None:
        return
    entries = _entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    header = (*_COLUMNS, *(metric.label for metric in PUBLISHED), "weights")
    rows = [header, *(_row(entry) for entry in entries)]
    if sys.stdout.isatty():
        _print_table(rows)
    else:
        typer.echo("\n".join("\t".join(row) for row in rows))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A model's or a recipe's name, a YAML file, or a saved model's folder.")],
) -> None:
    """Print the whole YAML of a model or recipe: the parts that it shares with others, and its own.

    Of a folder, print its config.json. Where `vidtok stats` has found a model's latents, the mean and the standard
    deviation of each channel are shown too, in YAML as comments.
    """
    from vidtok.config.read import read_config
    from vidtok.config.read import show as whole_yaml
    from vidtok.config.registry import models
    from vidtok.zoo.folder import read_folder, read_latents
    from vidtok.zoo.latents import MEAN, STD
    from vidtok.zoo.weights import weights_at_hand

    folder = Path(name).expanduser()
    if folder.is_dir():
        read_folder(folder)
        typer.echo((folder / "config.json").read_text(encoding="utf-8"), nl=False)
        return
    typer.echo(whole_yaml(name), nl=False)
    weights = weights_at_hand(models()[name]) if name in models() else None
    latents = None if weights is None else read_latents(read_config(name).model, weights)
    if latents is not None:
        for key, values in ((MEAN, latents.mean), (STD, latents.std)):
            typer.echo(f"# {key}: [{', '.join(f'{value:g}' for value in values)}]")


def _entries() -> list[dict[str, Any]]:
    """The facts about each model, for JSON."""
    from vidtok.config.read import read_config
    from vidtok.config.registry import models
    from vidtok.zoo.weights import weights_at_hand

    entries = []
    for name, entry in models().items():
        config = read_config(name).model
        bottleneck = config.bottleneck
        weights = weights_at_hand(entry)
        entries.append(
            {
                "name": name,
                "family": entry.family,
                "bottleneck": bottleneck.kind,
                "causal": config.is_causal,
                "version": entry.version,
                "compression": [config.temporal_factor, config.spatial_factor, config.spatial_factor],
                "channels": config.z_channels,
                "streams": [asdict(stream) for stream in config.parts],
                "codebook_size": bottleneck.codebook_size,
                **{metric.name: getattr(entry, metric.name) for metric in PUBLISHED},
                "weights": None if weights is None else str(weights),
                "hub_repo": entry.hub_repo,
                "hub_file": entry.hub_file,
            }
        )
    return entries


def _row(entry: dict[str, Any]) -> list[str]:
    codebook, channels = entry["codebook_size"], entry["channels"]
    latent = f"{channels} channels" if codebook is None else f"{codebook:,} codes"
    scores = [(entry[metric.name], metric.published) for metric in PUBLISHED]
    return [
        entry["name"],
        "x".join(map(str, entry["compression"])),
        f"{channels:,} values" if entry["streams"] else latent,
        entry["version"],
        *("-" if value is None else f"{value:.{places}f}" for value, places in scores),
        "no" if entry["weights"] is None else f"yes: {entry['weights']}",
    ]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need: a narrow terminal wraps them; a fitted table would cut figures."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = range(len(_COLUMNS), len(_COLUMNS) + len(PUBLISHED))
    for row in rows:
        cells = [
            cell.rjust(width) if at in figures else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
