"""How models' pictures look: PSNR, SSIM, LPIPS of given videos, and the colours of flat patches.

    python benchmarks/pictures.py VIDEO ... --model NAME[=CHECKPOINT] [--model ...] [--averages] [--frames 17]

Means are over videos, of which each counts the same. Colours: a still picture of 64 patches, 48 saturated ones (24
hues, bright and dark) and 16 greys, is encoded and decoded; the error is that of a patch's mean colour, away from its
border, in 8-bit levels, the largest of red, green and blue. The videos may be anyone's; what is learned from a few of
them is no reason to change a model.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path
from typing import Any

import torch
from common import first_frames, video_options, write_results
from torch import Tensor

import vidtok
from vidtok.evaluation.evaluate import file_name
from vidtok.metrics.image import psnr, ssim
from vidtok.metrics.lpips import LPIPS
from vidtok.metrics.networks import load_lpips

LEVELS = 127.5
ROWS = 8
"""Rows and columns of patches."""


def colours() -> Tensor:
    """The 64 colours (64, 3) in -1..1: by hue, bright and dark in turn, then greys from black to white."""
    saturated = [colorsys.hsv_to_rgb(hue / 24, 1.0, value) for hue in range(24) for value in (1.0, 0.6)]
    greys = [(step / 15,) * 3 for step in range(16)]
    return torch.tensor([*saturated, *greys]) * 2 - 1


def patches(frames: int, side: int) -> Tensor:
    """A still clip (1, 3, T, 8 side, 8 side) of the colours, row by row."""
    grid = colours().view(ROWS, ROWS, 3).repeat_interleave(side, 0).repeat_interleave(side, 1)
    return grid.permute(2, 0, 1)[None, :, None].expand(1, 3, frames, -1, -1).contiguous()


def colour_errors(clip: Tensor, side: int) -> Tensor:
    """Of what was made of `patches(...)`, the error (64,) of each patch's mean colour in 8-bit levels."""
    edge = side // 4
    cut = clip.mean((0, 2)).view(3, ROWS, side, ROWS, side)[:, :, edge : side - edge, :, edge : side - edge]
    means = cut.mean((2, 4)).flatten(1).T
    errors: Tensor = (means - colours()).abs().amax(1) * LEVELS
    return errors


def figures(model: vidtok.Tokenizer, videos: dict[str, Tensor], lpips: LPIPS | None) -> dict[str, Any]:
    """Figures of each video and their means, and of the colours."""
    found: dict[str, dict[str, float]] = {}
    for name, video in videos.items():
        shown = model(video, sample=False)[1].clamp(-1, 1)
        found[name] = {"psnr": float(psnr(shown, video).mean()), "ssim": float(ssim(shown, video).mean())}
        if lpips is not None:
            found[name]["lpips"] = float(lpips(shown, video).mean())
    means = {key: sum(each[key] for each in found.values()) / len(found) for key in next(iter(found.values()))}
    side = 32
    errors = colour_errors(model(patches(9, side), sample=False)[1].clamp(-1, 1), side)
    seen = {"largest": float(errors.max()), "mean": float(errors.mean()), "greys": float(errors[48:].max())}
    return {"means": means, "videos": found, "colours": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    video_options(parser)
    parser.add_argument("--model", action="append", required=True, metavar="NAME[=CHECKPOINT]")
    parser.add_argument("--averages", action="store_true", help="a training run's moving averages")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    videos, lpips = first_frames(options), load_lpips()
    if not isinstance(lpips, LPIPS):
        print(f"LPIPS is not measured: {lpips}")
    results: dict[str, Any] = {}
    for text in options.model:
        source, _, checkpoint = text.partition("=")
        model = vidtok.load(source, checkpoint or None, ema=options.averages)
        results[text] = figures(model, videos, lpips if isinstance(lpips, LPIPS) else None)
        print(f"{text}: {results[text]['means']}, colours {results[text]['colours']}", flush=True)
    name = file_name("-".join(["pictures", *(path.stem for path in options.videos)]))
    write_results(name, {"frames": options.frames, "size": options.size, "pictures": results}, options.out)


if __name__ == "__main__":
    main()
