"""Speed, memory and correctness on a GPU, in one command: this package beside diffusers, eager, compiled, as graphs.

    python benchmarks/gpu.py                                       # about half an hour on one GPU; writes JSON
    python benchmarks/gpu.py --cases clip batch --contestants ours --modes eager graphs
    python benchmarks/gpu.py --device cpu --config tiny.yaml --size 32 --long 33 --batch 2 --modes eager   # a dry run

Contestants: `ours`, `diffusers` (AutoencoderVidTok with the same weights) and `wan` (diffusers' AutoencoderKLWan,
another model of the same kind, random weights). Modes: `eager`, `compiled` (torch.compile of encoder and decoder, for
one shape at a time), `graphs` (the whole eager call captured as a CUDA graph) and `compiled-graphs` (torch.compile's
"reduce-overhead"). Cases: one clip, a batch of clips, a long clip streamed, and large frames in tiles. Each runs in a
process of its own. Clips a second are of whole clips of the case; the share is that of the matrix rate measured on the
same device at the same precision, which the plain operations of the model (`limits.py`) come to. What fails is noted
with its reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import TaskError, Worker, matrix_rate, write_results
from inference import decode_diffusers, diffusers_model, encode_diffusers, seeded
from limits import limits, total
from torch import Tensor

from vidtok import AutoencoderConfig, Tiling, Tokenizer
from vidtok.config.read import read_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONTESTANTS = ("ours", "diffusers", "wan")
MODES = ("eager", "compiled", "graphs", "compiled-graphs")
TASKS = ("encode", "decode", "both")
STREAM_FRAMES = 16
"""Video frames of a chunk of a stream, after the first."""
BOUNDS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""What the root mean square of the difference to float32 on the CPU may be at most, as a share of the values' own."""

Coder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """What is encoded and decoded at a time."""

    name: str
    batch: int
    frames: int
    size: int
    how: str = "whole"
    """`whole`, `streamed` in chunks of frames, or in tiles of a third of the frame (`tiled`)."""


@dataclass(frozen=True)
class Setting:
    """Who does it and how, in a form that goes to another process."""

    contestant: str
    mode: str
    config: str
    dtype: str
    device: str


def cases(options: argparse.Namespace) -> list[Case]:
    frames, size = options.frames, options.size
    every = [
        Case("clip", 1, frames, size),
        Case("batch", options.batch, frames, size),
        Case("stream", 1, options.long, size, "streamed"),
        Case("tiled", 1, frames, 3 * size, "tiled"),
    ]
    return [case for case in every if case.name in options.cases]


