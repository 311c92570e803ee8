"""How many different codes discrete models use on given videos, beside a codebook of plain blocks of the same size.

    python benchmarks/codes.py VIDEO ... --model NAME[=CHECKPOINT] [--model ...] [--frames 17] [--size 256]

A block that comes again, as where nothing moves, has little to get another code by, so that the number of tokens says
little of how many codes they could be. The yardstick is vector quantization without a network: as many blocks as the
model has codes are drawn from procedural clips, and each block of the videos, as large as the model's factors, is given
the nearest.
`evenly` is how many codes as many tokens would be, on average, if each were drawn from all codes alike. What
stands still says little that is new: `still` counts the blocks that repeat the one before in time at 40 dB or more, and
`evenly_moving` is `evenly` without them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import first_frames, video_options, write_results
from torch import Tensor

import vidtok
from vidtok.evaluation.evaluate import file_name
from vidtok.evaluation.linear import FITTING_SEED, cut_blocks
from vidtok.models.config import ModelConfig
from vidtok.synthetic import SyntheticConfig, synthetic_batch

DRAWN = 3
"""How many times as many blocks as the codebook holds it is drawn from."""
SIDE = 64
"""Rows and columns of the procedural clips."""
STILL = 40.0
"""PSNR in dB of a block to the one before it in time, at which it says nothing new."""


def blocks(video: Tensor, config: ModelConfig) -> Tensor:
    """The blocks (N, numbers) of `video` (B, 3, T, H, W) that a model's tokens stand for, in the order of tokens."""
    time, space = config.temporal_factor, config.spatial_factor
    if config.is_causal:
        video = torch.cat([video[:, :, :1].expand(-1, -1, time - 1, -1, -1), video], 2)
    return cut_blocks(video, time, space).flatten(0, -2)


def book(config: ModelConfig, size: int) -> Tensor:
    """`size` blocks of procedural clips."""
    frames = config.temporal_factor * 4 + config.is_causal
    synthetic = SyntheticConfig(frames=frames, height=SIDE, width=SIDE)
    each = len(blocks(torch.zeros(1, 3, frames, SIDE, SIDE), config))
    clips = [blocks(synthetic_batch(synthetic, FITTING_SEED, [i]), config) for i in range(-(-DRAWN * size // each))]
    drawn = torch.cat(clips)
    return drawn[torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))[:size]]


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The index of the nearest of `centres` for each of `points`."""
    offsets = centres.square().sum(1)
    return torch.cat([(offsets - 2 * part @ centres.T).argmin(1) for part in torch.split(points, 512)])


def still(video: Tensor, config: ModelConfig) -> int:
    """How many blocks of `video` (1, 3, T, H, W) in -1..1 repeat the one before in time."""
    height, width = video.shape[3:]
    places = -(-height // config.spatial_factor) * -(-width // config.spatial_factor)
    at = torch.stack(torch.split(blocks(video, config), places))
    errors = (at[1:] - at[:-1]).div(2).square().mean(-1)
    return int((errors <= 10 ** (-STILL / 10)).sum())


def evenly(tokens: int, size: int) -> int:
    """How many of `size` codes that many tokens are on average, each drawn from all alike."""
    return round(size * (1 - (1 - 1 / size) ** tokens))


def used(codes: dict[str, Tensor], size: int, repeated: int) -> dict[str, Any]:
    """Different codes of all videos and of each, out of `size`, and the entropy of all, in bits a token."""
    together = torch.cat(list(codes.values()))
    shares = torch.unique(together, return_counts=True)[1] / len(together)
    return {
        "tokens": len(together),
        "different": len(shares),
        "evenly": evenly(len(together), size),
        "still": repeated,
        "evenly_moving": evenly(len(together) - repeated, size),
        "entropy": round(-(shares * shares.log2()).sum().item(), 2),
        "by_video": {name: len(torch.unique(each)) for name, each in codes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    video_options(parser)
    parser.add_argument("--model", action="append", required=True, metavar="NAME[=CHECKPOINT]")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    videos = first_frames(options)
    results: dict[str, Any] = {}
    for text in options.model:
        source, _, checkpoint = text.partition("=")
        model = vidtok.load(source, checkpoint or None)
        size = getattr(model.config.bottleneck, "codebook_size", None)
        if size is None:
            parser.error(f"{model.name} is continuous; expected a discrete model")
        repeated = sum(still(video, model.config) for video in videos.values())
        codes = {
            name: model.encode(video, return_reg_log=True)[1]["indices"].flatten() for name, video in videos.items()
        }
        results[model.name] = used(codes, size, repeated)
        label = "x".join(map(str, (model.config.temporal_factor, model.config.spatial_factor))) + f"-blocks-{size}"
        if label not in results:
            centres = book(model.config, size)
            codes = {name: nearest(blocks(video, model.config), centres) for name, video in videos.items()}
            results[label] = used(codes, size, repeated)
    for name, figures in results.items():
        print(f"{name}: {figures}")
    name = file_name("-".join(["codes", *(path.stem for path in options.videos)]))
    write_results(name, {"frames": options.frames, "size": options.size, "codes": results}, options.out)


if __name__ == "__main__":
    main()
