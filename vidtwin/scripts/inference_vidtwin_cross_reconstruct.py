"""The published command for the structure of one video with the dynamics of another; `vidtok reenact` does more.

See docs/vidtwin.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import vidtok
from vidtok.cli.guard import guarded
from vidtok.cli.progress import progress_bar
from vidtok.cli.scripts import (
    SentenceParser,
    add_concate_option,
    add_vidtwin_options,
    autocast,
    check_chunk_size,
    make_output_folder,
    published_advice,
)
from vidtok.device import choose_device
from vidtok.jobs.reenact import ReenactmentJob
from vidtok.runtime.limits import frame_size


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = SentenceParser(description="Structure of one video, dynamics of another; both beside the result.")
    add_vidtwin_options(parser)
    for part in ("structure", "dynamics"):
        parser.add_argument(f"--input_video_path_{part}", required=True, help=f"the video whose {part} to take")
    parser.add_argument("--output_video_dir", default="tmp", help="writes the result there")
    add_concate_option(parser)
    parser.add_argument("--dynamics_split", nargs="?", const="", help="published; has no effect")
    return parser.parse_args(argv)


def reenact(arguments: argparse.Namespace) -> Path:
    """Do what `arguments` say, and return the path of what was written."""
    structure, dynamics = Path(arguments.input_video_path_structure), Path(arguments.input_video_path_dynamics)
    folder = Path(arguments.output_video_dir)
    make_output_folder(folder)
    output = folder / f"structure_{structure.stem}_dynamics_{dynamics.stem}_reconstructed.mp4"
    job = ReenactmentJob(
        output,
        structure=structure,
        dynamics=dynamics,
        fps=arguments.sample_fps,
        side_by_side=arguments.concate_input,
    )
    model = vidtok.load(arguments.config, arguments.ckpt, device=choose_device())
    model.recombine(None, None)  # refuses a model of another family
    frame_size(model, arguments.input_height, arguments.input_width)
    check_chunk_size(arguments.chunk_size, model)
    with progress_bar(output.name, job.frame_estimate) as progress, autocast(arguments.precision, model):
        return job.run(model, progress).output


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return guarded(lambda: print(f"reenacted video: {reenact(arguments)}"), advice=published_advice)


if __name__ == "__main__":
    sys.exit(main())
