"""The Ray engine: the same workers as `local.py`, held by Ray's actors on one machine or a cluster.

Ray Data hands out groups, a row each, and lets the pool of actors grow and shrink. It keeps nothing: what is done says
the collection, which all machines must see at the same path.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vidtok
from vidtok.datasets.collection import Failed
from vidtok.datasets.local import OnResult
from vidtok.datasets.plan import Group
from vidtok.datasets.supervisor import Supervisor
from vidtok.datasets.work import GroupResult, Task
from vidtok.datasets.worker import Setup
from vidtok.errors import CollectionError
from vidtok.text import counted, one_line

RESTARTS = 4
"""Times that Ray starts a lost actor, or its task, again."""
_PASSES = 3
"""Times that groups are handed out whose actors were lost for good."""
_CPU_SHARE = 0.9
"""CPUs that Ray counts for a thread of a worker: with all of them taken, its own tasks would wait for ever."""


class GroupActor:
    """Works on groups, in a worker process of its own; what Ray makes an actor of."""

    def __init__(self, setup: Setup, device: str, timeout: float, version: str) -> None:
        self._name = f"{platform.node()}:{os.getpid()}"
        self._fault = ""
        if version != vidtok.__version__:
            self._fault = f"{self._name} has vidtok {vidtok.__version__}, expected {version}; install that on all nodes"
        self._supervisor = Supervisor(setup, device, timeout)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The results of a batch of groups, as rows of JSON."""
        return {"result": [json.dumps(self._result(json.loads(text))) for text in batch["group"]]}

    def _result(self, values: dict[str, Any]) -> dict[str, Any]:
        group = Group(**{**values, "generation": Path(values["generation"])})
        said = {"group": group.name, "worker": self._name}
        try:
            if self._fault:
                raise CollectionError(self._fault)
            return said | {"result": asdict(self._supervisor.run(Task(group.name, group.units())))}
        except (CollectionError, OSError) as error:
            return said | {"fatal": one_line(error)}

    def __del__(self) -> None:
        if hasattr(self, "_supervisor"):
            self._supervisor.close()


class RayEngine:
    """Workers in a pool of Ray's actors.

    Args:
        setup: for the workers; its folder must be there on all nodes.
        device: "cpu", or "cuda" for the GPU that Ray gives each worker.
        timeout: seconds without a sign of progress after which a worker is ended.
        address: of a cluster; None: the one that this process is connected to, or a local one that ends with the run.
        workers: most workers; None: as many as the cluster has CPUs or GPUs for.
        gpus: GPUs of a worker.
    """

    def __init__(
        self,
        setup: Setup,
        device: str,
        timeout: float,
        *,
        address: str | None = None,
        workers: int | None = None,
        gpus: float = 0.0,
    ) -> None:
        self._setup, self._device, self._timeout = setup, device.partition(":")[0], timeout
        self._address, self._workers, self._gpus = address, workers, gpus

    def run(self, groups: Iterator[Group], on_result: OnResult) -> None:
        """See `vidtok.datasets.local.Engine`."""
        left = {group.name: group for group in groups}
        with _connected(self._address):
            for _ in range(_PASSES):
                if left:
                    self._pass(left, on_result)
        if left:
            raise CollectionError(
                f"{counted(len(left), 'group')} had no result, as Ray lost the actors that worked on them; see Ray's "
                "logs, and start again: finished work is kept"
            )

    def _pass(self, left: dict[str, Group], on_result: OnResult) -> None:
        """Hand out all groups that are `left`, and take those out that have results."""
        for row in self._rows(list(left.values())):
            said = json.loads(row)
            if "fatal" in said:
                raise CollectionError(said["fatal"])
            values = said["result"]
            result = GroupResult(**{**values, "failed": tuple(Failed(**each) for each in values["failed"])})
            on_result(left.pop(said["group"]), result, said["worker"])

    def _rows(self, groups: list[Group]) -> Iterator[str]:
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # such groups have no result, and are handed out again
        most = min(self._workers or self._room(), max(1, len(groups)))
        items = [{"group": json.dumps({**vars(group), "generation": str(group.generation)})} for group in groups]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of bounds on restarts, which have no other name yet
            rows = self._mapped(ray.data.from_items(items, override_num_blocks=len(items)), most)
        for batch in rows.iter_batches(batch_size=None, prefetch_batches=0):
            yield from map(str, batch["result"])

    def _mapped(self, groups: Any, most: int) -> Any:
        import ray.data

        return groups.map_batches(
            GroupActor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                initial_size=min(most, self._room()),
                max_size=most,
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            fn_constructor_args=(self._setup, self._device, self._timeout, vidtok.__version__),
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )

    @property
    def _cpus(self) -> float:
        return self._setup.options.threads * _CPU_SHARE

    def _room(self) -> int:
        """Workers that the cluster has room for now."""
        import ray

        have = ray.cluster_resources()
        room = int(have.get("CPU", 1) / self._cpus)
        if self._gpus:
            room = min(room, int(have.get("GPU", 0) / self._gpus))
            if not room:
                raise CollectionError(
                    f"the Ray cluster has {have.get('GPU', 0):g} GPUs; a worker needs {self._gpus:g} (--gpus)"
                )
        return max(1, room)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to Ray inside the block; one that was there before is used, and stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise CollectionError(f"there is no Ray cluster at {address}: {one_line(error)}; check --address") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
