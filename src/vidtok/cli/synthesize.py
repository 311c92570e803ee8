"""`vidtok synthesize`: a small set of procedural clips to evaluate on, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidtok.cli.usage import RATE, SEED, Number
from vidtok.fields import Within

_CLIPS = Number(Annotated[int, Within(1, 100_000)])
_SIZE = Number(Annotated[int, Within(16, 1 << 14)])
_FRAMES = Number(Annotated[int, Within(1, 1 << 20)])


def synthesize(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the clips, new or empty.")],
    clips: Annotated[int, typer.Option(parser=_CLIPS, metavar="N", help="Number of clips, 1 to 100000.")] = 8,
    size: Annotated[
        int, typer.Option(parser=_SIZE, metavar="PIXELS", help="Height and width in pixels, 16 to 16384.")
    ] = 256,
    frames: Annotated[int, typer.Option(parser=_FRAMES, metavar="N", help="Frames of a clip, 1 to 1048576.")] = 34,
    fps: Annotated[float, typer.Option(parser=RATE, metavar="RATE", help="Frames per second.")] = 30.0,
    seed: Annotated[int, typer.Option(parser=SEED, metavar="N", help="Another seed gives other clips.")] = 0,
) -> None:
    """Make a small, varied set of procedural clips, to try everything without a download.

    Eight kinds take turns: a still camera, a pan, text, water, changing light, fast motion, a crowded scene, a cut.
    The same options give the same clips. A file meta.csv names them, for `--meta_path` of the published evaluation.
    """
    from vidtok.cli.progress import progress_bar
    from vidtok.runtime.limits import memory_advice
    from vidtok.synthetic.evaluation_set import META_FILE, EvaluationSet, write_evaluation_set

    spec = EvaluationSet(clips=clips, height=size, width=size, frames=frames, fps=fps, seed=seed)
    with progress_bar("rendering", clips * frames) as progress, memory_advice():
        paths = write_evaluation_set(folder, spec, progress)
    total = sum(path.stat().st_size for path in paths)
    typer.echo(
        f"{folder}: {clips} clips of {frames} frames, {size} x {size} pixels, {fps:g} a second, {total:,} bytes; "
        f"{META_FILE} names them"
    )
