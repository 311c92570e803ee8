"""`vidtok tokenize`: many videos to a collection of tokens or latents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtok.cli.early import check_model
from vidtok.cli.encode import CodingOption
from vidtok.cli.options import (
    CheckpointOption,
    ChunkFramesOption,
    DeviceOption,
    DType,
    DTypeOption,
    HeightOption,
    MaxFramesOption,
    MaxMemoryOption,
    ModelOption,
    SizeOption,
    StartOption,
    StreamOption,
    TileOption,
    TileOverlapOption,
    TruncatedOption,
    WidthOption,
    wanted_size,
)
from vidtok.cli.progress import EVERY, REFRESH, repeating
from vidtok.cli.usage import COUNT, RATE, STREAM, WORKERS, Number, OptionError
from vidtok.cli.verbosity import hint, is_quiet
from vidtok.errors import VidTokError
from vidtok.fields import Within, memory_bytes, shown

if TYPE_CHECKING:
    from vidtok.datasets import TokenizeResult
    from vidtok.datasets.progress import Figures, Tally

_PART = Number(Annotated[float, Within(0, 1024, expected="a number of GPUs from 0 to 1024")])
_TIMEOUT = Number(Annotated[float, Within(1, 1e6, expected="seconds from 1 to 1000000")])
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


class SinkName(StrEnum):
    """Forms of a collection's records."""

    parquet = "parquet"
    tar = "tar"
    bin = "bin"
    safetensors = "safetensors"
    vtok = "vtok"


class EngineName(StrEnum):
    """Engines that run workers."""

    local = "local"
    ray = "ray"


def _shard(text: str) -> tuple[int, int]:
    match = _SHARD.fullmatch(text)
    if match is None or not int(match[1]) < int(match[2]):
        raise OptionError(f"is {shown(text)}; expected i/n with i from 0 to n - 1, such as 0/8")
    return int(match[1]), int(match[2])


def _bytes(text: str) -> int:
    try:
        return memory_bytes(text)
    except VidTokError:
        raise OptionError(f"is {shown(text)}; expected a size such as 256MB") from None


InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUT]...",
        help="Videos, folders, patterns, .tar shards, or lists (.txt, .csv, .jsonl, .parquet), also as URLs and with "
        "ranges of numbers in braces; `-` reads a list from standard input.",
        show_default="what was planned before",
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of the collection.")]
SinkOption = Annotated[SinkName, typer.Option(help="Form of the records.")]
ClipFramesOption = Annotated[
    int | None, typer.Option(parser=COUNT, metavar="N", help="Frames of a clip.", show_default="whole videos")
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        parser=COUNT, metavar="N", help="Frames from one clip's start to the next one's.", show_default="--clip-frames"
    ),
]
SampleFpsOption = Annotated[
    float | None,
    typer.Option("--sample-fps", "--fps", parser=RATE, metavar="RATE", help="Frames per second to sample.",
                 show_default="every frame"),
]  # fmt: skip
BatchOption = Annotated[
    int | None,
    typer.Option(
        parser=COUNT, metavar="N", help="Clips of one size to compute together.", show_default="1, on a GPU 8"
    ),
]
ShardSizeOption = Annotated[
    Any,
    typer.Option(parser=_bytes, metavar="SIZE", help="End a shard at this size, such as 256MB.", show_default="268MB"),
]
GroupOption = Annotated[
    int | None,
    typer.Option(parser=COUNT, metavar="N", help="Inputs that are written together.", show_default="256, fewer if few"),
]
ColumnOption = Annotated[str, typer.Option(metavar="NAME", help="Column of the paths in lists with columns.")]
RootOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|URL", help="Where the paths in lists begin.", show_default="the list's folder"),
]
ContentOption = Annotated[
    bool, typer.Option("--by-content", help="Know inputs by their content, not by path, size and time of change.")
]
EngineOption = Annotated[EngineName, typer.Option(help="Processes on this machine, or Ray's actors.")]
AddressOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Ray cluster, such as auto.", show_default="a local one")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(parser=WORKERS, metavar="N", help="Workers; with Ray, the most.", show_default="one a GPU, or a core"),
]
GpusOption = Annotated[
    float | None, typer.Option(parser=_PART, metavar="N", help="Ray: GPUs of a worker.", show_default="1 with cuda")
]
ThreadsOption = Annotated[
    int, typer.Option(parser=WORKERS, metavar="N", help="CPU threads that each worker computes with.")
]
ReadersOption = Annotated[
    int, typer.Option(parser=WORKERS, metavar="N", help="Inputs that each worker reads ahead at a time.")
]
ShardOption = Annotated[
    Any,
    typer.Option(parser=_shard, metavar="I/N", help="Do the I-th of N parts, from 0 on.", show_default="all"),
]
TimeoutOption = Annotated[
    float,
    typer.Option(parser=_TIMEOUT, metavar="SECONDS", help="Give an input up that makes no progress for so long."),
]
RetriesOption = Annotated[int, typer.Option(parser=STREAM, metavar="N", help="Further tries at an input that fails.")]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try inputs again that failed in earlier runs.")
]
MaxFailuresOption = Annotated[
    int | None,
    typer.Option(parser=STREAM, metavar="N", help="Stop once more inputs have failed.", show_default="never"),
]


