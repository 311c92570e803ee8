"""The work on groups, with a stand-in for the model: exactly once, whatever fails or ends it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.datasets.inline import work_inline
from tests.datasets.stand_in import StandIn, contents, expected, files, job, write_inputs

from vidtok.datasets import ModelOptions, TokenDataset, TokenizeJob
from vidtok.datasets.journal import Journal, claim
from vidtok.datasets.sink import ShardSink
from vidtok.datasets.sinks import SINKS
from vidtok.errors import CollectionError

SHARDS = sorted(name for name, kind in SINKS.items() if issubclass(kind, ShardSink))


class KilledError(BaseException):
    """In place of a kill, which no code can catch."""


@pytest.mark.parametrize("sink", SHARDS)
def test_every_input_has_its_records_once(sink: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 40)
    made = job(tmp_path / "out", sink, together=16)
    result = made.run(listing)
    assert result.complete
    assert result.figures.records == 80
    found = contents(tmp_path / "out")
    assert set(found) == expected(listing, made._begin(listing)[0].fingerprint)
    again = made.run(listing)
    assert again.complete
    assert again.figures.records == 0
    assert job(tmp_path / "other", sink, together=16).run(listing).complete
    assert files(tmp_path / "other") == files(tmp_path / "out")
    assert list((tmp_path / "out/work").iterdir()) == []


def test_an_end_at_any_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is ended at each of its calls of the file system's, in turn, and gone on with."""
    listing = write_inputs(tmp_path / "in", 6, {2: "bad"})
    work_inline(monkeypatch, StandIn())
    job(tmp_path / "whole", together=3).run(listing)
    steps = count_steps(lambda: job(tmp_path / "counted", together=3).run(listing), None)
    assert steps > 30
    for step in range(1, steps + 1):
        out = tmp_path / f"out{step}"
        with pytest.raises(KilledError):
            count_steps(lambda out=out: job(out, together=3).run(listing), step)  # type: ignore[misc]
        result = job(out, together=3).run(listing)
        assert [each.reason for each in result.failures.values()] == ["it is bad"]
        assert files(out) == files(tmp_path / "whole"), step


def count_steps(run: Any, end: int | None) -> int:
    """Number of steps of `run` at which it could be ended; ends it before step `end`."""
    steps = 0

    def step(of: Any) -> Any:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == end:
                raise KilledError
            return of(*args, **kwargs)

        return stepped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "link", "fsync"):
            patch.setattr(os, name, step(getattr(os, name)))
        for name in ("append", "close_block", "remove"):
            patch.setattr(Journal, name, step(getattr(Journal, name)))
        run()
    return steps


def test_finished_blocks_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = write_inputs(tmp_path / "in", 6)
    encoder = StandIn()
    work_inline(monkeypatch, encoder)
    closed = []
    close = Journal.close_block

    def end(journal: Journal, head: Any) -> None:
        if len(closed) == 4:
            raise KilledError
        closed.append(close(journal, head))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "close_block", end)
        with pytest.raises(KilledError):
            job(tmp_path / "out", together=6).run(listing)
    encoder.seen.clear()
    assert job(tmp_path / "out", together=6).run(listing).complete
    assert [Path(path).stem for path in encoder.seen] == ["0004", "0005"]


def test_failures_are_noted_and_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = StandIn()
    work_inline(monkeypatch, encoder)
    listing = write_inputs(tmp_path / "in", 5, {3: "bad"})
    result = job(tmp_path / "out", retries=2).run(listing)
    assert encoder.seen.count(str(tmp_path / "in/0003.mp4")) == 3
    assert not result.complete
    (failed,) = result.failures.values()
    assert (failed.source, failed.reason, failed.attempt) == (str(tmp_path / "in/0003.mp4"), "it is bad", 1)
    (ledger,) = (tmp_path / "out/failures").iterdir()
    assert json.loads(ledger.read_text())["reason"] == "it is bad"
    encoder.seen.clear()
    assert not job(tmp_path / "out").run(listing).complete
    assert encoder.seen == []
    again = job(tmp_path / "out", retry_failed=True).run(listing)
    assert (again.retried, [each.attempt for each in again.failures.values()]) == (1, [2])
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"mended")
    mended = job(tmp_path / "out", retry_failed=True).run(listing)
    monkeypatch.undo()
    assert mended.complete
    assert len(contents(tmp_path / "out")) == 10


