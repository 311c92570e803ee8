"""The published command to measure a model on a folder of videos. See docs/published-scripts.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vidtok.cli.guard import guarded
from vidtok.cli.scripts import SentenceParser, add_data_options, add_model_options, published_advice
from vidtok.cli.scripts_evaluate import evaluate, load_model_from_config

__all__ = ["load_model_from_config"]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = SentenceParser(description="PSNR, SSIM and LPIPS of a model over all .mp4 files of a folder.")
    add_model_options(parser)
    add_data_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return guarded(lambda: print(evaluate(arguments)), advice=published_advice)


if __name__ == "__main__":
    sys.exit(main())
