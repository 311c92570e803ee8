"""`vidtok reconstruct`: a video through a model and back, to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    VideoOutputOption,
    WidthOption,
    load_model,
    say_other_streams,
    wanted_size,
)


def reconstruct(
    input: Annotated[Path, typer.Argument(help="A video, a picture, or a folder of pictures.")],
    output: VideoOutputOption,
    model: ModelOption,
    checkpoint: CheckpointOption = None,
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
) -> None:
    """Encode and decode a video, write the result and print its quality.

    Frames are resized by the shorter side and cropped in the centre to 256 x 256, as for the published figures (224 x
    224 for VidTwin, which takes no other), unless a size is given; `--size original` takes them as they are. PSNR and
    SSIM compare the frames that went into the model with the ones that came out, before the written file is compressed.
    Sound is kept if the whole video is reconstructed. An existing OUTPUT is replaced, once the new one is whole.
    """
    wanted = wanted_size(height, width, size)

    from vidtok.cli.report import progress_bar, summary
    from vidtok.jobs.reconstruct import ReconstructionJob, ReconstructOptions

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
    job = ReconstructionJob(input, output, options)
    tokenizer = load_model(model, checkpoint, device, dtype, limited=max_memory is not None)
    with progress_bar("reconstructing", job.frame_estimate) as progress:
        result = job.run(tokenizer, progress)
    typer.echo(summary(result, tokenizer))
    say_other_streams(job.other_streams)