def make_tasks(setting: Setting, case: Case) -> dict[str, Callable[[], object]]:
    """`prepare`, to be called first, and a task each for encoding, decoding and both."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setting.dtype != "float32"
    prepared: dict[str, Callable[[], object]] = {}

    def prepare() -> None:
        encode, decode = _coders(setting, case)
        video = _video(case, setting)
        z = encode(video).clone()
        steps: dict[str, Callable[[], object]] = {
            "encode": lambda: encode(video),
            "decode": lambda: decode(z),
            "both": lambda: decode(encode(video)),
        }
        for name, step in steps.items():
            step()
            prepared[name] = _captured(step) if setting.mode == "graphs" else step
            prepared[name]()

    def task(name: str) -> Callable[[], object]:
        return lambda: prepared[name]()

    return {"prepare": prepare, **{name: task(name) for name in TASKS}}


def _video(case: Case, setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (case.batch, 3, case.frames, case.size, case.size)
    return (torch.rand(shape, generator=generator) * 2 - 1).to(setting.device, DTYPES[setting.dtype])


def _coders(setting: Setting, case: Case) -> tuple[Coder, Coder]:
    """How the contestant encodes and decodes in this case, ready to be called."""
    model: Any
    if setting.contestant == "ours":
        model = seeded(Tokenizer(read_config(setting.config).model), setting.dtype).to(setting.device)
    elif setting.contestant == "diffusers":
        model = seeded(diffusers_model(read_config(setting.config).model), setting.dtype).to(setting.device)
    else:
        import diffusers

        make: Any = diffusers.AutoencoderKLWan
        model = make().eval().to(setting.device, DTYPES[setting.dtype])
    if setting.mode.startswith("compiled"):
        mode = "reduce-overhead" if setting.mode == "compiled-graphs" else None
        model.encoder = torch.compile(model.encoder, dynamic=False, mode=mode)
        model.decoder = torch.compile(model.decoder, dynamic=False, mode=mode)
    if setting.contestant != "ours":
        return _theirs(model, setting, case)
    if case.how == "tiled":
        model = model.with_tiling(Tiling(case.size // 3, case.size // 12))
    if case.how == "streamed":
        return lambda video: _streamed_encode(model, video), lambda z: _streamed_decode(model, z)
    return lambda video: model.encode(video, sample=False), lambda z: model.decode(z)


def _theirs(model: Any, setting: Setting, case: Case) -> tuple[Coder, Coder]:
    factor = 1 if setting.contestant == "wan" else read_config(setting.config).model.temporal_factor
    tile = case.size // 3 if case.how == "tiled" else case.size
    if case.how == "tiled" or (case.how == "streamed" and setting.contestant == "diffusers"):
        model.enable_tiling(tile, tile)  # diffusers cuts time into chunks where it cuts space into tiles

    def encode(video: Tensor) -> Tensor:
        # The published code, and diffusers after it, want a whole number of groups: copies of the first frame in front.
        missing = -video.shape[2] % factor
        padded = torch.cat([video[:, :, :1].expand(-1, -1, missing, -1, -1), video], 2) if missing else video
        return encode_diffusers(model, padded)

    return encode, lambda z: decode_diffusers(model, z)


def _streamed_encode(model: Tokenizer, video: Tensor) -> Tensor:
    with model.encode_stream(sample=False) as stream:
        first = stream.push(video[:, :, : STREAM_FRAMES + 1])
        rest = video[:, :, STREAM_FRAMES + 1 :]
        pieces = [stream.push(piece) for piece in torch.split(rest, STREAM_FRAMES, 2)]
        return torch.cat([first, *pieces, stream.flush()], 2)


def _streamed_decode(model: Tokenizer, z: Tensor) -> Tensor:
    with model.decode_stream() as stream:
        pieces = [stream.push(piece) for piece in torch.split(z, STREAM_FRAMES // model.config.temporal_factor, 2)]
        return torch.cat([*pieces, stream.flush()], 2)


def _captured(step: Callable[[], object]) -> Callable[[], object]:
    """`step` as a CUDA graph, which repeats its kernels without asking Python for them."""
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    kept = []
    with torch.cuda.graph(graph):
        kept.append(step())  # what a graph writes to must stay

    def replay() -> list[object]:
        graph.replay()
        return kept

    return replay


def measure(setting: Setting, case: Case, turns: int, flop: dict[str, int], rate: float) -> dict[str, Any]:
    """Per task the median seconds, clips a second, peak memory and share of the matrix rate; or why there are none."""
    if setting.mode == "graphs" and not setting.device.startswith("cuda"):
        return {"skipped": "CUDA graphs need a GPU"}
    worker = Worker(make_tasks, setting, case)
    results: dict[str, Any] = {}
    try:
        worker.call("prepare")
        for task in TASKS:
            answers = [worker.call(task) for _ in range(turns)]
            spent = median(answer["seconds"] for answer in answers)
            results[task] = {
                "seconds": round(spent, 5),
                "all_seconds": [round(answer["seconds"], 5) for answer in answers],
                "clips_per_second": round(case.batch / spent, 4),
                "peak_gib": round(max(answer["peak_bytes"] for answer in answers) / 2**30, 3),
            }
            if setting.contestant != "wan":
                results[task]["share_of_matrix_rate"] = round(case.batch * flop[task] / spent / rate, 4)
    except TaskError as error:
        results["failed"] = str(error)
    finally:
        worker.close()
    return results


def plain_operations(config: AutoencoderConfig, case: Case) -> dict[str, int]:
    """Operations of the model on one clip of `case`, by task."""
    counted = limits(config, (case.frames, case.size, case.size), torch.float32)
    encode, decode = (total(counted[task]).flop for task in ("encode", "decode"))
    return {"encode": encode, "decode": decode, "both": encode + decode}


def correctness(options: argparse.Namespace) -> dict[str, dict[str, float | bool]]:
    """How far moments and video on the device are from those of float32 on the CPU, by dtype, and whether in bounds."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = read_config(options.config).model
    reference = seeded(Tokenizer(config), "float32")
    video = torch.rand(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    z = reference.encode(video, sample=False)
    expected = {"moments": reference.moments(video), "video": reference.decode(z)}
    found: dict[str, dict[str, float | bool]] = {}
    for name, dtype in DTYPES.items():
        if name == "float16" and options.device == "cpu":
            continue
        model: Any = seeded(Tokenizer(config), name).to(options.device)
        given = {
            "moments": model.moments(video.to(options.device, dtype)),
            "video": model.decode(z.to(options.device, dtype)),
        }
        found[name] = {key: _relative(given[key], expected[key]) for key in expected}
        found[name]["within_bounds"] = max(found[name].values()) <= BOUNDS[name]
    return found


def _relative(given: Tensor, expected: Tensor) -> float:
    difference = given.float().cpu() - expected
    return float(difference.square().mean().sqrt() / expected.square().mean().sqrt())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_kl_causal_488_16chn_v1_1")
    parser.add_argument("--cases", nargs="+", choices=("clip", "batch", "stream", "tiled"), default=None)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--long", type=int, default=129, help="frames of the clip that is streamed")
    parser.add_argument("--size", type=int, default=256, help="of a frame's side; three times that for tiles")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--matrix-size", type=int, default=8192)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    options.cases = options.cases or ["clip", "batch", "stream", "tiled"]
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(
            "PyTorch sees no CUDA GPU here; run this on a machine with one, or try it out with --device cpu and a "
            "small model (--config, --size, --long, --batch)"
        )
    return options


def main() -> None:
    options = parse()
    torch.set_grad_enabled(False)
    config = read_config(options.config).model
    assert isinstance(config, AutoencoderConfig)
    dtype = DTYPES[options.dtype]
    rate = matrix_rate(options.matrix_size, dtype=dtype, device=options.device)
    print(f"{rate / 1e12:.2f} TFLOP/s in matrix products, {options.dtype} on {options.device}")
    close = correctness(options)
    for name, figures in close.items():
        print(f"difference to float32 on the CPU, {name}: {figures} (bound {BOUNDS[name]})")
    results: list[dict[str, Any]] = []
    for case in cases(options):
        flop = plain_operations(config, case)
        for contestant in options.contestants:
            for mode in options.modes:
                setting = Setting(contestant, mode, options.config, options.dtype, options.device)
                figures = measure(setting, case, options.turns, flop, rate)
                results.append({"case": asdict(case), "contestant": contestant, "mode": mode, **figures})
                _show(results[-1])
    write_results(
        f"{'gpu' if options.device != 'cpu' else 'dry-run'}-{Path(options.config).stem}-{options.dtype}",
        {
            "config": options.config, "dtype": options.dtype, "device": options.device,
            "matrix_tflops": round(rate / 1e12, 3), "bounds": BOUNDS, "correctness": close, "results": results,
        },
        options.out,
    )  # fmt: skip
    if not all(figures["within_bounds"] for figures in close.values()):
        sys.exit("the difference to float32 on the CPU is out of bounds")


def _show(result: dict[str, Any]) -> None:
    name = f"{result['case']['name']:>7} {result['contestant']:>10} {result['mode']:>16}"
    for task in TASKS:
        if task in result:
            figures = result[task]
            share = figures.get("share_of_matrix_rate")
            print(
                f"{name} {task:>7}: {figures['clips_per_second']:9.3f} clips/s, peak {figures['peak_gib']:6.2f} GiB"
                + ("" if share is None else f", {share:.1%} of the matrix rate")
            )
    for reason in ("skipped", "failed"):
        if reason in result:
            print(f"{name} {reason}: {result[reason]}")


if __name__ == "__main__":
    main()
