"""`vidtok reconstruct`: a video through a model and back, to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_input, check_model, check_output
from vidtok.cli.many import ManyOutputOption, SkipExistingOption, are_many, say_result, title
from vidtok.cli.options import (
    CheckpointOption,
    ChunkFramesOption,
    DecoderOption,
    DeviceOption,
    DType,
    DTypeOption,
    FpsOption,
    HeightOption,
    MaxFramesOption,
    MaxMemoryOption,
    SizeOption,
    StartOption,
    StreamOption,
    TileOption,
    TileOverlapOption,
    TruncatedOption,
    WidthOption,
    load_model,
    model_names,
    say_other_streams,
    wanted_size,
)
from vidtok.cli.verbosity import hint
from vidtok.video.library import OUTPUT_SUFFIXES

if TYPE_CHECKING:
    from vidtok.jobs.batch import Step
    from vidtok.jobs.reconstruct import Reconstruction, ReconstructOptions
    from vidtok.tokenizer import Tokenizer

_BETTER = "vidtok_kl_causal_488_16chn_v1_1"
"""A published model of the compression of the small one that stands in for it."""
_SMALL = "vidtok_kl_causal_488_16chn_tiny"

OptionalModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|YAML|FOLDER|HUB",
        autocompletion=model_names,
        help="A name that `vidtok models` lists, a YAML file, a folder with a saved model, or OWNER/NAME on the Hub.",
        show_default="the small KL model that comes with the package",
    ),
]


def reconstruct(
    input: Annotated[
        Path,
        typer.Argument(
            help="A video, a picture, a folder of pictures; or, with a folder as output, a folder of videos or a list "
            "of them (.txt, .csv)."
        ),
    ],
    output: ManyOutputOption,
    model: OptionalModel = None,
    checkpoint: CheckpointOption = None,
    decoder: DecoderOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    size: SizeOption = None,
    fps: FpsOption = None,
    start: StartOption = 0.0,
    max_frames: MaxFramesOption = None,
    stream: StreamOption = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Put the source to the left of the reconstruction.")
    ] = False,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    chunk_frames: ChunkFramesOption = None,
    tile: TileOption = None,
    tile_overlap: TileOverlapOption = None,
    max_memory: MaxMemoryOption = None,
    allow_truncated: TruncatedOption = False,
    skip_existing: SkipExistingOption = False,
) -> None:
    """Encode and decode a video, write the result and print its quality.

    Frames are resized by the shorter side and cropped in the centre to 256 x 256, as for the published figures (224 x
    224 for VidTwin, which takes no other), unless a size is given; `--size original` takes them as they are. PSNR and
    SSIM compare the frames that went into the model with the ones that came out, before the written file is compressed.
    Sound is kept if the whole video is reconstructed. An existing OUTPUT is replaced, once the new one is whole.

    If INPUT is a folder or a list, and OUTPUT a folder, all videos and pictures of INPUT are reconstructed, and OUTPUT
    mirrors its folders. Those that could not be are named at the end.
    """
    wanted = wanted_size(height, width, size)
    many = are_many(input, output, OUTPUT_SUFFIXES)
    if not many:
        check_input(input)
        check_output(output, input=input)
    chosen = _SMALL if model is None else model
    check_model(chosen, checkpoint, decoder)

    from vidtok.jobs.reconstruct import ReconstructOptions

    options = ReconstructOptions(
        **wanted,
        fps=fps,
        start=start,
        max_frames=max_frames,
        stream=stream,
        chunk_frames=chunk_frames,
        tile=tile,
        tile_overlap=tile_overlap,
        max_memory=max_memory,
        side_by_side=side_by_side,
        allow_truncated=allow_truncated,
    )
    limited = max_memory is not None
    load = partial(load_model, chosen, checkpoint, device, dtype, limited=limited, decoder=decoder)
    if many:
        _all(input, output, options, load, skip_existing)
    else:
        _one(input, output, options, load)
    if model is None:
        hint(
            f"{_SMALL} was used, which comes with the package and is rough; the published models are better, such as "
            f"--model {_BETTER} (`vidtok models` lists all)"
        )


def _one(input: Path, output: Path, options: ReconstructOptions, load: Callable[[], Tokenizer]) -> None:
    from vidtok.cli.progress import progress_bar
    from vidtok.cli.report import crop_hint, summary
    from vidtok.jobs.reconstruct import ReconstructionJob

    job = ReconstructionJob(input, output, options)
    tokenizer = load()
    with progress_bar("reconstructing", job.frame_estimate, both=True) as progress:
        result = job.run(tokenizer, progress)
    typer.echo(summary(result, tokenizer))
    say_other_streams(job.other_streams)
    if advice := crop_hint(result.source_size, result.fit):
        hint(advice)


def _all(
    input: Path, output: Path, options: ReconstructOptions, load: Callable[[], Tokenizer], skip_existing: bool
) -> None:
    from vidtok.cli.progress import progress_bar
    from vidtok.jobs.batch import run_batch
    from vidtok.jobs.reconstruct import ReconstructionJob
    from vidtok.video.library import PICTURE_SUFFIXES, VIDEO_SUFFIXES, find_inputs

    inputs = find_inputs(input, VIDEO_SUFFIXES + PICTURE_SUFFIXES)
    tokenizer = load()

    def work(step: Step) -> Reconstruction:
        job = ReconstructionJob(step.input, step.output, options)
        with progress_bar(title(step), job.frame_estimate, both=True) as progress:
            return job.run(tokenizer, progress)

    result = run_batch(inputs, output, work, skip_existing=skip_existing)
    frames = sum(each.frames for each in result.done)
    total = sum(each.psnr * each.frames for each in result.done)
    figures = f"; {frames:,} frames, PSNR {total / frames:.2f} dB" if frames else ""
    say_result(result, output, "reconstructed", figures)
