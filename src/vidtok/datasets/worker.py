"""A worker process: `python -m vidtok.datasets.worker FD` works on groups that come through a pipe until it closes.

A fault that takes the process down (a crash in a codec, memory, a hang that is ended from outside) takes nothing else
with it; `supervisor.py` is the other end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vidtok.datasets.collection import Collection, fingerprint
from vidtok.datasets.encoding import READERS, BrokenDeviceError, Encoder, ModelEncoder
from vidtok.datasets.options import TokenizeOptions
from vidtok.datasets.work import WorkOptions, run_group
from vidtok.errors import CollectionError, VidTokError

MODULE = "vidtok.datasets.worker"
_ALIVE_EVERY = 1.0
_ORPHAN_CHECK = 1.0
_BROKEN, _ORPHANED = 70, 1


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to know, besides its device."""

    folder: str
    model: str
    checkpoint: str | None
    dtype: str
    options: TokenizeOptions
    fingerprint: str
    readers: int = READERS
    retries: int = 1
    bases: tuple[str, ...] = ()
    """Places where `base:` of configurations may lead."""
    module: str = MODULE
    """Module that a worker process runs."""


class PipeReport:
    """Tells the supervisor of inputs that are begun, and from time to time that all is well."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock, self._last = connection, threading.Lock(), 0.0

    def begin(self, unit: str) -> None:
        """An input is about to be opened."""
        self.send(("begin", unit))

    def alive(self) -> None:
        """Something was decoded or computed."""
        now = time.monotonic()
        if now - self._last >= _ALIVE_EVERY:
            self._last = now
            self.send(("alive", ""))

    def send(self, message: tuple[str, Any]) -> None:
        """Send `message`, whichever thread calls."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:  # the supervisor has gone
                os._exit(_ORPHANED)


def make_encoder(setup: Setup, device: str) -> tuple[Encoder, str]:
    """The encoder of a worker on `device`, and the fingerprint of what it makes."""
    import torch

    import vidtok
    from vidtok.config.layers import allowing_bases
    from vidtok.device import keep_freed_memory
    from vidtok.tokens import model_identity

    torch.set_num_threads(setup.options.threads)
    if setup.options.max_memory is None:
        keep_freed_memory()
    with allowing_bases(*map(Path, setup.bases)):
        model = vidtok.load(setup.model, setup.checkpoint, device=device, dtype=getattr(torch, setup.dtype))
    settings = setup.options.collection_settings(model, device.partition(":")[0])
    found = {**Collection(setup.folder).settings(), "settings": settings, "model": vars(model_identity(model))}
    scratch = os.environ.get("VIDTOK_SCRATCH")
    encoder = ModelEncoder(
        model, setup.options, readers=setup.readers, scratch=None if scratch is None else Path(scratch)
    )
    return encoder, fingerprint(found)


def serve(connection: Connection) -> None:
    """Work on groups from `connection` until it closes."""
    setup, device = connection.recv()
    report = PipeReport(connection)
    try:
        encoder, made = make_encoder(setup, device)
        if made != setup.fingerprint:
            raise CollectionError(
                f"{setup.model} has changed since {setup.folder} was begun, or is another on this machine; "
                "give the model that it was begun with"
            )
    except VidTokError as error:
        report.send(("fatal", str(error)))
        return
    collection = Collection(setup.folder)
    options = setup.options
    block = options.batch_of(device.partition(":")[0]) if options.clip_frames else 1
    work = WorkOptions(options.sink, options.shard_bytes, block, setup.retries)
    report.send(("ready", os.getpid()))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            report.send(("result", run_group(collection, task, encoder, work, report)))
        except CollectionError as error:
            report.send(("fatal", str(error)))
        except BrokenDeviceError:
            os._exit(_BROKEN)


def main() -> None:
    """Run a worker on the pipe whose number is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    parent = os.getppid()

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK)
        os._exit(_ORPHANED)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
