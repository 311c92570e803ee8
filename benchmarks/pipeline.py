"""From file to file: how long reading, computing and writing take alone, and how long all of it takes.

    python benchmarks/pipeline.py --config vidtok_fsq_causal_488_32768_tiny --threads 1
    python benchmarks/pipeline.py --task reconstruct --frames 129

Where stages overlap, the whole takes hardly longer than its slowest stage, unless there are not processors enough for
all of them; where one waits for the other, it takes their sum. Each turn measures every stage and the whole, and the
ratios are those of the turns. The clip is made for it: waves that move, in H.264. Weights are random.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from common import seconds, write_results
from inference import seeded
from torch import Tensor

from vidtok import Tokenizer
from vidtok.config.read import read_config
from vidtok.jobs import Decoding, EncodeOptions, decode_file, encode_file
from vidtok.jobs.reconstruct import ReconstructOptions, reconstruct
from vidtok.metrics.image import psnr, ssim
from vidtok.runtime.limits import frames_at_a_time
from vidtok.runtime.passes import EncodePass, Pair, pairs
from vidtok.tokens import TokenFile, TokenWriter
from vidtok.video import Frame, Pixels, VideoReader, VideoWriter, to_float, to_uint8

Stages = dict[str, Callable[[], object]]


def make_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A video of waves that move, with some noise for the codec to work on."""
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    with VideoWriter(path, 25) as writer:
        for t in range(frames):
            waves = np.stack([np.sin(x / 9 + t / 5), np.cos(y / 13 - t / 7), np.sin((x + y) / 21 + t / 4)], -1)
            writer.write(np.clip(127.5 + 90 * waves + noise, 0, 255).astype(np.uint8)[None])


class Work:
    """The stages of the work on one clip; what a stage works on is kept in memory beforehand."""

    def __init__(self, model: Tokenizer, clip: Path, size: int) -> None:
        self.model, self.clip, self.size = model, clip, size
        self.at_a_time = frames_at_a_time(model.config, (size, size), None)
        self.tokens, self.video = clip.with_suffix(".vtok"), clip.with_name("output.mp4")

    def read(self) -> list[list[Frame]]:
        with VideoReader(self.clip, height=self.size, width=self.size) as reader:
            frames = iter(reader)
            return list(iter(lambda: list(islice(frames, self.at_a_time)), []))

    def pixels(self) -> list[Pixels]:
        return [np.stack([frame.pixels for frame in batch]) for batch in self.read()]

    def encode(self, frames: list[list[Frame]]) -> list[Tensor]:
        encoder = EncodePass(self.model, self.at_a_time)
        values = [encoder.push(to_float(np.stack([frame.pixels for frame in batch]))) for batch in frames]
        return [piece for piece in (*values, encoder.flush()) if piece.shape[-3]]

    def write_tokens(self, values: list[Tensor], frames: int) -> None:
        with TokenFile(self.tokens) as file:
            header = file.header
        with TokenWriter(self.tokens.with_name("again.vtok"), header) as writer:
            for piece in values:
                writer.write(piece)
            writer.finish(frames)

    def reconstruct(self, pixels: list[Pixels]) -> list[Pair]:
        return list(pairs(self.model, pixels, self.at_a_time))

    def measure(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            source = to_float(pair.source)
            psnr(pair.reconstruction, source)
            ssim(pair.reconstruction, source)

    def write_video(self, pairs: list[Pair]) -> None:
        with VideoWriter(self.video, 25) as writer:
            for pair in pairs:
                writer.write(to_uint8(pair.reconstruction))


def encoding(work: Work) -> Stages:
    def whole() -> None:
        encode_file(work.model, work.clip, work.tokens, EncodeOptions(height=work.size, width=work.size))

    whole()
    frames = work.read()
    values = work.encode(frames)
    return {
        "read": work.read,
        "compute": lambda: work.encode(frames),
        "write": lambda: work.write_tokens(values, sum(map(len, frames))),
        "whole": whole,
    }


def decoding(work: Work) -> Stages:
    encoding(work)
    pairs = work.reconstruct(work.pixels())

    def compute() -> None:
        with TokenFile(work.tokens) as file:
            list(Decoding(work.model, file))

    return {
        "compute": compute,
        "write": lambda: work.write_video(pairs),
        "whole": lambda: decode_file(work.model, work.tokens, work.video),
    }


def reconstructing(work: Work) -> Stages:
    pixels = work.pixels()
    pairs = work.reconstruct(pixels)
    options = ReconstructOptions(height=work.size, width=work.size)

    def behind() -> None:
        work.measure(pairs)
        work.write_video(pairs)

    return {
        "read": work.pixels,
        "compute": lambda: work.reconstruct(pixels),
        "measure and write": behind,
        "whole": lambda: reconstruct(work.model, work.clip, work.video, options),
    }


def _both_clocks(stage: Callable[[], object]) -> tuple[float, float]:
    """Seconds that `stage` takes, and seconds that processors work for it."""
    before = process_time()
    spent = seconds(stage)
    return spent, process_time() - before


TASKS = {"encode": encoding, "decode": decoding, "reconstruct": reconstructing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_fsq_causal_488_32768_tiny", help="a model's name, or a YAML file")
    parser.add_argument("--task", choices=TASKS, default="encode")
    parser.add_argument("--frames", type=int, default=65)
    parser.add_argument("--source", type=int, nargs=2, default=(720, 1280), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = seeded(Tokenizer(read_config(options.config).model), "float32")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, options.frames, *options.source)
        stages = TASKS[options.task](Work(model, clip, options.size))
        turns, used = [], []
        for _ in range(options.turns):
            both = {name: _both_clocks(stage) for name, stage in stages.items()}
            turns.append({name: spent for name, (spent, _) in both.items()})
            used.append({name: cpu for name, (_, cpu) in both.items()})
    figures: dict[str, Any] = {
        name: {
            "seconds": round(median(turn[name] for turn in turns), 4),
            "cpu": round(median(turn[name] for turn in used), 4),
        }
        for name in turns[0]
    }
    slowest = [turn["whole"] / max(value for name, value in turn.items() if name != "whole") for turn in turns]
    summed = [turn["whole"] / sum(value for name, value in turn.items() if name != "whole") for turn in turns]
    for name, figure in figures.items():
        print(f"{name:>18}: {figure['seconds']:8.3f} s, of processors {figure['cpu']:8.3f} s")
    print(f"whole to slowest stage: {median(slowest):.3f} ({min(slowest):.3f} to {max(slowest):.3f})")
    print(f"whole to sum of stages: {median(summed):.3f} ({min(summed):.3f} to {max(summed):.3f})")
    write_results(
        f"pipeline-{options.task}-{Path(options.config).stem}-{options.frames}x{options.size}x{options.size}",
        {
            "config": options.config, "task": options.task, "frames": options.frames, "source": options.source,
            "size": options.size, "turns": options.turns, "stages": figures,
            "whole_to_slowest": [round(value, 3) for value in slowest],
            "whole_to_sum": [round(value, 3) for value in summed],
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
