"""Parts of fuzzers: random changes, bounded memory, and figures of what happened."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEMORY = 1 << 30
"""Bytes that reading a file may take above what the process had before."""
_NUMBERS = (0, 1, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """`content` with one to four changes of bits, bytes, numbers, lengths, order or text."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        kind, at = draw.randrange(7), draw.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + draw.randint(1, 8)] = draw.randbytes(draw.randint(0, 8))
        elif kind == 2:
            del data[at : len(data) if draw.random() < 0.3 else at + draw.randint(1, 60)]
        elif kind == 3:
            data[at:at] = data[draw.randrange(len(data)) :][: draw.randint(1, 300)]
        elif kind == 4:
            size = draw.choice([1, 2, 4, 8])
            value = draw.choice([*_NUMBERS, draw.getrandbits(64)]) % (1 << (8 * size))
            data[at : at + size] = value.to_bytes(size, "little")
        elif kind == 5:
            digits = [i for i in range(len(data)) if 48 <= data[i] <= 57]
            if digits:
                place = draw.choice(digits)
                data[place : place + 1] = draw.choice([b"0", b"9", b"-1", b"99999999999", b"1e999", b"null", b"[]"])
        else:
            other = draw.randrange(len(data))
            data[at], data[other] = data[other], data[at]
    return bytes(data)


class Figures:
    """How often which happened, the longest time of computing, and the most memory above the start.

    An exception that is not expected is counted as "wrong" with its type, and the input is kept.
    """

    def __init__(self, folder: Path, *, limit: int = 2 * MEMORY) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0
        self._folder = folder
        self._resident, self._mapped = _memory("VmRSS"), _memory("VmSize")
        self._notes: list[str] = []
        resource.setrlimit(resource.RLIMIT_AS, (self._mapped + limit, self._mapped + limit))

    def take(self, run: Callable[[], str], *files: Path) -> None:
        """Count what `run`, which reads `files`, gives."""
        began = time.process_time()
        try:
            outcome = run()
        except Exception as error:
            outcome = f"wrong: {type(error).__name__}"
            if len(self._notes) < 5:
                self._notes.append(traceback.format_exc()[-1500:])
                for file in files:
                    (self._folder / f"wrong-{len(self._notes)}-{file.name}").write_bytes(file.read_bytes())
        self.outcomes[outcome] += 1
        self.longest = max(self.longest, time.process_time() - began)

    def show(self, **more: float) -> None:
        """Print all of it as JSON."""
        memory = max(_memory("VmHWM") - self._resident, _memory("VmPeak") - self._mapped)
        found = {"outcomes": self.outcomes, "longest": round(self.longest, 3), "megabytes": round(memory / 1e6)}
        print(json.dumps({**found, **more, "notes": self._notes}))  # noqa: T201


def _memory(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def run(module: str, count: int, seed: int, folder: Path, *more: object, seconds: int) -> dict[str, Any]:
    """The figures of a fuzzer, run in a process of its own; fails on whatever was not expected."""
    command = [sys.executable, "-m", module, str(count), str(seed), str(folder), *map(str, more)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path]),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert not [kind for kind in result["outcomes"] if kind.startswith("wrong")], result["notes"]
    assert result["longest"] < 10
    assert result["megabytes"] * 1e6 < MEMORY
    assert sum(result["outcomes"].values()) == count
    return result
