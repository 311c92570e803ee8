"""A stand-in for the model of a collection: its records follow from the bytes of the inputs, and inputs can be poison.

Run as a module, it is a worker process with the stand-in in place of the model.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidtok.datasets import worker
from vidtok.datasets.collection import Collection
from vidtok.datasets.encoding import Encoder, Failure, Report
from vidtok.datasets.inputs import Listing
from vidtok.datasets.options import TokenizeOptions
from vidtok.datasets.plan import Unit
from vidtok.datasets.records import Record, record_id
from vidtok.datasets.tokenize import ModelOptions, RunOptions, TokenizeJob
from vidtok.datasets.worker import Setup
from vidtok.tokens import ModelIdentity

VALUES = 64
IDENTITY = ModelIdentity(name="stand-in", config="c" * 64, weights="w" * 64, weights_dtype="float32", signs="s" * 64)
SETTINGS = {"sink": "parquet"}


class StandIn:
    """Encodes each input to two clips of uint16 numbers that follow from its bytes.

    A file that begins with "bad" fails, "once" fails the first time, "exit" ends the process, "hang" takes for ever,
    "slow" a while.
    """

    def __init__(self, clips: int = 2) -> None:
        self.clips = clips
        self.seen: list[str] = []

    def encode(
        self, units: Sequence[Unit], folder: Path, report: Report, *, ahead: bool = True
    ) -> Iterator[tuple[int, Record] | Failure]:
        for index, unit in enumerate(units):
            report.begin(unit.id)
            self.seen.append(unit.input.source)
            content = Path(unit.input.source).read_bytes()
            if content.startswith(b"exit"):
                os._exit(3)
            if content.startswith(b"hang"):
                time.sleep(1000)
            if content.startswith(b"slow"):
                time.sleep(0.02)
            for clip in range(self.clips):
                if clip and content.startswith(b"bad"):
                    yield Failure(index, "it is bad")
                    break
                yield index, record(unit, content, clip)


def record(unit: Unit, content: bytes, clip: int) -> Record:
    """The record that `StandIn` makes of a clip."""
    payload = b"".join(hashlib.sha256(content + bytes([clip, part])).digest() for part in range(VALUES * 2 // 32))
    head: dict[str, Any] = {
        "id": record_id(unit.id, 17 * clip), "input": unit.id, "source": unit.input.name, "first_frame": 17 * clip,
        "frames": 17, "height": 32, "width": 32, "fps": 24.0, "start": 17 * clip / 24, "picture": False,
        "values": "indices", "shape": [4, 4, 4], "dtype": "uint16", "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }  # fmt: skip
    if unit.input.columns:
        head["columns"] = unit.input.columns
    return Record(head, payload)


class StandInJob(TokenizeJob):
    """A job that loads no model, with workers that have a `StandIn`."""

    def _begin(self, listing: Listing | None) -> tuple[Setup, str]:
        made = self.collection.open(IDENTITY, {**SETTINGS, "sink": self.options.sink})
        run = self.run_options
        setup = Setup(
            folder=os.path.abspath(self.output), model="", checkpoint=None, dtype="float32", options=self.options,
            fingerprint=made, retries=run.retries, module=run.module,
        )  # fmt: skip
        return setup, "cpu"


def job(output: Path, sink: str = "parquet", *, module: str = "tests.datasets.stand_in", **run: Any) -> StandInJob:
    """A job with stand-ins."""
    options = TokenizeOptions(sink=sink, shard_bytes=1500)
    return StandInJob(output, ModelOptions(model=""), options, RunOptions(module=module, **run))


def write_inputs(folder: Path, count: int, special: Mapping[int, str] | None = None) -> Listing:
    """`count` files, which only the stand-in reads, and the listing that has them; `special` ones begin with a word."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:04d}.mp4").write_text(f"{(special or {}).get(number, '')} input {number}")
    return Listing(words=(str(folder),))


def contents(folder: Path) -> dict[str, str]:
    """The hash of each record's values by its id, as read from the disk; fails if a record is there twice."""
    from vidtok.datasets.reading import TokenDataset
    from vidtok.datasets.records import to_bytes

    data = TokenDataset(folder)
    found: dict[str, str] = {}
    for index in range(len(data)):
        each = data[index]
        values = each.get("indices", each.get("latent"))
        digest = hashlib.sha256(to_bytes(values, each["dtype"])).hexdigest()
        assert digest == each["sha256"]
        assert each["id"] not in found
        found[each["id"]] = digest
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The content of all data of a collection, and of its manifest but for the time."""
    found = {
        str(path.relative_to(folder)): path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()
    }
    for path in (folder / "manifest").iterdir():
        found[f"manifest/{path.name}"] = b"\n".join(
            line.partition(b',"made"')[0] for line in path.read_bytes().split(b"\n")
        )
    return found


def expected(listing: Listing, fingerprint: str, clips: int = 2) -> set[str]:
    """The ids of all records of a listing's inputs."""
    from vidtok.datasets.inputs import Input
    from vidtok.datasets.plan import input_id

    inputs = [each for each in listing.inputs() if isinstance(each, Input)]
    return {record_id(input_id(each, fingerprint, False), 17 * clip) for each in inputs for clip in range(clips)}


def make_encoder(setup: Setup, device: str) -> tuple[Encoder, str]:
    """In place of `vidtok.datasets.worker.make_encoder`."""
    assert Collection(setup.folder).settings()
    return StandIn(), setup.fingerprint


if __name__ == "__main__":
    worker.make_encoder = make_encoder
    worker.main()
