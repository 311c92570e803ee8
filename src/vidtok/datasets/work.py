"""The work on one group, the same under every engine: encode its blocks, note them, write its shards, be done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidtok.datasets.collection import Collection, Failed
from vidtok.datasets.encoding import Encoder, Failure, OutputError, Report
from vidtok.datasets.journal import Entry, Journal, claim
from vidtok.datasets.plan import Unit
from vidtok.datasets.records import Record
from vidtok.datasets.remote import is_url
from vidtok.datasets.sink import Sink
from vidtok.datasets.sinks import SINKS
from vidtok.errors import CollectionError

_PAUSE = 0.5
"""Seconds before an input behind a URL is tried again; doubled each time."""


@dataclass(frozen=True)
class Task:
    """A group to work on."""

    group: str
    units: Sequence[Unit]
    condemned: Mapping[str, str] = field(default_factory=dict)
    """Inputs not to be touched, by id, each with the reason that the ledger gets."""
    careful: bool = False
    """Open one input at a time, so that a fault of the process has one cause."""


@dataclass(frozen=True)
class GroupResult:
    """A group that was worked on."""

    group: str
    state: str
    """"done"; "there" if another run has done it; "busy" if another is at work on it."""
    inputs: int = 0
    records: int = 0
    failed: tuple[Failed, ...] = ()
    empty: int = 0
    """Inputs without records: videos shorter than a clip."""
    frames: int = 0
    """Video frames in the records."""
    bytes: int = 0
    """Bytes of the records' values."""
    seconds: float = 0.0


@dataclass(frozen=True)
class WorkOptions:
    """The way that groups are worked on."""

    sink: str
    shard_bytes: int
    block: int = 1
    """Inputs between two points from which a killed run goes on; clips are computed together within a block alone."""
    retries: int = 1
    """Further tries at an input that fails."""


def run_group(
    collection: Collection, task: Task, encoder: Encoder, options: WorkOptions, report: Report
) -> GroupResult:
    """Work on a group until it is done; what an earlier process had finished of it is kept.

    Raises `CollectionError` if the output cannot be written.
    """
    started = time.perf_counter()
    if collection.is_done(task.group):
        return GroupResult(task.group, "there")
    journal = claim(collection.work, task.group)
    if journal is None:
        return GroupResult(task.group, "busy")
    with journal:
        if collection.is_done(task.group):
            journal.remove()
            return GroupResult(task.group, "there")
        blocks = [task.units[at : at + options.block] for at in range(0, len(task.units), options.block)]
        for number, units in enumerate(blocks):
            if number >= len(journal.blocks):
                _Block(collection, task, units, journal, encoder, options, report).run()
        return _commit(collection, task, journal, options, report, started)


class _Block:
    """One block of a group."""

    def __init__(
        self, collection: Collection, task: Task, units: Sequence[Unit], journal: Journal, encoder: Encoder,
        options: WorkOptions, report: Report,
    ) -> None:  # fmt: skip
        self._collection, self._task, self._units, self._journal = collection, task, units, journal
        self._encoder, self._options, self._report = encoder, options, report

    def run(self) -> None:
        """Encode the block into the journal, all of it again while inputs fail and may be retried.

        All of it, since a clip's last bits may depend on those that were computed with it.
        """
        for attempt in range(self._options.retries + 1):
            failed = self._attempt()
            if not set(failed) - set(self._task.condemned) or attempt == self._options.retries:
                break
            if any(is_url(unit.input.source) and unit.id in failed for unit in self._units):
                time.sleep(_PAUSE * 2**attempt)
            self._journal.drop_block()
        numbers = {unit.id: unit.attempt for unit in self._units}
        sources = {unit.id: unit.input.name for unit in self._units}
        ledger = [[id, sources[id], reason, numbers[id]] for id, reason in failed.items()]
        self._journal.close_block({"failed": ledger})

    def _attempt(self) -> dict[str, str]:
        """Encode the inputs once; the reasons of those that failed, by id."""
        condemned = self._task.condemned
        failed = {unit.id: condemned[unit.id] for unit in self._units if unit.id in condemned}
        units = [unit for unit in self._units if unit.id not in condemned]
        found = self._encoder.encode(units, self._collection.folder, self._report, ahead=not self._task.careful)
        for item in found:
            if isinstance(item, Failure):
                failed.setdefault(units[item.index].id, item.reason)
            else:
                self._journal.append(item[1].head, item[1].payload)
        return failed


def _commit(
    collection: Collection, task: Task, journal: Journal, options: WorkOptions, report: Report, started: float
) -> GroupResult:
    """Write the group's shards, ledger and manifest, in this order."""
    failed = [Failed(*each) for block in journal.blocks for each in block["failed"]]
    failing = {each.id for each in failed}
    _remove_files(collection, options, [entry for entry in journal.entries if entry.head["input"] in failing])
    entries = _in_order(journal.entries, task.units, failing)
    settings = collection.settings()
    about = {"model": settings["model"], "settings": settings["settings"]}
    sink = SINKS[options.sink](collection.folder, task.group, options.shard_bytes, about)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    model = settings["model"]["weights"][:16]
    lines = []
    try:
        for entry in entries:
            lines.append(entry.head | _added(sink, entry, journal) | {"model": model, "made": made})
            report.alive()
        sink.finish()
    finally:
        sink.discard()
    collection.finish(task.group, lines, failed)
    journal.remove()
    with_records = {entry.head["input"] for entry in entries}
    return GroupResult(
        task.group,
        "done",
        inputs=len(task.units),
        records=len(lines),
        failed=tuple(failed),
        empty=len(task.units) - len(with_records) - len(failed),
        frames=sum(entry.head["frames"] for entry in entries),
        bytes=sum(entry.head["bytes"] for entry in entries),
        seconds=time.perf_counter() - started,
    )


def _remove_files(collection: Collection, options: WorkOptions, entries: Sequence[Entry]) -> None:
    """Remove the files of clips whose input failed later on."""
    if SINKS[options.sink].per_record:
        for entry in entries:
            (collection.folder / entry.head["file"]).unlink(missing_ok=True)


def _added(sink: Sink, entry: Entry, journal: Journal) -> dict[str, Any]:
    try:
        return sink.add(Record(entry.head, journal.read(entry)))
    except OSError as error:
        raise OutputError(f"{sink.folder} cannot be read again: {error.strerror}; check the disk") from error


def _in_order(entries: Sequence[Entry], units: Sequence[Unit], failed: set[str]) -> list[Entry]:
    """The entries of inputs that did not fail, by the order of inputs and clips."""
    order = {unit.id: number for number, unit in enumerate(units)}
    kept = [entry for entry in entries if entry.head["input"] not in failed]
    if any(entry.head["input"] not in order for entry in kept):
        raise CollectionError("a journal has inputs of another plan; remove the folder work/ and start again")
    return sorted(kept, key=lambda entry: (order[entry.head["input"]], entry.head.get("first_frame", 0)))
