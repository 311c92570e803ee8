"""`vidtok stats`: mean, deviation, range and codebook use of a model's latents, written into its folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_model
from vidtok.cli.options import (
    CheckpointOption,
    ChunkFramesOption,
    DeviceOption,
    DType,
    DTypeOption,
    FpsOption,
    HeightOption,
    MaxFramesOption,
    MaxMemoryOption,
    SizeOption,
    TruncatedOption,
    WidthOption,
    load_model,
    wanted_size,
)
from vidtok.cli.usage import SEED, Number
from vidtok.errors import VidTokError
from vidtok.fields import Within

if TYPE_CHECKING:
    from vidtok.jobs.statistics import LatentSurvey
    from vidtok.metrics.latents import LatentFigures

_CLIPS = Number(Annotated[int, Within(1, 10_000_000)])
_FRAMES = Number(Annotated[int, Within(1, 1 << 20)])
_CLIP_SIZE = Number(Annotated[int, Within(16, 1 << 14)])
_LISTED = 32
"""The most channels that are listed."""


def stats(
    model: Annotated[
        str, typer.Argument(metavar="NAME|YAML|FOLDER|HUB", help="A model, as --model of other commands takes it.")
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Videos, pictures, token files of this model, statistics (.json), folders of videos and token files, "
            "collections of this model, or the word `synthetic` for procedural clips.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File (.json) of statistics that merge.", show_default="none"),
    ] = None,
    write: Annotated[
        bool | None,
        typer.Option(
            "--write/--no-write",
            help="Write latents_mean and latents_std into the model's config.json.",
            show_default="if MODEL is a folder",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    size: SizeOption = None,
    fps: FpsOption = None,
    max_frames: MaxFramesOption = None,
    clips: Annotated[int, typer.Option(parser=_CLIPS, metavar="N", help="Procedural clips.")] = 64,
    clip_frames: Annotated[int, typer.Option(parser=_FRAMES, metavar="N", help="Frames of a procedural clip.")] = 17,
    clip_size: Annotated[
        int, typer.Option(parser=_CLIP_SIZE, metavar="PIXELS", help="Height and width of a procedural clip.")
    ] = 256,
    seed: Annotated[int, typer.Option(parser=SEED, metavar="N", help="Another seed gives other clips.")] = 0,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    chunk_frames: ChunkFramesOption = None,
    max_memory: MaxMemoryOption = None,
    allow_truncated: TruncatedOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with covariances.")] = False,
) -> None:
    """Find mean and standard deviation of a model's latents, channel by channel, over any number of videos.

    Also: the posterior's deviation (KL), the range, and the share of the codebook (tokens). Latents are the posterior's
    mode, as `vidtok encode` stores them. Of a folder with a saved model, the figures are written into its config.json:
    `model.normalize`, `model.denormalize` and diffusers' pipelines use them. With --output, parts of a data set can be
    taken by several processes, and merged: `vidtok stats MODEL part1.json part2.json`.
    """
    check_model(model, checkpoint)

    from vidtok.cli.progress import progress_bar
    from vidtok.datasets.survey import collection_pieces
    from vidtok.jobs.statistics import SyntheticOptions, pieces, survey
    from vidtok.runtime.options import ReadOptions
    from vidtok.zoo.folder import write_latents

    folder = _folder(model, checkpoint, write)
    wanted = wanted_size(height, width, size)
    options = ReadOptions(
        height=wanted.get("height"),
        width=wanted.get("width"),
        default_size=wanted.get("default_size"),
        fps=fps,
        max_frames=max_frames,
        chunk_frames=chunk_frames,
        max_memory=max_memory,
        allow_truncated=allow_truncated,
    )
    collected, others = collection_pieces(data)
    synthetic = SyntheticOptions(clips=clips, frames=clip_frames, size=clip_size, seed=seed)
    found = collected + pieces(others, options, synthetic)
    tokenizer = load_model(model, checkpoint, device, dtype, limited=max_memory is not None)
    failed: list[str] = []
    with progress_bar("surveying", len(found), "inputs") as progress:
        total = survey(
            tokenizer, found, progress=progress, failed=lambda name, error: failed.append(f"  {name}: {error}")
        )
    if failed and not total.videos:
        raise VidTokError("no input could be read:\n" + "\n".join(failed))
    figures = total.figures()
    if output is not None:
        total.save(output)
    written = None if folder is None else write_latents(folder, total.scale())
    if as_json:
        typer.echo(json.dumps({"videos": total.videos, "frames": total.frames, **asdict(figures)}, indent=2))
    else:
        typer.echo(_text(total, figures, output, written))
    if failed:
        raise VidTokError(
            f"{len(failed)} of {len(found)} inputs could not be read, and are not in it:\n" + "\n".join(failed)
        )


def _folder(model: str, checkpoint: Path | None, write: bool | None) -> Path | None:
    """The folder to write into; None if none is wanted. Raises `VidTokError` if one is wanted and there is none."""
    from vidtok.config.registry import SHIPPED, package_folder
    from vidtok.zoo.runs import is_run

    path = Path(model).expanduser()
    saved = path.is_dir() and not is_run(path) and checkpoint is None
    if write is None:
        write = saved
    if not write:
        return None
    if saved:
        return path
    if model in SHIPPED and checkpoint is None:
        return package_folder() / "zoo" / "weights" / model
    weights = " with other weights" if checkpoint else ""
    raise VidTokError(
        f"{model}{weights} has no folder to write to; `vidtok export {model} FOLDER` makes one, or give --output for a "
        "file"
    )


def _text(total: LatentSurvey, figures: LatentFigures, output: Path | None, written: Path | None) -> str:
    rows = [
        ("model", total.model.name),
        ("data", f"{total.videos:,} videos, {total.frames:,} frames, {figures.positions:,} positions"),
    ]
    if figures.codebook is not None:
        use = figures.codebook
        rows.append(
            ("codes", f"{use.used:,} of {use.size:,} ({use.use:.1%}; {use.expected_use:.1%} if drawn evenly), "
                      f"{use.entropy:.2f} bits a token")
        )  # fmt: skip
    if output is not None:
        rows.append(("output", str(output)))
    if written is not None:
        rows.append(("written", f"{written}: latents_mean, latents_std"))
    lines = [f"{name:<8}{value}" for name, value in rows]
    columns = {"mean": figures.mean, "std": figures.std, "min": figures.low, "max": figures.high}
    if figures.posterior_std is not None:
        columns["posterior std"] = figures.posterior_std
    lines.append("  ".join(["channel", *(f"{name:>{max(8, len(name))}}" for name in columns)]))
    for channel in range(min(_LISTED, len(figures.mean))):
        cells = (f"{values[channel]:>{max(8, len(name))}.4f}" for name, values in columns.items())
        lines.append("  ".join([f"{channel:>7}", *cells]))
    if len(figures.mean) > _LISTED:
        lines.append(f"and {len(figures.mean) - _LISTED:,} more (--json has all)")
    return "\n".join(lines)
