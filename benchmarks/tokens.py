"""Token files: memory for a long video against a short one, and what each way of storing values costs.

    python benchmarks/tokens.py memory
    python benchmarks/tokens.py codings --model NAME [--checkpoint PATH] --input VIDEO --frames 17

`memory` draws two videos, encodes them to files and decodes these, each in a process of its own, with a model that is
narrow but otherwise like the published ones. Its weights are random, so that only time and memory mean anything.
`codings` encodes the first frames of a video once, and stores and decodes them in every coding of the model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Worker, write_results

import vidtok
from vidtok import Tokenizer, tokens
from vidtok.config.read import read_config
from vidtok.jobs import decode_file, encode_file
from vidtok.metrics.image import psnr
from vidtok.metrics.rate import bits_per_pixel
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, TokenWriter, make_header
from vidtok.video import Pixels, VideoWriter, read_video, to_float

NARROW: dict[str, Any] = {"ch": 8, "ch_mult": (1, 1, 1, 1), "num_res_blocks": 1}
PIECE = 64


def frames_of(count: int, size: int) -> Iterator[Pixels]:
    """`count` frames of waves that wander, `PIECE` at a time."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for start in range(0, count, PIECE):
        t = np.arange(start, min(count, start + PIECE), dtype=np.float32)[:, None, None]
        waves = [np.sin(x / a + t / b) * np.cos(y / c - t / d) for a, b, c, d in
                 ((9, 7, 17, 11), (13, 5, 8, 9), (21, 8, 12, 6))]  # fmt: skip
        yield (127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def narrow_model(name: str) -> Tokenizer:
    torch.manual_seed(0)
    config = read_config(name).model
    assert isinstance(config, AutoencoderConfig)
    return Tokenizer(replace(config, **NARROW), name=name).eval()


def make_tasks(name: str, folder: str, threads: int | None) -> dict[str, Any]:
    """Encoding and decoding of the video in `folder`."""
    if threads:
        torch.set_num_threads(threads)
    model, place = narrow_model(name), Path(folder)
    return {
        "encode": lambda: encode_file(model, place / "in.mp4", place / "video.vtok"),
        "decode": lambda: decode_file(model, place / "video.vtok", place / "out.mp4"),
    }


def measure_memory(options: argparse.Namespace) -> None:
    lengths = {"short": options.short, "long": options.long}
    figures: dict[str, dict[str, Any]] = {"encode": {}, "decode": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for which, length in lengths.items():
            folder = Path(scratch) / which
            folder.mkdir()
            with VideoWriter(folder / "in.mp4", Fraction(options.fps), preset="ultrafast") as writer:
                for piece in frames_of(round(length * options.fps), options.size):
                    writer.write(piece)
            for task, measured in figures.items():
                worker = Worker(make_tasks, options.config, str(folder), options.threads)
                measured[which] = worker.call(task)
                worker.close()
                print(f"{task} {length:g} s: {measured[which]['seconds']:.1f} s, "
                      f"peak {measured[which]['peak_bytes'] / 2**20:.1f} MiB")  # fmt: skip
    for task, measured in figures.items():
        measured["ratio"] = round(measured["long"]["peak_bytes"] / measured["short"]["peak_bytes"], 4)
        print(f"{task}: {measured['ratio']:.4f} times the memory")
    write_results(
        f"tokens-memory-{options.config}",
        {"config": options.config, "narrowed_to": NARROW, "size": options.size, "fps": options.fps,
         "seconds": lengths, "tasks": figures},
        options.out,
    )  # fmt: skip


def measure_codings(options: argparse.Namespace) -> None:
    model = vidtok.load(options.model, options.checkpoint)
    discrete = model.regularization.discrete
    source = to_float(read_video(options.input, height=options.size, width=options.size, max_frames=options.frames))
    size = (source.shape[2], source.shape[3], source.shape[4])
    chunk = None if model.is_causal else -(-size[0] // model.config.temporal_factor)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        path = Path(scratch) / "video.vtok"
        values = model.encode_packed(source)
        exact: torch.Tensor | None = None
        for coding in TOKEN_CODINGS if discrete else ("float32", *(c for c in LATENT_CODINGS if c != "float32")):
            header = make_header(model, height=size[1], width=size[2], fps=Fraction(24), coding=coding, chunk=chunk)
            with TokenWriter(path, header) as writer:
                writer.write(values)
                writer.finish(size[0])
            with tokens.read(path) as file:
                decoded = model.decode_packed(file.read(), size=size).float().clamp(-1, 1)
            exact = decoded if exact is None else exact
            taken = path.stat().st_size
            results[coding] = {
                "bytes": taken,
                "bits_per_pixel": round(bits_per_pixel(8 * taken, prod(size)), 4),
                "psnr": round(psnr(decoded, source).mean().item(), 3),
                "psnr_to_exact_values": round(psnr(decoded, exact).mean().item(), 2),
                "latent_snr": None if writer.int8_snr is None else round(writer.int8_snr, 2),
            }
            print(f"{coding:>9}: {results[coding]}", flush=True)
    write_results(
        f"tokens-codings-{model.name}",
        {"model": model.name, "input": Path(options.input).name, "frames": options.frames, "size": options.size,
         "codings": results},
        options.out,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    tasks = parser.add_subparsers(required=True)
    memory = tasks.add_parser("memory")
    memory.add_argument("--config", default="vidtok_fsq_causal_488_32768_v1_1")
    memory.add_argument("--short", type=float, default=20, help="seconds of the short video")
    memory.add_argument("--long", type=float, default=600, help="seconds of the long video")
    memory.add_argument("--fps", type=int, default=24)
    memory.add_argument("--size", type=int, default=256)
    memory.add_argument("--threads", type=int)
    memory.set_defaults(run=measure_memory)
    codings = tasks.add_parser("codings")
    codings.add_argument("--model", required=True)
    codings.add_argument("--checkpoint")
    codings.add_argument("--input", required=True)
    codings.add_argument("--frames", type=int, default=17)
    codings.add_argument("--size", type=int, default=256)
    codings.set_defaults(run=measure_codings)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
