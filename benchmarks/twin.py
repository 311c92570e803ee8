"""Speed and peak memory of VidTwin on one clip, and the share of the time that a bare product of matrices would take.

    python benchmarks/twin.py --threads 2

The work is counted from the model's layers: two operations for each multiplication of a linear layer, a convolution or
an attention. Its rate is set beside that of large square products, measured in turn with the model in one process: by
the clock, and by the time that the processor spent in the process, to which other programs do not add. The
latter means something for one thread; threads that wait for each other spend it too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import memory, reset_peak_memory, write_results
from inference import DTYPES, clip_of, seeded
from torch.utils.flop_counter import FlopCounterMode

from vidtok import Tokenizer, VidTwin, keep_freed_memory
from vidtok.config.read import read_config


def count_operations(model: VidTwin, video: torch.Tensor) -> dict[str, int]:
    """Floating-point operations of encoding and of decoding."""
    counts = {}
    with FlopCounterMode(display=False) as counter:
        z = model.encode(video, sample=False)
    counts["encode"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.decode(z)
    counts["decode"] = counter.get_total_flops()
    return counts


def both_clocks(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor in this process."""
    clock, processor = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - clock, time.process_time() - processor


def rate_of_products(dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second of a product of 2048 x 2048 matrices, by both clocks, best of four."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    times = [both_clocks(lambda: a @ b) for _ in range(4)]
    return 2 * 2048**3 / min(clock for clock, _ in times), 2 * 2048**3 / min(processor for _, processor in times)


def measure(model: VidTwin, video: torch.Tensor, turns: int, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds, peak memory and share of the matrix-product rate of both directions."""
    operations = count_operations(model, video)
    z = model.encode(video, sample=False)
    tasks = {"encode": lambda: model.encode(video, sample=False), "decode": lambda: model.decode(z)}
    results: dict[str, Any] = {}
    for name, task in tasks.items():
        spent: list[tuple[float, float]] = []
        rates: list[tuple[float, float]] = []
        peak = 0
        for _ in range(turns):
            product = rate_of_products(dtype)
            reset_peak_memory()
            spent.append(both_clocks(task))
            peak = max(peak, memory("VmHWM"))
            rates.append(product)
        shares = [
            tuple(operations[name] / time / rate for time, rate in zip(times, at, strict=True))
            for times, at in zip(spent, rates, strict=True)
        ]
        results[name] = {
            "seconds": round(median(clock for clock, _ in spent), 3),
            "all_seconds": [round(clock, 3) for clock, _ in spent],
            "processor_seconds": [round(processor, 3) for _, processor in spent],
            "peak_gib": round(peak / 2**30, 3),
            "gflop": round(operations[name] / 1e9, 1),
            "matrix_gflops": [[round(rate / 1e9, 1) for rate in pair] for pair in rates],
            "share_of_matrix_rate": round(median(clock for clock, _ in shares), 3),
            "share_by_processor_time": round(median(processor for _, processor in shares), 3),
            "all_shares": [[round(share, 3) for share in pair] for pair in shares],
        }
        print(
            f"{name}: {results[name]['seconds']:.2f} s, peak {results[name]['peak_gib']:.2f} GiB, "
            f"{results[name]['share_of_matrix_rate']:.0%} of the rate of matrix products, "
            f"{results[name]['share_by_processor_time']:.0%} by processor time"
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtwin_structure_7_7_8_dynamics_7_8")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    model = seeded(Tokenizer(read_config(options.config).model), options.dtype)
    assert isinstance(model, VidTwin)
    shape = model.config.input_size
    video = clip_of(shape[0], shape[1], shape[2], options.dtype)
    resting = memory("VmRSS")
    tasks = measure(model, video, options.turns, DTYPES[options.dtype])
    write_results(
        f"vidtwin-{'x'.join(map(str, shape))}-{options.dtype}-{torch.get_num_threads()}",
        {"config": options.config, "shape": shape, "dtype": options.dtype, "turns": options.turns,
         "resting_gib": round(resting / 2**30, 3), "tasks": tasks},
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
