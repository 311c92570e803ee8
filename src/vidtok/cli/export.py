"""`vidtok export`: the model of a training run as a slim folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidtok.cli.options import CheckpointOption, DType


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a training run, LOGDIR/DATE_NAME.")],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
    checkpoint: CheckpointOption = None,
    ema: Annotated[
        bool | None,
        typer.Option(
            "--ema/--no-ema", help="Take the weights' moving averages.", show_default="if the checkpoint has them"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="that of the run")] = None,
    dtype: Annotated[DType, typer.Option("--dtype", help="What to save the weights in.")] = DType.float32,
) -> None:
    """Write a model alone: config.json and model.safetensors, without optimizers and objective.

    Takes the newest checkpoint of RUN unless --checkpoint names another. The folder loads with `vidtok.load(OUTPUT)`
    and as `--model OUTPUT`.
    """
    from vidtok.errors import ConfigError
    from vidtok.tokenizer import load
    from vidtok.zoo.checkpoint import holds_averages
    from vidtok.zoo.run import is_run, run_checkpoint

    if not is_run(run):
        raise ConfigError(f"{run} is not the folder of a training run; expected one with configs/ and checkpoints/")
    weights = checkpoint or run_checkpoint(run)
    averaged = holds_averages(weights) if ema is None else ema
    model = load(run, weights, dtype=dtype.torch, ema=averaged)
    model.name = name or model.name
    folder = model.save_pretrained(output)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    kind = "moving averages" if averaged else "weights"
    typer.echo(f"{folder}: {model.name}, {kind} of {weights}, {size:.1f} MB")
