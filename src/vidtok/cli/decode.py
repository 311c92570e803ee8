"""`vidtok decode`: a token file to a video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_exists, check_model, check_output
from vidtok.cli.many import ManyOutputOption, SkipExistingOption, are_many, say_result, title
from vidtok.cli.options import (
    CheckpointOption,
    DecoderOption,
    DeviceOption,
    DType,
    DTypeOption,
    MaxMemoryOption,
    TileOption,
    TileOverlapOption,
    load_model,
    model_names,
)
from vidtok.cli.usage import COUNT
from vidtok.errors import TokenFileError, VidTokError
from vidtok.video.library import OUTPUT_SUFFIXES, TOKEN_SUFFIX

if TYPE_CHECKING:
    from vidtok.jobs import Decoded, DecodeJob, DecodeOptions
    from vidtok.jobs.batch import Step
    from vidtok.tokenizer import Tokenizer


def _timestamp(text: str) -> str:
    """`text` of `--start` or `--end`."""
    from vidtok.jobs.timestamp import check_timestamp

    try:
        check_timestamp(text)
    except VidTokError as error:
        raise typer.BadParameter(str(error)) from None
    return text


InputArgument = Annotated[
    Path,
    typer.Argument(
        help="A token file that `vidtok encode` wrote; or, with a folder as output, a folder of them or a list."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|YAML|FOLDER|HUB",
        autocompletion=model_names,
        help="The model that the file was made with, as for `vidtok encode`.",
        show_default="by the name in the file",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(parser=_timestamp, metavar="SECONDS|FRAMEf", help="First frame: 2.5, 1:02.5, or a frame, 100f."),
]
EndOption = Annotated[
    str | None,
    typer.Option(parser=_timestamp, metavar="SECONDS|FRAMEf", help="Stop before this time or frame, as for --start."),
]
AudioOption = Annotated[
    bool, typer.Option("--audio/--no-audio", help="Add the sound kept beside the file to a whole video.")
]
SkipDamagedOption = Annotated[
    bool,
    typer.Option(
        "--skip-damaged",
        help="Replace damaged parts by copies of the frames before; decode what is left of a cut-off file.",
    ),
]
OtherWeightsOption = Annotated[
    bool,
    typer.Option("--allow-other-weights", help="Decode with other weights than the file was made with."),
]
ChunkFramesOption = Annotated[
    int | None,
    typer.Option(parser=COUNT, metavar="N", help="Frames to compute at a time.", show_default="16, fewer if large"),
]


def decode(
    input: InputArgument,
    output: ManyOutputOption,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    decoder: DecoderOption = None,
    start: StartOption = None,
    end: EndOption = None,
    audio: AudioOption = True,
    skip_damaged: SkipDamagedOption = False,
    allow_other_weights: OtherWeightsOption = False,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    chunk_frames: ChunkFramesOption = None,
    tile: TileOption = None,
    tile_overlap: TileOverlapOption = None,
    max_memory: MaxMemoryOption = None,
    skip_existing: SkipExistingOption = False,
) -> None:
    """Decode a token file, or part of it, to a video.

    The video has the frame rate, size and length of the encoded one. A part equals the same frames of the whole, and is
    computed from no more of the past than the model's layers look back on. A model with other weights than the file's
    is refused. The encoder's weights are not loaded. An existing OUTPUT is replaced, once the new one is whole.

    If INPUT is a folder or a list, and OUTPUT a folder, all token files of INPUT are decoded, and OUTPUT mirrors its
    folders. Those that could not be are named at the end.
    """
    many = are_many(input, output, OUTPUT_SUFFIXES)
    if not many:
        check_exists(input, "a token file that `vidtok encode` wrote", TokenFileError)
        check_output(output, input=input)
    if model is not None:
        check_model(model, checkpoint, decoder, parts="decoder")

    from vidtok.jobs import DecodeOptions

    options = DecodeOptions(
        start=start,
        end=end,
        chunk_frames=chunk_frames,
        tile=tile,
        tile_overlap=tile_overlap,
        max_memory=max_memory,
        skip_damaged=skip_damaged,
        sound=audio,
    )
    loaded: dict[str, Tokenizer] = {}

    def fitting(job: DecodeJob) -> Tokenizer:
        """The model of the file; that of the file before it stays, since most folders are made with one."""
        name = model if model is not None else _known_model(job.header.model.name, input)
        if name not in loaded:
            loaded.clear()
            limited = max_memory is not None
            loaded[name] = load_model(
                name, checkpoint, device, dtype, limited=limited, decoder=decoder, parts="decoder"
            )
        return loaded[name]

    if many:
        _all(input, output, options, fitting, allow_other_weights, skip_existing)
    else:
        result, tokenizer = _one(input, output, options, fitting, "decoding", allow_other_weights)
        typer.echo(_summary(result, tokenizer))


def _one(
    input: Path, output: Path, options: DecodeOptions, fitting: Callable[[DecodeJob], Tokenizer], what: str, other: bool
) -> tuple[Decoded, Tokenizer]:
    from vidtok.cli.progress import progress_bar
    from vidtok.jobs import DecodeJob

    with DecodeJob(input, output, options) as job:
        tokenizer = fitting(job)
        with progress_bar(what, job.frames) as progress:
            return job.run(tokenizer, progress, allow_other=other), tokenizer


def _all(
    input: Path, output: Path, options: DecodeOptions, fitting: Callable[[DecodeJob], Tokenizer], other: bool,
    skip_existing: bool,
) -> None:  # fmt: skip
    from vidtok.jobs.batch import run_batch
    from vidtok.video.library import find_inputs

    def work(step: Step) -> Decoded:
        return _one(step.input, step.output, options, fitting, title(step), other)[0]

    inputs = find_inputs(input, (TOKEN_SUFFIX,))
    result = run_batch(inputs, output, work, drop=TOKEN_SUFFIX, skip_existing=skip_existing)
    say_result(result, output, "decoded", f"; {sum(each.frames for each in result.done):,} frames")


def _known_model(name: str, path: Path) -> str:
    """`name` from a token file, if it is a model's name: a file cannot make anything else be opened.

    Raises `TokenFileError` for other names.
    """
    from vidtok.config.registry import models
    from vidtok.tokens import TokenFileError

    if name not in models():
        raise TokenFileError(
            f"{path} was made with a model called {name}, which is not known by name; give its --model"
        )
    return name


def _summary(result: Decoded, model: Tokenizer) -> str:
    rate = "" if result.output.suffix.lower() == ".png" else f", {float(result.fps):.6g} a second"
    rows = [
        ("output", f"{result.output}{', with sound' if result.sound else ''}"),
        ("model", f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}"),
        ("decoder", model.decoder_name),
        ("frames", f"{result.frames:,}{rate}, {result.width} x {result.height} pixels"),
        *(("damage", damage) for damage in result.damages),
        ("time", f"{result.seconds:.2f} s, {result.frames / result.seconds:.2f} frames a second"),
    ]
    return "\n".join(f"{name:<8}{value}" for name, value in rows)
