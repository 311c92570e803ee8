"""What the benchmarks share: the environment they ran in, memory peaks, workers that take turns, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from vidtok.video import read_video, to_float

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Hardware, versions and commit that figures belong to."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages: dict[str, str] = {}
    for package in ("torch", "diffusers", "av", "numpy"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": packages,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def video_options(parser: argparse.ArgumentParser) -> None:
    """What `first_frames` asks for: videos, and how much of them."""
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=256)


def first_frames(options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The first frames of each video by its name, (1, 3, T, H, W) in -1..1."""
    size = options.size
    return {
        path.name: to_float(read_video(path, height=size, width=size, max_frames=options.frames))
        for path in options.videos
    }


def matrix_rate(
    size: int = 4096, repeats: int = 3, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> float:
    """FLOP/s of a large product of matrices, best of `repeats`."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best = min(seconds(lambda: a @ b) for _ in range(repeats + 1))
    return 2 * size**3 / best


def copy_rate(count: int = 1 << 28, repeats: int = 3, device: str | torch.device = "cpu") -> float:
    """Bytes a second that copying `count` bytes within memory moves, read and written; best of `repeats`."""
    source, target = (torch.ones(count, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * count / min(seconds(lambda: target.copy_(source)) for _ in range(repeats + 1))


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes; on a GPU, until it has done what is asked of it."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, where one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def reset_peak_memory() -> None:
    """Let the process's peak memory start from what it uses now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise SystemExit("peak memory is measured on Linux only") from error


def memory(which: str) -> int:
    """Bytes of resident memory: `VmRSS` now, `VmHWM` at the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise SystemExit("peak memory is measured on Linux only")


def peak_memory() -> int:
    """Bytes that were in use at the peak: of the GPU where one is in use, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    return memory("VmHWM")


class Worker:
    """A process of its own that holds one contestant, so that memory is its own too; `call` runs one task in it."""

    def __init__(self, make: Callable[..., dict[str, Callable[[], object]]], *arguments: Any) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.resting_bytes = self._answer()["resting_bytes"]

    def call(self, task: str) -> dict[str, Any]:
        """Run `task` once: its `seconds`, and `peak_bytes` of memory while it ran, the GPU's where one is in use.

        Raises `TaskError` if it fails; the process goes on.
        """
        self._connection.send(task)
        return self._answer()

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()

    def _answer(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._connection.recv()
        except EOFError:
            raise SystemExit("a worker died: see its message above") from None
        if "error" in answer:
            raise TaskError(answer["error"])
        return answer


class TaskError(Exception):
    """What a task in a worker raised, in one line."""


def _serve(
    connection: Connection, make: Callable[..., dict[str, Callable[[], object]]], arguments: Sequence[Any]
) -> None:
    torch.set_grad_enabled(False)
    tasks = make(*arguments)
    connection.send({"resting_bytes": memory("VmRSS")})
    while (task := connection.recv()) is not None:
        reset_peak_memory()
        try:
            spent = seconds(tasks[task])
        except Exception as error:
            connection.send({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
            continue
        connection.send({"seconds": spent, "peak_bytes": peak_memory()})


def write_results(name: str, results: dict[str, Any], path: Path | None = None) -> Path:
    """Write `results` with the environment as JSON: to `path`, to NAME.json in it if it is a folder, or by default to
    `benchmarks/results/NAME.json`.
    """
    path = path or RESULTS
    path = path / f"{name}.json" if path.is_dir() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps({"benchmark": name, "environment": environment(), **results}, indent=2) + "\n")
    aside.replace(path)
    print(f"wrote {path}", file=sys.stderr)
    return path
