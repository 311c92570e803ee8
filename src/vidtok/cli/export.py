"""`vidtok export`: a model, such as a training run's, as a slim folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from vidtok.cli.early import check_model
from vidtok.cli.options import CheckpointOption, DType
from vidtok.cli.progress import status
from vidtok.cli.usage import COUNT, MOST_PIXELS, OptionError
from vidtok.errors import ConfigError
from vidtok.fields import shown

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer


class Layout(StrEnum):
    """Layouts of the folder."""

    vidtok = "vidtok"
    diffusers = "diffusers"
    onnx = "onnx"
    torch = "torch"


class Part(StrEnum):
    """Halves of a model."""

    encoder = "encode"
    decoder = "decode"


class Stored(StrEnum):
    """Types of saved weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"


def _size(text: str) -> str:
    """`text` of `--size`: height and width in pixels."""
    sides = text.split("x")
    if len(sides) != 2 or not all(s.isascii() and s.isdigit() and 1 <= int(s[:6]) <= MOST_PIXELS for s in sides):
        raise OptionError(f"is {shown(text)}; expected height and width in pixels, such as 256x256")
    return text


def export(
    source: Annotated[
        str, typer.Argument(help="The folder of a training run, LOGDIR/DATE_NAME; or any model that --model takes.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
    checkpoint: CheckpointOption = None,
    ema: Annotated[
        bool | None,
        typer.Option(
            "--ema/--no-ema", help="Take the weights' moving averages.", show_default="if the checkpoint has them"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's new name.", show_default="the present one")] = None,
    dtype: Annotated[
        Stored, typer.Option("--dtype", help="Type of the saved weights; int8: a quarter of float32's bytes.")
    ] = Stored.float32,
    layout: Annotated[
        Layout,
        typer.Option(
            "--format",
            help="diffusers: a folder for diffusers' AutoencoderVidTok, of a causal model of version 1.1 with KL or "
            "8 levels a channel. onnx, torch: graphs of one step of a stream, for ONNX runtimes or torch.export.",
        ),
    ] = Layout.vidtok,
    part: Annotated[
        Part | None, typer.Option("--part", help="Graphs: the half to export.", show_default="decode")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            parser=COUNT, metavar="N", help="Graphs: frames of a step.", show_default="one group; 16 if non-causal"
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            parser=_size, metavar="HxW", help="Graphs: height and width of the video, fixed.", show_default="any size"
        ),
    ] = None,
    rescale: Annotated[
        bool,
        typer.Option(
            "--rescale", help="Make large activations small, for the same output; float16 needs it after Muon."
        ),
    ] = False,
) -> None:
    """Write a model alone: config.json and its weights, without optimizers and objective.

    Of a training run, the newest checkpoint is taken unless --checkpoint names another. The folder loads with
    `vidtok.load(OUTPUT)` and as `--model OUTPUT`; with --format diffusers also with
    `diffusers.AutoencoderVidTok.from_pretrained(OUTPUT)`.

    With --format onnx or torch, OUTPUT gets the graphs of --part, which keep the state of a stream in tensors, and a
    description of them; the graphs of both parts may go to one folder. Graphs for any size take minutes to make.
    """
    from vidtok.zoo.runs import is_run, run_checkpoint

    run = Path(source).expanduser()
    _check_places(run, output)
    _check_options(layout, dtype, {"--part": part, "--frames": frames, "--size": size})
    check_model(source, checkpoint)

    from vidtok.synthetic import SyntheticConfig, synthetic_batch
    from vidtok.tokenizer import load
    from vidtok.zoo.checkpoint import holds_averages
    from vidtok.zoo.folder import save_diffusers_folder

    weights = checkpoint or (run_checkpoint(run) if is_run(run) else None)
    averaged = bool(ema) if ema is not None or weights is None else holds_averages(weights)
    int8 = dtype is Stored.int8
    stored = (DType.float32 if int8 else DType(dtype.value)).torch
    model = load(source, weights, dtype=DType.float32.torch if rescale else stored, ema=averaged)
    if rescale:
        example = SyntheticConfig(frames=16 + model.is_causal, height=64, width=64)
        model.rescale(synthetic_batch(example, 0, [0]))
        model.to(stored)
    model.name = name or model.name
    if layout in (Layout.onnx, Layout.torch):
        _graphs(model, output, layout, part or Part.decoder, frames, size)
        return
    if layout is Layout.diffusers:
        folder = save_diffusers_folder(output, model.config, model.named_weights())
    else:
        folder = model.save_pretrained(output, int8=int8)
    total = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    kind = "moving averages" if averaged else "weights"
    typer.echo(f"{folder}: {model.name}, {kind} of {weights or source}, {total:.1f} MB")


def _check_places(source: Path, output: Path) -> None:
    """Raise `ConfigError` for a folder that holds no model, and for an output that would replace a run or the model."""
    from vidtok.zoo.hub import FOLDER_FILES
    from vidtok.zoo.runs import is_run

    if source.is_dir() and not is_run(source) and not (source / FOLDER_FILES[0]).exists():
        raise ConfigError(
            f"{source} is not the folder of a training run; expected one with configs/ and checkpoints/, or a saved "
            f"model with {' and '.join(FOLDER_FILES)}"
        )
    if output.is_dir() and (is_run(output) or (source.is_dir() and output.samefile(source))):
        raise ConfigError(
            f"{output} is {'the folder of a training run' if is_run(output) else 'the model itself'}; give another "
            "folder to write"
        )


def _check_options(layout: Layout, dtype: Stored, of_graphs: dict[str, object]) -> None:
    """Raise `ConfigError` for a dtype that the layout has not, and for options of graphs without graphs."""
    if dtype is Stored.int8 and layout is not Layout.vidtok:
        raise ConfigError("--dtype is int8, which only this package reads; choose float32, bfloat16 or float16")
    if layout is Layout.onnx and dtype is Stored.bfloat16:
        raise ConfigError("--dtype is bfloat16, which ONNX runtimes rarely compute in; choose float32 or float16")
    given = [name for name, value in of_graphs.items() if value is not None]
    if given and layout not in (Layout.onnx, Layout.torch):
        raise ConfigError(f"{given[0]} is for graphs; give --format onnx or torch, or leave it out")


def _graphs(model: Tokenizer, output: Path, layout: Layout, part: Part, frames: int | None, size: str | None) -> None:
    """Write the graphs of one part of `model` to the folder `output`, and say so."""
    from vidtok.interop.export import export_graphs

    height, _, width = (size or "").partition("x")
    with status(f"exporting {part.value}"):
        made = export_graphs(
            model,
            output,
            format=cast(Literal["onnx", "torch"], layout.value),
            part=part.value,
            frames=frames,
            size=(int(height), int(width)) if size else None,
        )
    files = [graph["file"] for graph in made["graphs"].values()]
    typer.echo(f"{output}: {model.name}, {part.value} as {', '.join(files)}, described in {part.value}.json")
