"""`vidtok encode`: a video, or a tree of videos, to token files."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_input, check_model, check_token_output
from vidtok.cli.many import are_many
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
    ModelOption,
    SizeOption,
    StartOption,
    StreamOption,
    TileOption,
    TileOverlapOption,
    TruncatedOption,
    WidthOption,
    load_model,
    say_other_streams,
    wanted_size,
)
from vidtok.cli.verbosity import hint
from vidtok.video.library import TOKEN_SUFFIX

if TYPE_CHECKING:
    from vidtok.jobs import Encoded, EncodeJob, TreeJob, TreeResult
    from vidtok.tokenizer import Tokenizer
    from vidtok.video import Fit


class Coding(StrEnum):
    """Storage of values."""

    packed = "packed"
    static = "static"
    adaptive = "adaptive"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    int8 = "int8"


InputArgument = Annotated[
    Path,
    typer.Argument(
        help="A video, a picture, a folder of pictures; or, with a folder as output, a folder with videos below it or "
        "a list of them (.txt, .csv)."
    ),
]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", help=f"Output: a file that ends in {TOKEN_SUFFIX}, or a folder for many."),
]
CodingOption = Annotated[
    Coding | None,
    typer.Option(
        help="Storage of values. Tokens: packed, or entropy-coded (static, adaptive). Latents: float16, "
        "bfloat16, float32, int8.",
        show_default="adaptive for tokens, 16-bit floats for latents",
    ),
]
AudioOption = Annotated[bool, typer.Option("--audio", help="Keep the sound beside the token file, as .mka.")]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="For a folder: replace token files from another model or other options."),
]


def encode(
    input: InputArgument,
    output: OutputOption,
    model: ModelOption,
    checkpoint: CheckpointOption = None,
    coding: CodingOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    size: SizeOption = None,
    fps: FpsOption = None,
    start: StartOption = 0.0,
    max_frames: MaxFramesOption = None,
    stream: StreamOption = None,
    audio: AudioOption = False,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    chunk_frames: ChunkFramesOption = None,
    tile: TileOption = None,
    tile_overlap: TileOverlapOption = None,
    max_memory: MaxMemoryOption = None,
    allow_truncated: TruncatedOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Encode a video to a file of tokens or latents, which `vidtok decode` turns into a video again.

    Frames are resized by the shorter side and cropped in the centre to 256 x 256 (224 x 224 for VidTwin, which takes no
    other) unless a size is given; `--size original` takes them as they are.

    If INPUT is a folder or a list, and OUTPUT does not end in .vtok, all videos and pictures of INPUT are encoded, and
    OUTPUT mirrors its folders. Finished files of the same model and settings are kept, so that an interrupted run can
    be started again; files of another model or other settings are an error, unless --overwrite is given. Several
    processes may encode one folder together. Inputs that could not be encoded are named at the end.
    """
    wanted = wanted_size(height, width, size)
    many = are_many(input, output, (TOKEN_SUFFIX,))
    if not many:
        check_input(input)
        check_token_output(output, input)
    check_model(model, checkpoint)

    from vidtok.jobs import EncodeJob, EncodeOptions, TreeJob

    options = EncodeOptions(
        **wanted,
        fps=fps,
        start=start,
        max_frames=max_frames,
        stream=stream,
        chunk_frames=chunk_frames,
        tile=tile,
        tile_overlap=tile_overlap,
        max_memory=max_memory,
        coding=None if coding is None else coding.value,
        sound=audio,
        allow_truncated=allow_truncated,
    )
    load = partial(load_model, model, checkpoint, device, dtype, limited=max_memory is not None)
    # The input is looked at before the model is loaded.
    if many:
        _encode_tree(TreeJob(input, output, options, overwrite=overwrite), output, load())
    else:
        _encode_file(EncodeJob(input, output, options), load())


