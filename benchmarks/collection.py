"""Collections: records a second by workers and engine, bookkeeping a record, reading back, and the parts of a resume.

    python benchmarks/collection.py workers VIDEOS --model NAME --clip-frames 17    # one process, 1 and 2 workers, Ray
    python benchmarks/collection.py bookkeeping --records 100000                     # stand-in work, one process

Ratios mean something within one run alone, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from common import memory, write_results

from vidtok.datasets import Listing, ModelOptions, RunOptions, TokenDataset, TokenizeJob, TokenizeOptions, TokenStream
from vidtok.datasets.collection import Collection
from vidtok.datasets.encoding import Failure, Quiet, Report
from vidtok.datasets.inputs import Input
from vidtok.datasets.plan import Unit
from vidtok.datasets.records import Record
from vidtok.datasets.work import Task, WorkOptions, run_group
from vidtok.datasets.worker import Setup, make_encoder
from vidtok.tokens import ModelIdentity

_VALUES = 5 * 4 * 4
_READ = 20000


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="result file or folder")
    parts = parser.add_subparsers(dest="part", required=True)
    workers = parts.add_parser("workers")
    workers.add_argument("videos", type=str, nargs="+")
    workers.add_argument("--model", default="vidtok_fsq_causal_488_32768_tiny")
    workers.add_argument("--checkpoint")
    workers.add_argument("--clip-frames", type=int, default=17)
    workers.add_argument("--size", type=int, default=64)
    workers.add_argument("--turns", type=int, default=2)
    workers.add_argument("--engines", nargs="+", default=["one process", "local 1", "local 2", "ray 2"])
    bookkeeping = parts.add_parser("bookkeeping")
    bookkeeping.add_argument("--records", type=int, default=100_000)
    bookkeeping.add_argument("--sinks", nargs="+", default=["parquet", "tar", "bin"])
    for part in (workers, bookkeeping):
        part.add_argument("--out", type=Path, default=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    with tempfile.TemporaryDirectory(prefix="vidtok-benchmark-") as folder:
        run = measure_workers if arguments.part == "workers" else measure_bookkeeping
        results = run(arguments, Path(folder))
    for name, figures in results["figures"].items():
        print(f"{name}: {figures}")
    write_results(f"collection-{arguments.part}", results, arguments.out)


def measure_workers(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Records a second from the first result on, so that starting workers, which a long run does once, is left out."""
    rates: dict[str, list[float]] = {name: [] for name in arguments.engines}
    for turn in range(arguments.turns):
        for name in arguments.engines:
            rates[name].append(rate_of(name, arguments, folder / f"{name.replace(' ', '-')}-{turn}"))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    first = medians[arguments.engines[0]]
    return {
        "options": {name: value for name, value in vars(arguments).items() if name not in ("out", "videos")},
        "videos": len(arguments.videos),
        "turns": rates,
        "figures": {
            name: {"records_per_second": round(rate, 2), "ratio": round(rate / first, 3)}
            for name, rate in medians.items()
        },
    }


def rate_of(name: str, arguments: argparse.Namespace, out: Path) -> float:
    """Records a second of one engine, over the time between its first and its last group."""
    done: list[tuple[float, int]] = []
    given = ModelOptions(model=arguments.model, checkpoint=arguments.checkpoint, device="cpu")
    options = TokenizeOptions(
        clip_frames=arguments.clip_frames, height=arguments.size, width=arguments.size, sink="parquet"
    )
    engine, _, workers = name.partition(" ")
    alone = engine == "one"
    run = RunOptions(engine="local" if alone else engine, workers=1 if alone else int(workers), together=2)
    job = _Timed(out, given, options, run, done=done, alone=alone)
    job.run(Listing(words=tuple(arguments.videos), pictures=False))
    done.sort()
    # Each worker's first group has its start in it.
    skipped = 1 if alone else int(workers)
    begun, last = done[skipped - 1][0], done[-1][0]
    return sum(records for _, records in done[skipped:]) / (last - begun)


class _Timed(TokenizeJob):
    """A job whose groups are timed; `alone`: in this process, without a worker."""

    def __init__(self, *arguments: Any, done: list[tuple[float, int]], alone: bool) -> None:
        super().__init__(*arguments)
        self._done, self._alone = done, alone

    def _engine(self, setup: Setup, device: str, groups: int) -> Any:
        engine = _Here(setup) if self._alone else super()._engine(setup, device, groups)
        done = self._done

        class Timing:
            def run(self, pending: Any, on_result: Any) -> None:
                def timed(group: Any, result: Any, worker: str) -> None:
                    done.append((time.perf_counter(), result.records))
                    on_result(group, result, worker)

                engine.run(pending, timed)

        return Timing()


