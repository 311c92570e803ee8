"""`vidtok recipes`: the configurations for training that come with the package."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def recipes(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the files' paths.")] = False,
) -> None:
    """List the recipes for training that come with the package.

    A whole recipe is trained as it is, `vidtok train NAME`. One that goes over a model's configuration is named behind
    it, `vidtok train MODEL NAME`. `vidtok models show NAME` prints one.
    """
    from vidtok.config.recipes import recipes as known

    found = known()
    if as_json:
        entries = [{"name": r.name, "whole": r.whole, "about": r.about, "path": str(r.path)} for r in found.values()]
        typer.echo(json.dumps(entries, indent=2))
    elif sys.stdout.isatty():
        width = max(len(recipe.usage) for recipe in found.values())
        for recipe in found.values():
            typer.echo(f"{recipe.usage.ljust(width)}  {recipe.about}")
    else:
        for recipe in found.values():
            typer.echo(f"{recipe.usage}\t{recipe.about}")
