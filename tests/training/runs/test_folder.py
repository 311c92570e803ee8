"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.run_files import train, write_config

from vidtok.errors import ConfigError, TrainingError
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.folder import alone, exclusive
from vidtok.training.runs.run import plan_run
from vidtok.training.runs.takeover import check_same, differences
from vidtok.zoo.runs import run_config

pytestmark = pytest.mark.gradients

HOLD = """
import sys
from pathlib import Path
from vidtok.training.runs.folder import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
BEGIN = """
import sys
from pathlib import Path
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.folder import alone
with alone(parse_arguments(sys.argv[2:]), Path(sys.argv[1]), resumes=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(TrainingError, match=f"process {other.pid} is training in .*run; wait for it or stop it"),
            exclusive(folder),
        ):
            pass
        other.kill()
    with exclusive(folder):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_of_two_runs_of_one_command_one_trains(tmp_path: Path) -> None:
    """Also where both started before there was a folder to take up."""
    words = ["-b", str(write_config(tmp_path)), "--logdir", str(tmp_path / "logs")]
    folder = tmp_path / "logs" / "2026-01-01T00-00-00_tiny"
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(folder), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            TrainingError, match=rf"process {other.pid} is training in {folder}; wait for it or stop it"
        ):
            train(None, tmp_path / "logs", *words[:2], "--max_steps", "1")
        with alone(parse_arguments([*words, "--checkpoint_auto_resume", "false"]), folder, resumes=False):
            pass  # asked for a run of its own
        assert [path.name for path in (tmp_path / "logs").iterdir()] == [".tiny.lock"]
        other.kill()
    train(None, tmp_path / "logs", *words[:2], "--max_steps", "1")
    assert ".tiny.lock" not in {path.name for path in (tmp_path / "logs").iterdir()}
    with (
        pytest.raises(TrainingError, match="is a run of this name that has just been made; start again to go on with"),
        alone(parse_arguments(words), folder, resumes=False),
    ):
        pass


def test_a_run_of_another_configuration_is_not_taken_up_by_itself(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    folder = train(config, tmp_path, "--max_steps", "1")
    words = ["-b", str(config), "--logdir", str(tmp_path), "--max_steps", "2"]
    other = "model.base_learning_rate=0.5"
    with pytest.raises(
        ConfigError,
        match=rf"the run of this name in {folder} was begun with another configuration: model.base_learning_rate was "
        rf"0.001, is 0.5, lightning.seed was not set, is 5; give --resume {folder} to go on with it all the same, or",
    ):
        train(config, tmp_path, "--max_steps", "2", other, "-s", "5")
    before = run_config(folder).read_text()
    for extra, taken_up in ([other, "--resume", str(folder)], folder), ([other, "-n", "mine"], None), ([], folder):
        plan = plan_run(parse_arguments([*words, *extra]))
        assert (plan.folder == folder) == (taken_up == folder)
    raw = plan_run(parse_arguments([*words, "data.params.num_workers=1"])).config.raw
    assert run_config(folder).read_text() == before
    check_same(folder, raw)


def test_the_length_of_a_run_may_change() -> None:
    def raw(steps: int, end: int) -> dict[str, object]:
        return {"model": {"decay_steps": end}, "lightning": {"trainer": {"max_steps": steps, "precision": "32-true"}}}

    assert differences(raw(4, 4), raw(8, 8)) == []
    assert differences(raw(4, 4), raw(8, 6)) == ["model.decay_steps was 4, is 6"]
    assert differences(raw(4, 4), {}) == [
        "model.decay_steps was 4, is not set",
        "lightning.trainer.precision was '32-true', is not set",
    ]


def test_what_a_killed_run_left_half_written_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "run" / "checkpoints" / ".step=000000005-0123456789ab.ckpt"
    left.parent.mkdir(parents=True)
    for path in (left, left.with_name("step=000000004.ckpt")):
        path.write_bytes(b"x")
    with exclusive(tmp_path / "run"):
        assert [path.name for path in left.parent.iterdir()] == ["step=000000004.ckpt"]