def test_inputs_that_come_later_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    job(tmp_path / "out").run(write_inputs(tmp_path / "in", 3, {1: "bad"}))
    listing = write_inputs(tmp_path / "in", 5)
    os.utime(tmp_path / "in/0000.mp4", ns=(1, 1))
    result = job(tmp_path / "out").run(listing)
    assert result.complete
    assert result.planned is not None
    changed = result.planned.added
    sources = [
        TokenDataset(tmp_path / "out").head(index)["source"] for index in range(len(TokenDataset(tmp_path / "out")))
    ]
    assert {Path(source).stem for source in sources} == {f"{number:04d}" for number in range(5)}
    assert changed == 5  # each file was written anew


def test_too_many_failures_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 12, dict.fromkeys(range(12), "bad"))
    with pytest.raises(CollectionError, match="3 inputs failed, more than --max-failures"):
        job(tmp_path / "out", together=1, max_failures=2).run(listing)
    assert len(list((tmp_path / "out/manifest").iterdir())) == 3


def test_parts_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 10)
    parts = [job(tmp_path / "out", together=2, shard=(index, 3)).run(listing) for index in range(3)]
    assert [part.figures.records for part in parts] == [8, 8, 4]
    assert [part.elsewhere for part in parts] == [3, 1, 0]
    assert job(tmp_path / "out").run(None).figures.records == 0
    assert len(contents(tmp_path / "out")) == 20


def test_another_run_is_left_its_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 4)
    made = job(tmp_path / "out", together=2)
    made._begin(listing)
    made.collection.plan.add(listing.inputs(), made._begin(listing)[0].fingerprint, together=2)
    held = claim(tmp_path / "out/work", next(made.collection.plan.groups()).name)
    assert held is not None
    said: list[str] = []

    def announce(text: str) -> None:
        said.append(text)
        if "waiting" in text:
            held.close()  # the other run is killed

    assert made.run(listing, announce=announce).complete
    assert said[-1] == "waiting for another run, which is at work on 1 group"
    assert len(contents(tmp_path / "out")) == 8


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 4)
    for name in ("append", "replace", "fsync"):
        with pytest.MonkeyPatch.context() as patch:

            def full(*args: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(*((Journal, "_write") if name == "append" else (os, name)), full)
            with pytest.raises(CollectionError, match="No space left on device"):
                job(tmp_path / "out").run(listing)
    result = job(tmp_path / "out").run(listing)
    assert result.complete
    assert len(contents(tmp_path / "out")) == 8


def test_other_options_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch, StandIn())
    listing = write_inputs(tmp_path / "in", 1)
    job(tmp_path / "out").run(listing)
    with pytest.raises(CollectionError, match=r"begun otherwise \(sink was 'parquet', is 'tar'\)"):
        job(tmp_path / "out", "tar").run(listing)
    (tmp_path / "out/collection.json").write_text("{}")
    with pytest.raises(CollectionError, match="expected format 1"):
        job(tmp_path / "out").run(listing)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CollectionError, match="cannot be made"):
        job(tmp_path / "file").run(write_inputs(tmp_path / "in", 1))
    job(tmp_path / "out")._begin(None)
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*args: object) -> int:
            raise OSError(errno.EROFS, "Read-only file system")

        patch.setattr(os, "open", refuse)
        with pytest.raises(CollectionError, match="Read-only file system"):
            job(tmp_path / "out")._begin(None)


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    made = TokenizeJob(tmp_path / "out", ModelOptions(model="vidtok_kl_causal_488_16chn_tiny"))
    with pytest.raises(CollectionError, match="no plan to go on with; give inputs"):
        made.run(None)