def tokenize(
    output: OutputOption,
    model: ModelOption,
    inputs: InputsArgument = None,
    checkpoint: CheckpointOption = None,
    sink: SinkOption = SinkName.parquet,
    coding: CodingOption = None,
    clip_frames: ClipFramesOption = None,
    stride: StrideOption = None,
    sample_fps: SampleFpsOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    size: SizeOption = None,
    start: StartOption = 0.0,
    max_frames: MaxFramesOption = None,
    stream: StreamOption = None,
    allow_truncated: TruncatedOption = False,
    column: ColumnOption = "videos",
    root: RootOption = None,
    by_content: ContentOption = False,
    engine: EngineOption = EngineName.local,
    address: AddressOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    threads: ThreadsOption = 1,
    readers: ReadersOption = 2,
    shard: ShardOption = None,
    batch: BatchOption = None,
    group: GroupOption = None,
    shard_size: ShardSizeOption = None,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    chunk_frames: ChunkFramesOption = None,
    tile: TileOption = None,
    tile_overlap: TileOverlapOption = None,
    max_memory: MaxMemoryOption = None,
    timeout: TimeoutOption = 600.0,
    retries: RetriesOption = 1,
    retry_failed: RetryFailedOption = False,
    max_failures: MaxFailuresOption = None,
) -> None:
    """Tokenize many videos into a collection, each exactly once, with many workers; docs/collections.md has examples.

    A run that was ended, even by a kill, goes on where it was when the same command is given again, with any number of
    workers. Inputs that fail are noted in OUTPUT/failures and do not stop the run. The exit code is 0 if all
    inputs have their records. `vidtok.datasets.TokenDataset` reads a collection.
    """
    check_model(model, checkpoint)
    more: dict[str, Any] = dict(wanted_size(height, width, size))
    if shard_size is not None:
        more["shard_bytes"] = shard_size

    from vidtok.config.layers import allowed_bases
    from vidtok.datasets import Listing, ModelOptions, RunOptions, TokenizeJob, TokenizeOptions

    options = TokenizeOptions(
        sink=sink.value,
        coding=None if coding is None else coding.value,
        clip_frames=clip_frames,
        stride=stride,
        fps=sample_fps,
        start=start,
        max_frames=max_frames,
        stream=stream,
        allow_truncated=allow_truncated,
        chunk_frames=chunk_frames,
        tile=tile,
        tile_overlap=tile_overlap,
        max_memory=max_memory,
        batch=batch,
        threads=threads,
        content=by_content,
        **more,
    )
    run = RunOptions(
        engine=engine.value,
        workers=workers,
        address=address,
        gpus=gpus,
        shard=shard or (0, 1),
        together=group,
        timeout=timeout,
        retries=retries,
        retry_failed=retry_failed,
        max_failures=max_failures,
        readers=readers,
    )
    named = ModelOptions(
        model=model,
        checkpoint=None if checkpoint is None else str(checkpoint),
        dtype=dtype.value,
        device=device,
        bases=tuple(map(str, allowed_bases())),
    )
    job = TokenizeJob(output, named, options, run)
    listing = None
    if inputs:
        words = tuple(inputs)
        listing = Listing(words=words, column=column, root=root, content=by_content, pictures=clip_frames is None)
    with _shown_progress() as (announce, progress):
        result = job.run(listing, announce=announce, progress=progress)
    typer.echo(_summary(result, output, shard))
    _refuse_incomplete(result, output)


@contextmanager
def _shown_progress() -> Iterator[tuple[Any, Any]]:
    """Functions for a run's lines and counts: one line, which on a terminal changes and in a log comes again."""
    from rich.console import Console

    console = Console(stderr=True)
    with ExitStack() as shown:

        def progress(tally: Tally) -> None:
            if is_quiet():
                return
            if console.is_terminal:
                status = shown.enter_context(console.status(""))
                shown.enter_context(repeating(REFRESH, lambda: status.update(_line(tally.figures()))))
            else:
                shown.enter_context(repeating(EVERY, lambda: typer.echo(_line(tally.figures()), err=True)))

        yield hint, progress


def _line(figures: Figures) -> str:
    left = figures.seconds_left
    time = "" if left is None else f", {_duration(left)} left"
    workers = ", ".join(f"{name}: {count:,}" for name, count in sorted(figures.workers.items()))
    return (
        f"{figures.done:,} of {figures.inputs:,} inputs, {figures.failed:,} failed, {figures.left:,} left; "
        f"{figures.rate:.1f} records a second{time}" + (f" [{workers}]" if workers else "")
    )


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{hours} h"


def _summary(result: TokenizeResult, output: Path, shard: tuple[int, int] | None) -> str:
    from vidtok.text import counted

    figures = result.figures
    part = "" if shard is None else f" of part {shard[0]}/{shard[1]}"
    rows = [
        ("output", str(output)),
        ("inputs", f"{figures.done:,} of {figures.inputs:,}{part} done"),
        ("records", f"{figures.records:,} new, {counted(figures.frames, 'frame')} in {figures.bytes:,} bytes"),
    ]
    if figures.empty:
        rows.append(("empty", f"{counted(figures.empty, 'input')} of this run without a record: shorter than a clip"))
    if result.retried:
        rows.append(("retried", counted(result.retried, "input")))
    if result.elsewhere:
        rows.append(("others", f"{counted(result.elsewhere, 'group')} of other parts not done yet"))
    if figures.records:
        rows.append(("time", f"{figures.seconds:.1f} s, {figures.records / figures.seconds:.2f} records a second"))
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def _refuse_incomplete(result: TokenizeResult, output: Path) -> None:
    """Raise `CollectionError` if inputs have no records."""
    from vidtok.errors import CollectionError
    from vidtok.text import counted

    if result.complete:
        return
    lines = [f"  {failed.source}: {failed.reason}" for failed in result.failures.values()]
    lines += [f"  {absent.name}: {absent.reason}" for absent in result.absent]
    more = f"\n  and {len(lines) - 20:,} more" if len(lines) > 20 else ""
    raise CollectionError(
        f"{counted(len(lines), 'input')} could not be tokenized (--retry-failed tries them again; all are in "
        f"{output / 'failures'}):\n" + "\n".join(lines[:20]) + more
    )
