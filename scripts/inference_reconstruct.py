"""The published command to reconstruct one video; `vidtok reconstruct` does more. See docs/published-scripts.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vidtok.cli.guard import guarded
from vidtok.cli.scripts import SentenceParser, add_concate_option, add_model_options, published_advice
from vidtok.cli.scripts_reconstruct import reconstruct


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = SentenceParser(description="Reconstruct a video; the input is put beside the result.")
    add_model_options(parser)
    parser.add_argument("--input_video_path", default="assets/example.mp4", help="the video to reconstruct")
    parser.add_argument("--output_video_dir", default="tmp", help="writes STEM_reconstructed.mp4 there")
    parser.add_argument(
        "--pad_gen_frames", action="store_true", help="put frames reconstructed last in front of each following clip"
    )
    add_concate_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return guarded(lambda: print(f"reconstructed video: {reconstruct(arguments)}"), advice=published_advice)


if __name__ == "__main__":
    sys.exit(main())
