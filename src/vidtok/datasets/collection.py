"""A collection: the folder that `vidtok tokenize` fills, and what it says about itself.

collection.json      model and options, which never change
plan/                which inputs there are, in groups (plan.py)
work/                journals of groups under way (journal.py)
data/                records, as the sink writes them (sinks.py)
failures/GROUP.jsonl inputs of the group that failed, with the reason
manifest/GROUP.jsonl one line a record; the group is done once this file is there
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidtok.datasets.plan import Plan
from vidtok.errors import CollectionError, VidTokError
from vidtok.fields import shown
from vidtok.files import Aside, aside, make_folder, writing
from vidtok.text import one_line, reason, unforeseen
from vidtok.tokens import ModelIdentity

FORMAT = 1
SETTINGS = "collection.json"
DATA, WORK, MANIFEST, FAILURES = "data", "work", "manifest", "failures"
LINES = ".jsonl"
_NAMED = 3
_ADVICE = "check the folder, its permissions and the space left on the disk"


@dataclass(frozen=True)
class Failed:
    """An input that could not be tokenized, in the ledger."""

    id: str
    source: str
    reason: str
    attempt: int


class Collection:
    """The collection in `folder`, as it stands on the disk."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.plan = Plan(self.folder / "plan")

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def data(self) -> Path:
        """The folder of the records."""
        return self.folder / DATA

    @property
    def work(self) -> Path:
        """The folder of unfinished groups."""
        return self.folder / WORK

    def open(self, model: ModelIdentity, settings: Mapping[str, Any]) -> str:
        """Begin the collection, or check that it was begun with the same model and settings; return its fingerprint.

        Raises `CollectionError` if it was begun with others, or cannot be written.
        """
        wanted = {"format": FORMAT, "model": asdict(model), "settings": dict(settings)}
        if not (self.folder / SETTINGS).exists():
            for name in (DATA, WORK, MANIFEST, FAILURES):
                make_folder(self.folder / name, CollectionError, "choose another --output")
            with writing(self.folder, CollectionError, advice=_ADVICE):
                self._begin(json.dumps(wanted, indent=1) + "\n")
        self._check_writable()
        found = self.settings()
        others = _differing(found, json.loads(json.dumps(wanted)))
        if others:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            raise CollectionError(
                f"{self} was begun otherwise ({', '.join(others[:_NAMED])}{more}); give the options that it was begun "
                "with, or another --output"
            )
        return fingerprint(found)

    def _begin(self, text: str) -> None:
        new = Aside(self.folder / SETTINGS, sync=True)
        try:
            new.make().write_text(text)
            with contextlib.suppress(FileExistsError):  # another run was quicker
                os.link(new.path, new.place)
        finally:
            new.discard()

    def _check_writable(self) -> None:
        with writing(self.folder, CollectionError, advice=_ADVICE):
            probe = Aside(self.folder / WORK / "probe")
            try:
                probe.make()
            finally:
                probe.discard()

    def settings(self) -> dict[str, Any]:
        """Model and settings. Raises `CollectionError` if this is no collection, or one of a newer format."""
        path = self.folder / SETTINGS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            return found
        except FileNotFoundError as error:
            raise CollectionError(
                f"{self} is no collection, which has a {SETTINGS}; expected a folder that `vidtok tokenize` filled"
            ) from error
        except (OSError, ValueError) as error:
            raise CollectionError(f"{path} cannot be read: {reason(error)}; get an undamaged copy") from error

    def manifest(self, group: str) -> Path:
        """The manifest of a group."""
        return self.folder / MANIFEST / f"{group}{LINES}"

    def done(self) -> set[str]:
        """The names of all groups that are done."""
        return _names(self.folder / MANIFEST)

    def is_done(self, group: str) -> bool:
        """True if the group is done."""
        return self.manifest(group).exists()

    def finish(self, group: str, records: Iterable[Mapping[str, Any]], failed: Iterable[Failed]) -> None:
        """Note the `failed` inputs of a group whose records are in their places, and then that the group is done.

        Raises `CollectionError` if the disk refuses.
        """
        ledger = self.folder / FAILURES / f"{group}{LINES}"
        lines = [_line(asdict(each)) for each in failed]
        if lines:
            with aside(ledger, CollectionError, sync=True, advice=_ADVICE) as path:
                path.write_bytes(b"".join(lines))
        else:
            ledger.unlink(missing_ok=True)
        with aside(self.manifest(group), CollectionError, sync=True, advice=_ADVICE) as path:
            path.write_bytes(b"".join(map(_line, records)))

    def failures(self) -> dict[str, Failed]:
        """Inputs that failed at their last attempt and are not planned again, by id."""
        latest: dict[str, Failed] = {}
        groups = sorted(_names(self.folder / FAILURES))
        if not groups:
            return latest
        for group in groups:
            if self.is_done(group):
                for failed in self._failed(group):
                    latest[failed.id] = failed
        for unit in self.plan.retried():
            if unit.id in latest and unit.attempt > latest[unit.id].attempt:
                del latest[unit.id]
        return latest

    def _failed(self, group: str) -> Iterator[Failed]:
        with open(self.folder / FAILURES / f"{group}{LINES}", "rb") as file:
            for line in file:
                yield Failed(**json.loads(line))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of model and settings: 64 hexadecimal digits. The name of the model has no part in it."""
    model = {name: value for name, value in settings["model"].items() if name != "name"}
    text = json.dumps([settings["format"], model, settings["settings"]], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def failure_text(error: BaseException) -> str:
    """The reason of a failure, for the ledger."""
    return one_line(error) if isinstance(error, VidTokError) else unforeseen(error)


def _names(folder: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return {e.name.removesuffix(LINES) for e in os.scandir(folder) if e.name.endswith(LINES) and e.name[0] != "."}
    return set()


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Model and settings that differ, each with both values."""
    one, other = found["model"], wanted["model"]
    differing = (
        [] if {**one, "name": ""} == {**other, "name": ""} else [f"model {shown(one.get('name'))}, other weights"]
    )
    before, now = found["settings"], wanted["settings"]
    return differing + [
        f"{name} was {shown(before.get(name))}, is {shown(now.get(name))}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
