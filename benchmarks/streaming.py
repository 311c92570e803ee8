"""Frames a second of a long video, encoded and decoded as a stream, beside those of one clip computed whole.

    python benchmarks/streaming.py --config vidtok_kl_causal_488_16chn_v1_1 --size 128 --clip 17 --frames 129

Both take turns in one process, from frames in memory to latents and back, with random weights. A stream is fed chunks
of `--chunk` frames, and decodes latents as they come. A model that gives more frames a second than a video has works in
real time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import matrix_rate, seconds, write_results
from inference import DTYPES, clip_of, seeded
from torch import Tensor

from vidtok import Tokenizer
from vidtok.config.read import read_config


def encode_streamed(model: Tokenizer, video: Tensor, chunk: int) -> Tensor:
    stream = model.encode_stream(sample=False)
    parts = [stream.push(piece) for piece in torch.split(video, chunk, 2)]
    return torch.cat([*parts, stream.flush()], 2)


def decode_streamed(model: Tokenizer, z: Tensor, chunk: int) -> list[Tensor]:
    """Frames, piece by piece as a writer takes them."""
    stream = model.decode_stream()
    pieces = [stream.push(piece) for piece in torch.split(z, max(1, chunk // model.config.temporal_factor), 2)]
    return [*pieces, stream.flush()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_kl_causal_488_16chn_v1_1")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--clip", type=int, default=17, help="frames of the clip that is computed whole")
    parser.add_argument("--frames", type=int, default=129, help="frames of the long video")
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = seeded(Tokenizer(read_config(options.config).model), options.dtype)
    clip, video = (clip_of(n, options.size, options.size, options.dtype) for n in (options.clip, options.frames))
    z = model.encode(clip, sample=False)
    long = encode_streamed(model, video, options.chunk)
    runs: dict[str, dict[str, tuple[int, Callable[[], object]]]] = {
        "encode": {
            "whole": (options.clip, lambda: model.encode(clip, sample=False)),
            "streamed": (options.frames, lambda: encode_streamed(model, video, options.chunk)),
        },
        "decode": {
            "whole": (options.clip, lambda: model.decode(z)),
            "streamed": (options.frames, lambda: decode_streamed(model, long, options.chunk)),
        },
    }
    results: dict[str, Any] = {}
    for task, ways in runs.items():
        turns = [{way: frames / seconds(run) for way, (frames, run) in ways.items()} for _ in range(options.turns)]
        ratios = [turn["streamed"] / turn["whole"] for turn in turns]
        rates = {way: round(median(turn[way] for turn in turns), 2) for way in ways}
        results[task] = {
            "frames_per_second": rates, "streamed_to_whole": round(median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }  # fmt: skip
        print(f"{task}: {results[task]}", flush=True)
    shape = (options.frames, options.size, options.size)
    write_results(
        f"streaming-{options.config}-{'x'.join(map(str, shape))}-{options.dtype}",
        {
            "config": options.config, "clip": options.clip, "shape": shape, "chunk": options.chunk,
            "dtype": options.dtype, "matrix_gflops": round(matrix_rate() / 1e9, 1), "tasks": results,
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
