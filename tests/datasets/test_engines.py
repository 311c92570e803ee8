"""Worker processes: poison inputs, hangs, kills; the local and the Ray engine give the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.datasets.inline import work_inline
from tests.datasets.stand_in import StandIn, contents, files, job, write_inputs

from tiny import FSQ_1_0, ONE_THREAD, write_model, write_video
from vidtok.datasets import Listing, ModelOptions, RunOptions, TokenizeJob, TokenizeOptions
from vidtok.datasets.supervisor import Supervisor
from vidtok.errors import CollectionError

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "src")])}
COMMAND = """\
import sys
from pathlib import Path
from tests.datasets.stand_in import job
from vidtok.datasets import Listing
result = job(Path(sys.argv[2]), together=6, workers=int(sys.argv[3])).run(Listing(words=(sys.argv[1],)))
sys.exit(0 if result.complete else 2)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, ENVIRONMENT[name])


def test_poison_is_set_aside_and_the_rest_done(tmp_path: Path) -> None:
    special = {1: "bad", 3: "exit", 6: "hang"}
    listing = write_inputs(tmp_path / "in", 9, special)
    result = job(tmp_path / "out", together=9, workers=1, timeout=4.0, retries=0).run(listing)
    reasons = {Path(each.source).stem: each.reason for each in result.failures.values()}
    assert reasons == {
        "0001": "it is bad", "0003": "the worker process exited (3)", "0006": "no progress for 4 s"
    }  # fmt: skip
    assert result.figures.records == len(contents(tmp_path / "out")) == 12


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    listing = write_inputs(tmp_path / "in", 2)
    with pytest.raises(CollectionError, match="workers end before they open an input"):
        job(tmp_path / "out", workers=1, module="no.such.module").run(listing)


def test_kills_of_a_worker_and_of_the_run(tmp_path: Path) -> None:
    listing = write_inputs(tmp_path / "in", 36, dict.fromkeys(range(36), "slow"))
    with pytest.MonkeyPatch.context() as patch:
        work_inline(patch, StandIn())
        assert job(tmp_path / "whole", together=6).run(listing).complete
    out = tmp_path / "out"
    process = start(tmp_path, out, workers=2)
    wait_for_work(out, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_for_work(out, process)
    process.kill()
    process.wait()
    assert job(out, workers=1).run(listing).complete
    assert files(out) == files(tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills(tmp_path: Path) -> None:
    listing = write_inputs(tmp_path / "in", 60, dict.fromkeys(range(60), "slow"))
    assert job(tmp_path / "whole", together=6, workers=1).run(listing).complete
    for start in range(0, 100, 5):
        killed_at_random(tmp_path, range(start, start + 5))


def killed_at_random(folder: Path, kills: range) -> None:
    """Start a run over `folder`/in, kill it or a worker for each number, and go on; the result is `folder`/whole's."""
    out = folder / f"out{kills.start}"
    for number in kills:
        draw = random.Random(number)
        process = start(folder, out, workers=draw.choice([1, 2]))
        wait_for_work(out, process)
        time.sleep(draw.uniform(0, 0.6))
        whom = draw.choice(["run", "worker"])
        if whom == "run":
            process.kill()
        else:
            for pid in children(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait(timeout=240)
            assert process.returncode == 0
        process.wait(timeout=60)
    assert start(folder, out, workers=2).wait(timeout=240) == 0
    assert files(out) == files(folder / "whole")
    assert contents(out) == contents(folder / "whole")


def start(folder: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", COMMAND, str(folder / "in"), str(out), str(workers)]
    return subprocess.Popen(words, env=ENVIRONMENT, cwd=ROOT)


def wait_for_work(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a worker has written, or the run is over."""
    before = listed(out)
    while process.poll() is None and listed(out) == before:
        time.sleep(0.02)


def listed(out: Path) -> set[tuple[str, int]]:
    found = set()
    for folder in ("work", "manifest"):
        if (out / folder).is_dir():
            for entry in os.scandir(out / folder):
                try:
                    found.add((entry.name, entry.stat().st_mtime_ns))
                except FileNotFoundError:
                    continue
    return found


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


def test_two_runs_share_one_output(tmp_path: Path) -> None:
    listing = write_inputs(tmp_path / "in", 48, dict.fromkeys(range(48), "slow"))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(job(tmp_path / "out", together=6, workers=1).run, listing) for _ in range(2)]
        results = [run.result() for run in runs]
    assert all(result.complete for result in results)
    assert sum(result.figures.records for result in results) == len(contents(tmp_path / "out")) == 96


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    listing = write_inputs(tmp_path / "in", 1, {0: "hang"})
    made = job(tmp_path / "out")
    setup, _ = made._begin(listing)
    made.collection.plan.add(listing.inputs(), setup.fingerprint)
    (group,) = made.collection.plan.groups()
    stop = threading.Event()
    supervisor = Supervisor(setup, "cpu", 1000.0, stop)
    from vidtok.datasets.supervisor import StoppedError
    from vidtok.datasets.work import Task

    ended: list[BaseException] = []

    def work() -> None:
        try:
            supervisor.run(Task(group.name, group.units()))
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not list((tmp_path / "out/work").iterdir()):
        time.sleep(0.05)
    pid = supervisor.pid
    assert pid is not None
    stop.set()
    thread.join()
    assert len(ended) == 1
    supervisor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_engines_give_the_same_records(tmp_path: Path) -> None:
    """A real model, on a Ray of this machine with two CPUs, and with workers of the local engine."""
    ray = pytest.importorskip("ray")
    model = write_model(tmp_path, FSQ_1_0)
    (tmp_path / "in").mkdir()
    for number in range(5):
        write_video(tmp_path / f"in/{number}.mp4", 17 + 17 * (number % 2), 32, 32)
    (tmp_path / "in/9.mp4").write_text("no video")
    listing = Listing(words=(str(tmp_path / "in"),), pictures=False)

    def tokenize(out: Path, engine: str) -> None:
        given = ModelOptions(model=str(model.config), checkpoint=str(model.checkpoint), device="cpu")
        options = TokenizeOptions(height=32, width=32, clip_frames=17)
        run = RunOptions(engine=engine, workers=2, together=2, retries=0)
        result = TokenizeJob(out, given, options, run).run(listing)
        assert [Path(each.source).name for each in result.failures.values()] == ["9.mp4"]
        assert result.figures.records == 7

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        tokenize(tmp_path / "ray", "ray")
    finally:
        ray.shutdown()
    tokenize(tmp_path / "local", "local")
    assert files(tmp_path / "ray") == files(tmp_path / "local")
