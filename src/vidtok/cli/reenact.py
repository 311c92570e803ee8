"""`vidtok reenact`: the structure of one video with the dynamics of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_input, check_model, check_output
from vidtok.cli.options import (
    CheckpointOption,
    DeviceOption,
    DType,
    DTypeOption,
    FpsOption,
    TruncatedOption,
    load_model,
    model_names,
)
from vidtok.cli.usage import COUNT, SECONDS

if TYPE_CHECKING:
    from vidtok.jobs.reenact import Reenactment
    from vidtok.tokenizer import Tokenizer

PUBLISHED = "vidtwin_structure_7_7_8_dynamics_7_8"


def reenact(
    output: Annotated[Path, typer.Option("--output", "-o", help="Output: .mp4, .mov or .mkv.")],
    structure: Annotated[
        Path | None, typer.Option(help="The video that gives the structure: content and motion of the whole.")
    ] = None,
    dynamics: Annotated[
        Path | None, typer.Option(help="The video that gives the dynamics: detail and fast motion.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|YAML|FOLDER|HUB",
            autocompletion=model_names,
            help="A VidTwin, as for other commands.",
        ),
    ] = PUBLISHED,
    checkpoint: CheckpointOption = None,
    fps: FpsOption = None,
    start: Annotated[
        float, typer.Option(parser=SECONDS, metavar="SECONDS", help="Seconds into each video to start at.")
    ] = 0.0,
    max_frames: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="Stop after this many frames.", show_default="the shorter video"),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side/--alone", help="Put the sources to the left of the result.")
    ] = True,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    allow_truncated: TruncatedOption = False,
) -> None:
    """Decode the structure of one video with the dynamics of another; or one of the two alone, to see its content.

    Frames are resized and cropped to the one size that the model takes, 224 x 224. The result ends with the shorter
    video and has the frame rate of the first one given. An existing OUTPUT is replaced, once the new one is whole.
    """
    for path in (structure, dynamics):
        if path is not None:
            check_input(path)
            check_output(output, input=path)
    check_model(model, checkpoint)

    from vidtok.cli.progress import progress_bar
    from vidtok.jobs.reenact import ReenactmentJob

    job = ReenactmentJob(
        output,
        structure=structure,
        dynamics=dynamics,
        fps=fps,
        start=start,
        max_frames=max_frames,
        side_by_side=side_by_side,
        allow_truncated=allow_truncated,
    )
    tokenizer = load_model(model, checkpoint, device, dtype)
    with progress_bar("reenacting", job.frame_estimate) as progress:
        result = job.run(tokenizer, progress)
    typer.echo(_summary(result, tokenizer, {"structure": structure, "dynamics": dynamics}))


def _summary(result: Reenactment, model: Tokenizer, paths: dict[str, Path | None]) -> str:
    rows = [
        ("output", str(result.output)),
        ("model", f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}"),
        *((name, f"of {paths[name]}" if name in result.sources else "left out") for name in paths),
        (
            "frames",
            f"{result.frames:,}, {float(result.fps):.6g} a second, {result.width} x {result.height} pixels each",
        ),
        ("time", f"{result.seconds:.2f} s, {result.frames / result.seconds:.2f} frames a second"),
    ]
    return "\n".join(f"{name:<10}{value}" for name, value in rows)
