"""The job of `vidtok tokenize`: plan the inputs, have an engine work on the groups, and say what is there."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from vidtok.datasets.collection import Collection, Failed
from vidtok.datasets.encoding import READERS
from vidtok.datasets.inputs import Absent, Listing
from vidtok.datasets.journal import claim
from vidtok.datasets.local import Engine, LocalEngine, cores
from vidtok.datasets.options import TokenizeOptions
from vidtok.datasets.plan import Group, Planned, Unit
from vidtok.datasets.progress import Figures, Tally
from vidtok.datasets.sinks import SINKS
from vidtok.datasets.work import GroupResult
from vidtok.datasets.worker import MODULE, Setup
from vidtok.errors import CollectionError
from vidtok.text import counted

ENGINES = ("local", "ray")
TIMEOUT = 600.0
_POLL = 1.0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The way that a run works; a later run of the same collection may use another."""

    engine: str = "local"
    """"local": processes on this machine; "ray": actors on this machine or a cluster."""
    workers: int | None = None
    """Worker processes; None: one a GPU, or on a CPU one for each `threads` cores. Ray: the most there may be."""
    address: str | None = None
    """Address of a Ray cluster; None: a local one that ends with the run."""
    gpus: float | None = None
    """Ray: GPUs, or the part of one, for each worker; None: 1 for a model on a GPU, else 0."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): work on every n-th group alone, from the i-th on."""
    together: int | None = None
    """Inputs of a group, which are written together; None: as suits their number, 256 at most."""
    timeout: float = TIMEOUT
    """Seconds without a sign of progress after which a worker is ended, and its input counts as failed."""
    retries: int = 1
    """Further tries at an input that fails."""
    retry_failed: bool = False
    """Try inputs again that failed in earlier runs."""
    max_failures: int | None = None
    """Stop once more inputs than this have failed; None: never."""
    readers: int = READERS
    """Inputs that each worker reads at the same time, ahead of the model."""
    module: str = MODULE
    """Module that worker processes run."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise CollectionError(f"engine is {self.engine!r}; expected one of {', '.join(ENGINES)}")
        index, count = self.shard
        if not 0 <= index < count:
            raise CollectionError(f"shard is {index}/{count}; expected i/n with i from 0 to n - 1, such as 0/{count}")
        for name in ("workers", "together", "readers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CollectionError(f"{name} is {value}; expected at least 1")
        if self.engine == "local" and self.address is not None:
            raise CollectionError(f"address is {self.address}, but the engine is local; give --engine ray (engine)")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model of a collection, as `vidtok.load` takes it."""

    model: str
    checkpoint: str | None = None
    dtype: str = "float32"
    device: str | None = None
    bases: tuple[str, ...] = ()
    """Places where `base:` of configurations may lead."""


@dataclass(frozen=True, kw_only=True)
class TokenizeResult:
    """State of a collection after a run."""

    figures: Figures
    planned: Planned | None
    """The planning; None if no inputs were given."""
    retried: int
    failures: dict[str, Failed]
    """Inputs of the plan, and given if any were, that have failed, by id."""
    elsewhere: int
    """Groups of other shards that are not done."""

    @property
    def absent(self) -> list[Absent]:
        """Inputs given that cannot be looked at."""
        return [] if self.planned is None else self.planned.absent

    @property
    def complete(self) -> bool:
        """True if all inputs of this run's share have their records."""
        return not (self.failures or self.absent or self.figures.left)


Announce = Callable[[str], None]
"""Function called with a line about a step of the run."""