class _Here:
    """Works on groups in this process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def run(self, pending: Any, on_result: Any) -> None:
        encoder, _ = make_encoder(self._setup, "cpu")
        options = self._setup.options
        work = WorkOptions(options.sink, options.shard_bytes, options.batch_of("cpu"))
        for group in pending:
            task = Task(group.name, group.units())
            on_result(group, run_group(Collection(self._setup.folder), task, encoder, work, Quiet()), "here")


class _StandIn:
    """Work that costs next to nothing: one small record an input."""

    def __init__(self) -> None:
        self._payload = os.urandom(2 * _VALUES)
        self._digest = hashlib.sha256(self._payload).hexdigest()

    def encode(
        self, units: Sequence[Unit], folder: Path, report: Report, *, ahead: bool = True
    ) -> Iterator[tuple[int, Record] | Failure]:
        for index, unit in enumerate(units):
            head = {
                "id": unit.id, "input": unit.id, "source": unit.input.name, "frames": 17, "height": 32, "width": 32,
                "fps": 24.0, "start": 0.0, "picture": False, "values": "indices", "shape": [5, 4, 4],
                "dtype": "uint16", "bytes": len(self._payload), "sha256": self._digest,
            }  # fmt: skip
            yield index, Record(head, self._payload)


def measure_bookkeeping(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Milliseconds a record of planning, work and a resume; records a second of reading."""
    figures = {sink: _kept(sink, arguments.records, folder / sink) for sink in arguments.sinks}
    figures["listing"] = _listed(folder / "videos", min(arguments.records, 20_000))
    return {"options": {"records": arguments.records}, "figures": figures}


def _kept(sink: str, records: int, out: Path) -> dict[str, float]:
    collection = Collection(out)
    identity = ModelIdentity(name="none", config="c" * 64, weights="w" * 64, weights_dtype="float32", signs="s" * 64)
    mark = collection.open(identity, {"sink": sink})
    inputs = (Input(f"/videos/{number:09d}.mp4", f"{number}-1") for number in range(records))
    started = time.perf_counter()
    collection.plan.add(inputs, mark)
    planned = time.perf_counter() - started
    work, encoder = WorkOptions(sink, 256 << 20), _StandIn()
    resident: list[int] = []
    started = time.perf_counter()
    for group in collection.plan.groups():
        run_group(collection, Task(group.name, group.units()), encoder, work, Quiet())
        resident.append(memory("VmRSS"))
    worked = time.perf_counter() - started
    started = time.perf_counter()
    done = collection.done()
    left = sum(group.name not in done for group in collection.plan.groups())
    scanned = time.perf_counter() - started
    started = time.perf_counter()
    collection.plan.add((Input(f"/videos/{number:09d}.mp4", f"{number}-1") for number in range(records)), mark)
    replanned = time.perf_counter() - started
    assert not left
    return {
        "plan_ms": round(1000 * planned / records, 4),
        "work_ms": round(1000 * worked / records, 4),
        "growth_mib": round((resident[-1] - resident[len(resident) // 10]) / 2**20, 1),
        "resume_scan_ms": round(1000 * scanned / records, 5),
        "plan_again_ms": round(1000 * replanned / records, 4),
        **_read(out, records),
    }


def _read(out: Path, records: int) -> dict[str, float]:
    started = time.perf_counter()
    data = TokenDataset(out)
    opened = time.perf_counter() - started
    count = min(_READ, records)
    started = time.perf_counter()
    for index in range(count):
        data[index]
    in_order = count / (time.perf_counter() - started)
    started = time.perf_counter()
    iterator = iter(TokenStream(data))
    for _ in range(count):
        next(iterator)
    return {
        "open_ms": round(1000 * opened / records, 5),
        "read_per_second": round(in_order),
        "shuffled_per_second": round(count / (time.perf_counter() - started)),
    }


def _listed(folder: Path, count: int) -> dict[str, float]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.mp4").touch()
    started = time.perf_counter()
    found = sum(1 for _ in Listing(words=(str(folder),)).inputs())
    return {"list_ms": round(1000 * (time.perf_counter() - started) / found, 4)}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