def _encode_file(job: EncodeJob, tokenizer: Tokenizer) -> None:
    from vidtok.cli.progress import progress_bar
    from vidtok.cli.report import crop_hint

    with progress_bar("encoding", job.frame_estimate) as progress:
        result = job.run(tokenizer, progress)
    typer.echo(_summary(result, tokenizer, sound_wanted=job.options.sound))
    say_other_streams(job.other_streams)
    if advice := crop_hint(*_cut_from(result)):
        hint(advice)


def _encode_tree(tree: TreeJob, output: Path, tokenizer: Tokenizer) -> None:
    from contextlib import ExitStack

    from vidtok.cli.progress import progress_bar
    from vidtok.errors import VidTokError
    from vidtok.jobs import TreeStep

    with ExitStack() as bars:

        def announce(step: TreeStep) -> Callable[[int], None]:
            bars.close()
            what = f"{step.number}/{step.of} {step.input.name}"
            return bars.enter_context(progress_bar(what, step.job.frame_estimate))

        def waiting(path: Path) -> None:
            bars.close()
            typer.echo(f"{path} is being encoded by another process; waiting for it", err=True)

        result = tree.run(tokenizer, announce, waiting)
    typer.echo(_tree_summary(result, output))
    if result.failed:
        listed = "\n".join(f"  {path}: {error}" for path, error in result.failed)
        raise VidTokError(f"{len(result.failed)} of {len(tree.inputs)} files could not be encoded:\n{listed}")


def _cut_from(result: Encoded) -> tuple[tuple[int, int] | None, Fit | None]:
    """The size of the source's frames, and their resize and crop; None where the header has no source."""
    from vidtok.video import Fit

    source, video = result.header.source, result.header.video
    if source is None or source.height is None or source.width is None or source.resized is None:
        return None, None
    return (source.height, source.width), Fit(source.resized, (video.height, video.width))


def _summary(result: Encoded, model: Tokenizer, *, sound_wanted: bool) -> str:
    from vidtok.cli.info import rate, tiles, values
    from vidtok.cli.report import size_text

    video = result.header.video
    shown = "" if video.picture else f", {float(video.fps):.6g} a second"
    rows = [
        ("output", f"{result.output}, {result.bytes:,} bytes"),
        ("model", f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}"),
        ("frames", f"{result.frames:,}{shown}, {size_text(video.height, video.width, *_cut_from(result))}"),
        values(result.header.latent, result.latent_frames),
        ("rate", rate(result.bits_per_pixel, result.compression, result.bytes, result.source_bytes)),
        ("time", f"{result.seconds:.2f} s, {result.frames / result.seconds:.2f} frames a second"),
    ]
    if result.int8_snr is not None:
        rows.insert(4, ("int8", f"{result.int8_snr:.2f} dB of signal to rounding noise"))
    if result.sound is not None:
        rows.insert(1, ("sound", str(result.sound)))
    elif sound_wanted:
        rows.insert(1, ("sound", "none: the video has no sound"))
    if result.resumed:
        rows.insert(3, ("resumed", f"after {result.resumed:,} frames, which an interrupted run had encoded"))
    if result.header.encoding.get("tiling"):
        rows.insert(3, tiles(result.header.encoding["tiling"]))
    if result.truncated:
        rows.insert(3, ("damage", "the input broke off here; the rest of it is not in the output"))
    return "\n".join(f"{name:<8}{value}" for name, value in rows)


def _tree_summary(result: TreeResult, output: Path) -> str:
    count, skipped = len(result.encoded), len(result.skipped)
    other = f"{len(result.elsewhere)} by another process, " if result.elsewhere else ""
    lines = [f"{output}: {count} encoded, {other}{skipped} there already, {len(result.failed)} failed"]
    if result.encoded:
        size = sum(encoded.bytes for encoded in result.encoded)
        frames = sum(encoded.frames for encoded in result.encoded)
        lines.append(f"{frames:,} frames in {size:,} bytes")
    return "\n".join(lines)
