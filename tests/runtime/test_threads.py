"""Threads beside the model end with the process, whatever ends that."""

from __future__ import annotations

import subprocess
import sys

from tiny import ONE_THREAD

LEFT = """
import threading, time, torch
from vidtok.runtime.threads import Ahead, Behind
def items():
    while True:
        yield torch.randn(300, 300) @ torch.randn(300, 300)
def compute():
    torch.randn(2000, 2000) @ torch.randn(2000, 2000)
    ended.append(True)
ended = []
behind, ahead = Behind(), Ahead(items())
for _ in range(3):
    behind.put(compute)
next(iter(ahead))
raise SystemExit(143)
"""


def test_threads_that_an_interrupted_program_leaves_do_not_abort_it() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT], env=ONE_THREAD, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "")
