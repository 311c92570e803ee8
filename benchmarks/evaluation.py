"""How much of an evaluation's time is spent in the model, at full width.

    python benchmarks/evaluation.py --config vidtok_kl_causal_488_16chn_v1_1 --videos 2 --frames 17 --size 128

Procedural clips are written as video files and evaluated as `vidtok evaluate` does it, with random weights, which take
the time that trained ones take; LPIPS and FVD too, also with random weights, unless --figures image leaves them out.
Two numbers say what reading and measuring cost:

- share: time in the model over all time, from the first file opened to the last figure;
- kept: the time that the model takes for the same frames with nothing beside it, over all time. Where cores are few,
  what overlaps with the model slows it down, which the share does not show and this does.

The model alone and the evaluation take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import seconds, write_results

import vidtok
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.runner import Runner
from vidtok.evaluation.subjects import ModelSubject
from vidtok.evaluation.videos import FrameStream, find_videos
from vidtok.metrics.i3d import I3D
from vidtok.metrics.lpips import LPIPS
from vidtok.metrics.networks import Networks
from vidtok.metrics.unavailable import Unavailable
from vidtok.runtime.limits import CLIP_FRAMES
from vidtok.runtime.passes import pairs
from vidtok.synthetic.evaluation_set import EvaluationSet, write_evaluation_set
from vidtok.video import Pixels


def networks(figures: str, device: torch.device) -> Networks:
    """LPIPS and I3D with random weights, or neither."""
    if figures == "image":
        none = Unavailable("left out")
        return Networks(none, none, device)
    return Networks(LPIPS().eval().to(device), I3D().eval().to(device), device)


def alone(model: vidtok.Tokenizer, videos: list[list[Pixels]]) -> None:
    """Nothing but the model, on frames in memory."""
    for chunks in videos:
        for pair in pairs(model, chunks, CLIP_FRAMES):
            pair.reconstruction.sum().item()


def turns(model: vidtok.Tokenizer, runner: Runner, count: int) -> Iterator[dict[str, float]]:
    subject = ModelSubject(model)
    held = []
    for video in runner.videos:
        stream = FrameStream(video, runner.options)
        held.append(list(stream.chunks(subject.cut(stream.size, runner.options)[0])))
    alone(model, [held[0][:1]])
    for _ in range(count):
        bare = seconds(lambda: alone(model, held))
        outcome = runner.measure(subject)
        yield {"alone": bare, "whole": outcome.seconds, "model": outcome.subject_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_kl_causal_488_16chn_v1_1")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--figures", choices=["all", "image"], default="all", help="image: PSNR, SSIM and flicker only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = vidtok.Tokenizer.from_config(options.config).eval().to(device)
    chosen = EvaluationOptions(height=options.size, width=options.size)
    with tempfile.TemporaryDirectory() as folder:
        spec = EvaluationSet(
            clips=options.videos, height=2 * options.size, width=2 * options.size, frames=options.frames
        )
        write_evaluation_set(Path(folder) / "clips", spec)
        runner = Runner(find_videos(Path(folder) / "clips"), chosen, networks(options.figures, device))
        measured = list(turns(model, runner, options.turns))
    results: dict[str, Any] = {
        "share": round(median(turn["model"] / turn["whole"] for turn in measured), 3),
        "kept": round(median(turn["alone"] / turn["whole"] for turn in measured), 3),
        "turns": [{name: round(value, 2) for name, value in turn.items()} for turn in measured],
    }
    print(f"share of time in the model {results['share']:.1%}, model alone over all {results['kept']:.1%}")
    shape = f"{options.videos}x{options.frames}x{options.size}x{options.size}"
    write_results(
        f"evaluation-{options.config}-{shape}-{options.figures}",
        {
            "config": options.config, "videos": options.videos, "frames": options.frames, "size": options.size,
            "figures": options.figures, "device": options.device, **results,
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
