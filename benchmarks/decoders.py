"""Decoders of one latent side by side: frames a second, memory, operations, and on videos PSNR and LPIPS.

    python benchmarks/decoders.py --decoders full fast preview --videos a.mp4 b.mp4       # of the model that ships
    python benchmarks/decoders.py --configs vidtok_kl_causal_488_16chn_v1_1 pictures --random --threads 1

A decoder is `full` (the model's own), the name of one that comes with the model, or a folder of `vidtok distill` or
`vidtok preview`; with `--random`, `fast` and `preview` are new ones with random weights, which are as fast as trained
ones. Latents are decoded as a stream of `--chunk` frames at a time. Each decoder has a process of its own, and all take
turns, so that only the ratios within one run mean something. The share is that of the matrix rate, which the operations
of the plain convolutions come to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Worker, first_frames, matrix_rate, write_results
from inference import seeded
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import vidtok
from vidtok import Tokenizer
from vidtok.config.read import read_configs
from vidtok.metrics.image import as_frames, psnr
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.models.decoders.config import DECODERS
from vidtok.models.decoders.make import make_decoder
from vidtok.video import to_uint8

FULL = "full"


def model_with(configs: Sequence[str], decoder: str, random: bool) -> Tokenizer:
    """The model of `configs` with `decoder`."""
    if not random:
        return vidtok.load(configs[0], decoder=decoder)
    model = seeded(Tokenizer(read_configs(list(configs)).model), "float32")
    if decoder == FULL:
        return model
    own = make_decoder(DECODERS[decoder](kind=decoder), model.config).eval()
    return seeded(model.with_decoder(own, decoder), "float32")


def latent(model: Tokenizer, frames: int, size: int) -> Tensor:
    side = -(-size // model.spatial_factor)
    count = -(-(frames - model.is_causal) // model.temporal_factor) + model.is_causal
    return torch.randn(1, model.z_channels, count, side, side, generator=torch.Generator().manual_seed(0))


def decode_streamed(model: Tokenizer, z: Tensor, chunk: int) -> None:
    stream = model.decode_stream()
    for piece in torch.split(z, max(1, chunk // model.temporal_factor), 2):
        stream.push(piece)
    stream.flush()


def make_tasks(
    configs: Sequence[str], decoder: str, random: bool, sizes: Sequence[int], frames: int, chunk: int, threads: int
) -> dict[str, Callable[[], object]]:
    """A task for each size of frames; it decodes a latent of random numbers."""
    torch.set_num_threads(threads)
    model = model_with(configs, decoder, random)
    latents = {str(size): latent(model, frames, size) for size in sizes}
    return {name: lambda z=z: decode_streamed(model, z, chunk) for name, z in latents.items()}  # type: ignore[misc]


def operations(model: Tokenizer, frames: int, size: int) -> float:
    """Operations of the plain convolutions for a frame: two for a multiplication and an addition."""
    z = latent(model, frames, size).to("meta")
    decoder = model.decoder.to("meta")
    with FlopCounterMode(display=False) as counter:
        decoder(z)
    return float(counter.get_total_flops()) / frames


def quality(model: Tokenizer, videos: dict[str, Tensor], lpips: LPIPS | None) -> dict[str, float]:
    found: dict[str, list[float]] = {"psnr": [], "lpips": []}
    for video in videos.values():
        _, out, _ = model(video, sample=False)
        out = out.clamp(-1, 1)
        found["psnr"].append(float(psnr(out, video).mean()))
        if lpips is not None:
            found["lpips"].append(float(lpips(as_frames(out), as_frames(video)).mean()))
    return {name: round(sum(values) / len(values), 4) for name, values in found.items() if values}


def write_picture(path: Path, models: dict[str, Tokenizer], video: Tensor) -> None:
    """The middle frame of `video`, and of each decoder's, from left to right."""
    import av

    middle = video.shape[2] // 2
    shown = [video, *(model(video, sample=False)[1].clamp(-1, 1) for model in models.values())]
    row = torch.cat([each[:, :, middle : middle + 1] for each in shown], 4)
    av.VideoFrame.from_ndarray(to_uint8(row[0])[0], format="rgb24").save(str(path))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["vidtok_kl_causal_488_16chn_tiny"], metavar="MODEL")
    parser.add_argument("--decoders", nargs="+", default=[FULL, "fast", "preview"])
    parser.add_argument("--random", action="store_true", help="random weights")
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256, 512])
    parser.add_argument("--stream", type=int, default=65, help="frames that are decoded in a turn")
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="videos for PSNR and LPIPS")
    parser.add_argument("--frames", type=int, default=17, help="frames of each video")
    parser.add_argument("--size", type=int, default=256, help="side of their frames")
    parser.add_argument("--picture", type=Path, help="where to write the middle frame of the first video")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    return parser.parse_args()


def speeds(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of threads, size and decoder."""
    rows: list[dict[str, Any]] = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        rate = matrix_rate(2048)
        given = (options.sizes, options.stream, options.chunk, threads)
        workers = {name: Worker(make_tasks, options.configs, name, options.random, *given) for name in options.decoders}
        for size in options.sizes:
            for worker in workers.values():
                worker.call(str(size))
            turns = [{name: worker.call(str(size)) for name, worker in workers.items()} for _ in range(options.turns)]
            for name, worker in workers.items():
                seconds = median(turn[name]["seconds"] for turn in turns)
                base = options.decoders[0]
                ratios = [turn[base]["seconds"] / turn[name]["seconds"] for turn in turns]
                model = model_with(options.configs, name, options.random)
                peak = max(turn[name]["peak_bytes"] for turn in turns)
                flop = operations(model, options.stream, size)
                rows.append({
                    "threads": threads, "size": size, "decoder": name,
                    "frames_per_second": round(options.stream / seconds, 2),
                    f"times_{base}": round(median(ratios), 2), "range": [round(min(ratios), 2), round(max(ratios), 2)],
                    "memory_mib": round((peak - worker.resting_bytes) / 2**20),
                    "gflop_per_frame": round(flop / 1e9, 3),
                    "share_of_matrix_rate": round(flop * options.stream / seconds / rate, 3),
                })  # fmt: skip
                print(rows[-1], flush=True)
        for worker in workers.values():
            worker.close()
    return rows


def main() -> None:
    options = parse()
    torch.set_grad_enabled(False)
    results: dict[str, Any] = {"configs": options.configs, "random": options.random, "rows": speeds(options)}
    if options.videos and not options.random:
        try:
            lpips = LPIPS.from_weights(None).eval()
        except LPIPSWeightsError:
            lpips = None
        models = {name: model_with(options.configs, name, False) for name in options.decoders}
        videos = first_frames(options)
        results["quality"] = {name: quality(model, videos, lpips) for name, model in models.items()}
        print(results["quality"])
        if options.picture is not None:
            write_picture(options.picture, models, next(iter(videos.values())))
    name = Path(options.configs[-1]).stem
    write_results(f"decoders-{name}{'-random' if options.random else ''}", results, options.out)


if __name__ == "__main__":
    main()
