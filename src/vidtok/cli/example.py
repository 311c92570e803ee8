"""`vidtok example`: a first reconstruction, without a file of one's own or a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidtok.cli.options import DeviceOption


def example(
    folder: Annotated[Path, typer.Option(help="Folder for the clip and the reconstruction.")] = Path("example"),
    device: DeviceOption = None,
) -> None:
    """Make a short clip and reconstruct it with the small model that comes with this package."""
    import vidtok
    from vidtok.cli.progress import progress_bar
    from vidtok.cli.report import summary
    from vidtok.config.registry import SHIPPED
    from vidtok.device import choose_device
    from vidtok.errors import VideoError
    from vidtok.files import make_folder
    from vidtok.jobs.reconstruct import ReconstructionJob, ReconstructOptions
    from vidtok.synthetic.example import write_clip

    place = choose_device(device)
    make_folder(folder, VideoError, "choose another folder with --folder")
    model = vidtok.load(SHIPPED[0], device=place)
    options = ReconstructOptions(side_by_side=True)
    job = ReconstructionJob(write_clip(folder / "clip.mp4"), folder / "reconstructed.mp4", options)
    with progress_bar("reconstructing", job.frame_estimate) as progress:
        result = job.run(model, progress)
    typer.echo(summary(result, model))
