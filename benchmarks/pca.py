"""PSNR of the linear block transform beside models, on the first frames of given videos.

    python benchmarks/pca.py bikes.mp4 cockatoo.mp4 --block 4 8 16 [--model NAME[=CHECKPOINT] ...]

The transform keeps, of each block of t x s x s pixels, the k numbers that lose least, and its first frame is coded by
itself as causal models do it; `--block` gives t, s and k. It is fitted on procedural clips, never on the videos. With
`--model`, each model is measured beside the transform with its own block and number of values.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import video_options, write_results

import vidtok
from vidtok.evaluation.evaluate import file_name
from vidtok.evaluation.linear import BlockShape
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.runner import Runner
from vidtok.evaluation.subjects import ModelSubject, Subject, TransformSubject
from vidtok.evaluation.videos import Video
from vidtok.metrics.networks import Networks
from vidtok.metrics.unavailable import Unavailable


def subjects(models: list[str], blocks: list[list[int]]) -> list[Subject]:
    """Each model with its transform after it, then the transforms that were asked for."""
    found: list[Subject] = []
    shapes = [BlockShape(t, s, k) for t, s, k in blocks]
    for text in models:
        source, _, checkpoint = text.partition("=")
        model = ModelSubject(vidtok.load(source, checkpoint or None))
        found.append(model)
        shape = model.block_shape()
        shapes += [shape] if shape is not None else []
    if not shapes:
        shapes.append(BlockShape(4, 8, 16))
    return [*found, *(TransformSubject(shape) for shape in dict.fromkeys(shapes))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    video_options(parser)
    parser.add_argument("--model", action="append", default=[], metavar="NAME[=CHECKPOINT]")
    parser.add_argument("--block", action="append", default=[], type=int, nargs=3, metavar=("T", "S", "K"))
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    none = Unavailable("not wanted here")
    videos = [Video(path, path.name) for path in options.videos]
    chosen = EvaluationOptions(height=options.size, width=options.size, max_frames=options.frames)
    runner = Runner(videos, chosen, Networks(none, none, torch.device("cpu")))
    rows: dict[str, dict[str, float]] = {}
    for subject in subjects(options.model, options.block):
        outcome = runner.measure(subject)
        for failure in outcome.unreadable:
            parser.error(failure.reason)
        rows[subject.name] = {each.name: each.scores.result()["psnr"].mean for each in outcome.measured}
    print(f"{'PSNR (dB)':40}" + "".join(f"{video.name:>16}" for video in videos))
    for name, figures in rows.items():
        print(f"{name:40}" + "".join(f"{figures[video.name]:16.2f}" for video in videos))
    name = file_name("-".join(["pca", *(video.path.stem for video in videos)]))
    write_results(name, {"frames": options.frames, "size": options.size, "psnr": rows}, options.out)


if __name__ == "__main__":
    main()
