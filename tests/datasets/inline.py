"""An engine that works in the test's own process, where no worker processes are the point."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.datasets.stand_in import StandIn

from vidtok.datasets.collection import Collection
from vidtok.datasets.encoding import Encoder, Quiet
from vidtok.datasets.local import OnResult
from vidtok.datasets.plan import Group
from vidtok.datasets.work import Task, WorkOptions, run_group
from vidtok.datasets.worker import Setup, make_encoder


class Inline:
    """Works on groups one after another; `encoder` None: with the model of the setup."""

    def __init__(self, setup: Setup, encoder: Encoder | None = None) -> None:
        self._setup, self._encoder = setup, encoder

    def run(self, groups: Iterator[Group], on_result: OnResult) -> None:
        options = self._setup.options
        encoder = make_encoder(self._setup, "cpu")[0] if self._encoder is None else self._encoder
        block = options.batch_of("cpu") if options.clip_frames else 1
        work = WorkOptions(options.sink, options.shard_bytes, block, self._setup.retries)
        collection = Collection(self._setup.folder)
        for group in groups:
            on_result(group, run_group(collection, Task(group.name, group.units()), encoder, work, Quiet()), "0")


def work_inline(monkeypatch: pytest.MonkeyPatch, encoder: Encoder | None = None) -> None:
    """Let jobs work in this process."""
    monkeypatch.setattr("vidtok.datasets.tokenize.LocalEngine", lambda setup, devices, timeout: Inline(setup, encoder))


__all__ = ["Inline", "StandIn", "work_inline"]
