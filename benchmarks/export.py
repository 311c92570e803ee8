"""Time of one step of a stream in eager mode, in onnxruntime, by torch.export and, with --aot, by AOTInductor.

    python benchmarks/export.py --model vidtok_kl_causal_488_16chn_tiny --part decode --size 128x128

All take turns in one process, with the same threads. Each step takes `--frames` frames of video or their latent; the
state goes from step to step. Outputs are compared after the first steps.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from common import seconds, write_results
from torch import Tensor

import vidtok
from vidtok.interop.export import export_graphs
from vidtok.interop.graphs import graphs
from vidtok.models.base import VideoModel
from vidtok.models.state import StreamState

Step = Callable[[], Any]


def eager(model: VideoModel, part: str, x: Tensor, state: tuple[Tensor, ...], slots: tuple[int, ...]) -> Step:
    coder = model.encoder if part == "encode" else model.decoder

    def run() -> Any:
        past = StreamState(dict(zip(slots, state, strict=True)), started=True)
        out = coder(x, past)
        return model.regularization(out, sample=False)[0] if part == "encode" else out

    return run


def first_of(module: Any, given: tuple[Tensor, ...]) -> Any:
    return module(*given)[0]


def in_onnxruntime(path: Path, names: list[list[str]], given: tuple[Tensor, ...], threads: int) -> Step:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    feed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names[0], given, strict=True)}
    return lambda: session.run(names[1], feed)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vidtok_kl_causal_488_16chn_tiny", help="a continuous model with weights")
    parser.add_argument("--part", choices=("encode", "decode"), default="decode")
    parser.add_argument("--frames", type=int, help="frames of a step (default: one group)")
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--aot", action="store_true", help="compile with AOTInductor too, which takes minutes")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = vidtok.load(options.model)
    height, width = map(int, options.size.split("x"))
    chosen = {"frames": options.frames, "size": (height, width)}
    graph = next(each for each in graphs(model, options.part, **chosen) if each.phase == "next")
    given = tuple(x[:1].contiguous() for x in graph.example)
    runs: dict[str, Step] = {"eager": eager(model, options.part, given[0], given[1:], graph.step.slots)}
    with tempfile.TemporaryDirectory() as folder:
        for format in ("onnx", "torch"):
            made = export_graphs(model, folder, format=format, part=options.part, phases=("next",), **chosen)["graphs"][
                "next"
            ]
            path = Path(folder, made["file"])
            if format == "onnx":
                names = [[each["name"] for each in made[side]] for side in ("inputs", "outputs")]
                runs["onnxruntime"] = in_onnxruntime(path, names, given, torch.get_num_threads())
                continue
            program = torch.export.load(path)
            runs["torch.export"] = partial(first_of, program.module(), given)
            if options.aot:
                package = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder, "aot.pt2")))
                runs["AOTInductor"] = partial(first_of, torch._inductor.aoti_load_package(package), given)
        expected = runs["eager"]()
        worst = {name: float((torch.as_tensor(run()) - expected).abs().max()) for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.turns):
            for name, run in runs.items():
                times[name].append(seconds(run))
    base = median(times["eager"])
    for name, taken in times.items():
        print(
            f"{name:<14}{1000 * median(taken):8.1f} ms a step, {median(taken) / base:.2f} of eager, "
            f"off by {worst[name]:.1e}"
        )
    shape = f"{options.part}-{options.size}"
    figures = {name: {"seconds": taken, "largest_difference": worst[name]} for name, taken in times.items()}
    write_results(
        f"export-{Path(options.model).name}-{shape}",
        {"options": vars(options) | {"out": None}, "runs": figures},
        options.out,
    )


if __name__ == "__main__":
    main()
