"""Threads beside the model end with the process, whatever ends that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tiny import ONE_THREAD
from vidtok.runtime.threads import Behind

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


def test_a_thread_is_waited_for_after_an_interruption_of_the_wait() -> None:
    ended: list[bool] = []

    def work() -> None:
        time.sleep(0.3)
        ended.append(True)

    behind = Behind()
    behind.put(work)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        behind.finish()
    assert ended == []
    behind.abandon()
    assert ended == [True]
