"""Tiles: what they cost in quality, and whether memory stays where it is predicted and below a budget.

    python benchmarks/tiling.py seams --model NAME --input VIDEO [VIDEO ...] [--overlap 0 32 64 96]
    python benchmarks/tiling.py memory --model NAME --size 768 --max-memory 6GB

`seams` reconstructs the first frames of videos whole and in tiles. It compares the PSNR to the source, and how steep
the picture is (mean squared difference of neighbouring pixels) at the lines where tiles begin and end, relative to the
whole reconstruction and to the rest of the picture: 1 means that these lines do not stand out.
`memory` reconstructs a drawn clip below a budget in a process of its own, and compares the peak of its memory with the
prediction. Its weights are random unless `--trained` is given, as only time and memory mean anything.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from common import Worker, write_results
from torch import Tensor

import vidtok
from vidtok import Tiling, Tokenizer
from vidtok.config.read import read_config
from vidtok.fields import memory_bytes
from vidtok.jobs.reconstruct import ReconstructOptions, reconstruct
from vidtok.metrics.image import psnr
from vidtok.runtime.options import ComputeOptions
from vidtok.runtime.planning import plan
from vidtok.video import VideoWriter, read_video, to_float


def steepness(video: Tensor, axis: int) -> Tensor:
    """Mean squared difference of each row (`axis` 3) or column (4) of `video` (B, C, T, H, W) to the one before."""
    others = [i for i in range(5) if i != axis]
    return video.diff(dim=axis).square().mean(dim=others)


def seam_ratio(tiled: Tensor, whole: Tensor, tiling: Tiling, factor: int) -> float | None:
    """How much steeper `tiled` is at seams than elsewhere, both relative to `whole`; None if there are no seams."""
    at_seams: list[Tensor] = []
    elsewhere: list[Tensor] = []
    for axis in (3, 4):
        spans = tiling.spans(tiled.shape[axis], factor)
        lines = {span.start * factor for span in spans[1:]} | {span.stop * factor for span in spans[:-1]}
        here = torch.tensor([i + 1 in lines for i in range(tiled.shape[axis] - 1)])
        for part, chosen in ((at_seams, here), (elsewhere, ~here)):
            part.append(torch.stack([steepness(video, axis)[chosen].sum() for video in (tiled, whole)]))
    if not bool(torch.stack(at_seams)[:, 1].sum()):
        return None
    seams, rest = (torch.stack(part).sum(0) for part in (at_seams, elsewhere))
    return float((seams[0] / seams[1]) / (rest[0] / rest[1]))


def measure_seams(options: argparse.Namespace) -> None:
    torch.set_grad_enabled(False)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = vidtok.load(options.model, options.checkpoint)
    assert isinstance(model.config.spatial_factor, int)
    results: dict[str, Any] = {}
    for path in options.input:
        pixels = read_video(path, height=options.size, width=options.size, max_frames=options.frames)
        source = to_float(pixels)
        _, whole, _ = model(source, sample=False)
        untiled = psnr(whole, source).mean().item()
        figures: dict[str, Any] = {"psnr_whole": round(untiled, 3), "tiles": []}
        for overlap in options.overlap:
            tiling = Tiling(options.tile, overlap)
            _, tiled, _ = model.with_tiling(tiling)(source, sample=False)
            score = psnr(tiled, source).mean().item()
            ratio = seam_ratio(tiled, whole, tiling, model.config.spatial_factor)
            measured = {
                "tile": options.tile,
                "overlap": overlap,
                "psnr": round(score, 3),
                "psnr_difference": round(score - untiled, 3),
                "psnr_to_whole": round(psnr(tiled, whole).mean().item(), 2),
                "steepness_at_seams": None if ratio is None else round(ratio, 4),
            }
            figures["tiles"].append(measured)
            print(f"{Path(path).name}: whole {untiled:.3f} dB, {measured}")
        results[Path(path).name] = figures
    write_results(
        f"tiling-seams-{model.name}",
        {"model": model.name, "size": options.size, "frames": options.frames, "videos": results},
        options.out,
    )


def make_tasks(
    name: str, checkpoint: str | None, trained: bool, folder: str, budget: str, dtype: str, threads: int | None
) -> dict[str, Callable[[], object]]:
    """The reconstruction of the video in `folder`."""
    if threads:
        torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    if trained:
        model = vidtok.load(name, checkpoint, dtype=kind)
    else:
        torch.manual_seed(0)
        model = Tokenizer(read_config(name).model, name=name).eval().to(kind)
    place = Path(folder)
    options = ReconstructOptions(max_memory=budget)
    return {"reconstruct": lambda: reconstruct(model, place / "in.mp4", place / "out.mp4", options)}


def measure_memory(options: argparse.Namespace) -> None:
    from tokens import frames_of

    torch.manual_seed(0)
    model = Tokenizer(read_config(options.model).model, name=options.model).to(getattr(torch, options.dtype))
    size = (options.size, options.size)
    chosen = plan(model, size, ComputeOptions(max_memory=options.max_memory), "both", options.frames)
    del model
    assert chosen.memory is not None
    grid = chosen.tiling and chosen.tiling.grid(size, read_config(options.model).model.spatial_factor)
    print(f"predicted {chosen.memory / 1e9:.2f} GB, tiles {grid}, {chosen.frames} frames at a time", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        with VideoWriter(Path(scratch) / "in.mp4", Fraction(24), preset="ultrafast") as writer:
            for piece in frames_of(options.frames, options.size):
                writer.write(piece)
        worker = Worker(make_tasks, options.model, options.checkpoint, options.trained, scratch, options.max_memory,
                        options.dtype, options.threads)  # fmt: skip
        measured = worker.call("reconstruct")
        worker.close()
    peak, limit = measured["peak_bytes"], memory_bytes(options.max_memory)
    print(f"peak {peak / 1e9:.2f} GB of {limit / 1e9:.2f} GB, {measured['seconds']:.0f} s")
    write_results(
        f"tiling-memory-{options.model}-{options.frames}x{options.size}x{options.size}-{options.dtype}",
        {"model": options.model, "trained": options.trained, "frames": options.frames, "size": options.size,
         "dtype": options.dtype, "max_memory": limit, "tiles": grid, "predicted_bytes": chosen.memory,
         "resting_bytes": worker.resting_bytes, **measured},
        options.out,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    tasks = parser.add_subparsers(required=True)
    for name, run in (("seams", measure_seams), ("memory", measure_memory)):
        task = tasks.add_parser(name)
        task.add_argument("--model", required=True)
        task.add_argument("--checkpoint")
        task.add_argument("--frames", type=int, default=17)
        task.add_argument("--threads", type=int)
        task.set_defaults(run=run)
        if name == "seams":
            task.add_argument("--input", required=True, nargs="+")
            task.add_argument("--size", type=int, default=512, help="rows and columns")
            task.add_argument("--tile", type=int, default=256)
            task.add_argument("--overlap", type=int, nargs="+", default=[0, 32, 64, 96])
        else:
            task.add_argument("--size", type=int, default=768, help="rows and columns")
            task.add_argument("--max-memory", default="6GB")
            task.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
            task.add_argument("--trained", action="store_true", help="load weights instead of drawing them")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
