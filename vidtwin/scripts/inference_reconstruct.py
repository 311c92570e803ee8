"""The published command to reconstruct one video with VidTwin; `vidtok reconstruct` does more. See docs/vidtwin.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vidtok.cli.guard import guarded
from vidtok.cli.scripts import SentenceParser, add_concate_option, add_vidtwin_options, published_advice
from vidtok.cli.scripts_reconstruct import reconstruct


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = SentenceParser(description="Reconstruct a video; the input is put beside the result.")
    add_vidtwin_options(parser)
    parser.add_argument("--input_video_path", default="assets/example.mp4", help="the video to reconstruct")
    parser.add_argument("--output_video_dir", default="tmp", help="writes STEM_reconstructed.mp4 there")
    add_concate_option(parser)
    parser.set_defaults(pad_gen_frames=False)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return guarded(lambda: print(f"reconstructed video: {reconstruct(arguments)}"), advice=published_advice)


if __name__ == "__main__":
    sys.exit(main())
