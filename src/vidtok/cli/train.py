"""`vidtok train`: the published training command, with the configurations as plain arguments."""

from __future__ import annotations

import typer

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""All arguments go on to the parser of `main.py`."""


def train(context: typer.Context) -> None:
    """Train a model by a recipe or YAML file, or go on with a run."""
    from vidtok.training.runs.entry import train as start

    start(context.args, prog="vidtok train")
