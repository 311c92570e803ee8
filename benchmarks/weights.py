"""What narrower weights cost: reconstructions with weights in bfloat16, float16 and int8 beside those in float32.

    python benchmarks/weights.py --model NAME [--checkpoint PATH] VIDEO ... [--frames 17] [--size 256]

Weights are rounded as `vidtok export --dtype` stores them, and computing is in float32 throughout, so that figures are
of the rounding alone; `--compute bfloat16` computes in that as well, with float32's weights as the model has them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import first_frames, video_options, write_results

import vidtok
from vidtok.evaluation.evaluate import file_name
from vidtok.metrics.image import psnr

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    video_options(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--compute", action="append", default=[], choices=["bfloat16", "float16"])
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    videos = first_frames(options)
    exact: dict[str, torch.Tensor] = {}
    results: dict[str, Any] = {}
    runs = [(name, torch.float32) for name in DTYPES]
    runs += [("float32", getattr(torch, name)) for name in options.compute]
    for stored, compute in runs:
        model = vidtok.load(options.model, options.checkpoint, dtype=DTYPES[stored])
        with tempfile.TemporaryDirectory() as scratch:
            folder = model.save_pretrained(Path(scratch) / "model", int8=stored == "int8")
            taken = (folder / "model.safetensors").stat().st_size
            model = vidtok.load(folder, dtype=compute)
        figures: dict[str, Any] = {"bytes": taken, "psnr": {}, "psnr_to_float32": {}}
        for name, video in videos.items():
            shown = model(video.to(compute), sample=False)[1].float().clamp(-1, 1)
            exact.setdefault(name, shown)
            figures["psnr"][name] = round(psnr(shown, video).mean().item(), 3)
            if shown is not exact[name]:
                figures["psnr_to_float32"][name] = round(psnr(shown, exact[name]).mean().item(), 2)
        label = f"weights in {stored}" + (f", computed in {str(compute)[6:]}" if compute != torch.float32 else "")
        results[label] = figures
        print(f"{label}: {figures}", flush=True)
    write_results(
        file_name(f"weights-{model.name}"),
        {"model": options.model, "frames": options.frames, "size": options.size, "runs": results}, options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