@dataclass
class TokenizeJob:
    """A run over the collection in `output`, which is begun or gone on with.

    Raises `CollectionError` if an option cannot be used.
    """

    output: str | os.PathLike[str]
    model: ModelOptions
    options: TokenizeOptions = field(default_factory=TokenizeOptions)
    run_options: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        package = SINKS[self.options.sink].package
        if package is not None and find_spec(package) is None:
            raise CollectionError(
                f"the sink {self.options.sink} needs the package {package}; pip install 'vidtok[collections]'"
            )
        if self.run_options.engine == "ray" and find_spec("ray") is None:
            raise CollectionError("the engine ray needs the package ray; pip install 'vidtok[ray]'")
        self.collection = Collection(self.output)

    def run(
        self,
        listing: Listing | None,
        *,
        announce: Announce = lambda text: None,
        progress: Callable[[Tally], None] = lambda tally: None,
    ) -> TokenizeResult:
        """Tokenize the inputs of `listing`, and all that is planned already; None: the latter alone.

        A run that was ended anywhere goes on where it was. `progress` is called once, before work begins, with the
        counts that will change.

        Raises:
            VidTokError: the model cannot be loaded; there are no inputs; the collection was begun with another model or
                other options, or cannot be written; more inputs failed than allowed.
        """
        setup, device = self._begin(listing)
        planned = None
        if listing is not None:
            announce("looking for inputs")
            planned = self.collection.plan.add(
                listing.inputs(), setup.fingerprint, content=self.options.content, together=self.run_options.together
            )
            announce(_planned_text(planned))
        retried = self._retry() if self.run_options.retry_failed else 0
        work = _Work(self.collection, self.run_options)
        progress(work.tally)
        engine = self._engine(setup, device, work.pending_groups)
        if work.pending_groups:
            engine.run(work.pending(), work.take)
            work.finish_others(engine, announce)
        failures = self.collection.failures()
        if planned is not None:
            given = {bytes(each).hex() for each in planned.given} if failures else set()
            failures = {id: failed for id, failed in failures.items() if id in given}
        return TokenizeResult(
            figures=work.tally.figures(),
            planned=planned,
            retried=retried,
            failures=failures,
            elsewhere=work.elsewhere(),
        )

    def _begin(self, listing: Listing | None) -> tuple[Setup, str]:
        """Load the model once to know what it is, and begin the collection or check that it is the same."""
        import torch

        import vidtok
        from vidtok.config.layers import allowing_bases
        from vidtok.device import choose_device
        from vidtok.tokens import model_identity

        given = self.model
        device = (
            "cpu" if self.run_options.engine == "ray" and given.device is None else str(choose_device(given.device))
        )
        if listing is None and not self.collection.plan.generations():
            raise CollectionError(f"{self.output} has no plan to go on with; give inputs")
        with allowing_bases(*map(Path, given.bases)):
            model = vidtok.load(given.model, given.checkpoint, dtype=getattr(torch, given.dtype))
        settings = self.options.collection_settings(model, device.partition(":")[0])
        made = self.collection.open(model_identity(model), settings)
        del model
        gc.collect()
        setup = Setup(
            folder=os.path.abspath(self.output),
            model=_absolute(given.model),
            checkpoint=None if given.checkpoint is None else os.path.abspath(given.checkpoint),
            dtype=given.dtype,
            options=self.options,
            fingerprint=made,
            readers=self.run_options.readers,
            retries=self.run_options.retries,
            bases=given.bases,
            module=self.run_options.module,
        )
        return setup, device

    def _retry(self) -> int:
        """Plan failed inputs again."""
        plan = self.collection.plan
        number = len(plan.retries())
        failures = self.collection.failures()
        units = {unit.id: unit for unit in self._failed_units(failures)}
        return plan.retry(units.values(), number, self.run_options.together)

    def _failed_units(self, failures: dict[str, Failed]) -> Iterator[Unit]:
        wanted = {id: failed.attempt for id, failed in failures.items()}
        if wanted:
            for group in self.collection.plan.groups():
                yield from (unit for unit in group.units() if wanted.get(unit.id) == unit.attempt)

    def _engine(self, setup: Setup, device: str, groups: int) -> Engine:
        run = self.run_options
        if run.engine == "ray":
            from vidtok.datasets.cluster import RayEngine

            gpus = run.gpus if run.gpus is not None else float(device.startswith("cuda"))
            return RayEngine(setup, device, run.timeout, address=run.address, workers=run.workers, gpus=gpus)
        return LocalEngine(setup, _devices(device, run.workers, self.options.threads)[: max(1, groups)], run.timeout)


class _Work:
    """The groups of one run."""

    def __init__(self, collection: Collection, options: RunOptions) -> None:
        self._collection, self._options = collection, options
        self._busy: dict[str, Group] = {}
        done = collection.done()
        own = [(group.count, group.name in done) for group in self._own()]
        self.tally = Tally(sum(count for count, _ in own), sum(count for count, is_done in own if is_done))
        self.pending_groups = sum(not is_done for _, is_done in own)
        self._done = done

    def _own(self) -> Iterator[Group]:
        index, count = self._options.shard
        for number, group in enumerate(self._collection.plan.groups()):
            if number % count == index:
                yield group

    def pending(self) -> Iterator[Group]:
        """The groups of this run's share that were not done when it began."""
        return (group for group in self._own() if group.name not in self._done)

    def take(self, group: Group, result: GroupResult, worker: str) -> None:
        """Count a result. Raises `CollectionError` if too many inputs have failed."""
        if result.state == "busy":
            self._busy[group.name] = group
            return
        self.tally.add(result, worker, group.count)
        most, failed = self._options.max_failures, self.tally.figures().failed
        if most is not None and failed > most:
            first = "".join(f"\n  {each.source}: {each.reason}" for each in result.failed[:3])
            raise CollectionError(
                f"{counted(failed, 'input')} failed, more than --max-failures (max_failures) allows, such as{first}"
            )

    def finish_others(self, engine: Engine, announce: Announce) -> None:
        """Wait for groups that another run is working on, and take over those that it leaves."""
        if self._busy:
            announce(f"waiting for another run, which is at work on {counted(len(self._busy), 'group')}")
        while self._busy:
            free = [group for group in list(self._busy.values()) if self._is_free(group)]
            for group in free:
                del self._busy[group.name]
            if free:
                engine.run(iter(free), self.take)
            else:
                time.sleep(_POLL)

    def _is_free(self, group: Group) -> bool:
        if self._collection.is_done(group.name):
            self.tally.add(GroupResult(group.name, "there"), "", group.count)
            del self._busy[group.name]
            return False
        journal = claim(self._collection.work, group.name)
        if journal is None:
            return False
        with journal:
            if self._collection.is_done(group.name):  # meanwhile; the next look counts it
                journal.remove()
                return False
        return True

    def elsewhere(self) -> int:
        """Groups of other shards that are not done yet."""
        done = self._collection.done()
        return sum(group.name not in done for group in self._collection.plan.groups())


def _devices(device: str, workers: int | None, threads: int) -> list[str]:
    """A device for each local worker."""
    if device == "cuda":
        import torch

        all_of_them = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        return [all_of_them[number % len(all_of_them)] for number in range(workers or len(all_of_them))]
    if device == "cpu":
        return ["cpu"] * (workers or max(1, cores() // threads))
    return [device] * (workers or 1)


def _absolute(model: str) -> str:
    """A model's name, or the absolute path of its file or folder, as workers may run elsewhere."""
    return os.path.abspath(model) if os.path.exists(model) else model


def _planned_text(planned: Planned) -> str:
    parts: Sequence[str] = [
        f"{counted(len(planned.given), 'input')}, {planned.added:,} of them new",
        *([f"{planned.repeated:,} given more than once"] if planned.repeated else []),
        *([f"{len(planned.absent):,} not there"] if planned.absent else []),
    ]
    return ", ".join(parts)
