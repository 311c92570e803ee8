"""Two processes train as one does with twice the batch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.training.run_files import KL, differing, last, write_config

pytestmark = [pytest.mark.slow, pytest.mark.gradients]

ROOT = Path(__file__).parents[3]
# Adam steps as far for a gradient of rounding errors as for any other, unless eps is above those.
PLAIN = (
    "model.params.regularizer_config.params.sample=false", "model.params.optimizer_config.params.eps=1",
    "model.params.ema_decay=0.5", "model.base_learning_rate=0.1", "data.params.train.params.clips_per_epoch=12",
)  # fmt: skip
DDP = ("--devices", "2")
FSDP = ("--devices", "2", "--strategy", "fsdp")


def start(tmp_path: Path, name: str, *options: str, launcher: tuple[str, ...] = ()) -> Path:
    command = [*(launcher or (sys.executable,)), "main.py", "-b", str(tmp_path / "tiny.yaml")]
    environment = {key: value for key, value in os.environ.items() if key != "VIDTOK_RUN_FOLDER"}
    arguments = ["--logdir", str(tmp_path), "-n", name, "--no_date", *options]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / name


def gap(one: Path, other: Path, start: Path) -> float:
    """Distance of two runs' weights, as a share of the distance that they have come."""
    states = [last(folder)["state_dict"] for folder in (one, other, start)]
    assert states[0].keys() == states[1].keys()
    names = [name for name in states[0] if re.match("encoder|decoder|loss.logvar|model_ema.(encoder|decoder)", name)]
    weights, others, starts = (torch.cat([state[name].flatten() for name in names]) for state in states)
    return float((weights - others).norm() / (weights - starts).norm())


@pytest.mark.parametrize("options", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, options: tuple[str, ...]) -> None:
    write_config(tmp_path)
    still = start(tmp_path, "still", *PLAIN, "--max_steps", "1", "model.base_learning_rate=1e-12")
    one = start(tmp_path, "one", *PLAIN, "--max_steps", "4", "data.params.batch_size=4")
    two = start(tmp_path, "two", *PLAIN, "--max_steps", "4", *options)
    assert gap(one, two, still) < 1e-3
    accumulated = start(tmp_path, "accumulated", *PLAIN, "--max_steps", "4", *options, "data.params.batch_size=1",
                        "--accumulate_grad_batches", "2")  # fmt: skip
    assert last(accumulated)["global_step"] == 4


@pytest.mark.parametrize("options", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_resume_exactly(tmp_path: Path, options: tuple[str, ...]) -> None:
    write_config(tmp_path, adversarial=True)
    options = (*options, "model.params.ema_decay=0.5", "--val_check_interval", "1")
    whole = start(tmp_path, "whole", *options, "--max_steps", "8")
    start(tmp_path, "parts", *options, "--max_steps", "4")
    parts = start(tmp_path, "parts", *options, "--max_steps", "8")
    assert differing(last(whole), last(parts)) == []


def test_torchrun(tmp_path: Path) -> None:
    write_config(tmp_path)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
    launched = start(tmp_path, "launched", "--max_steps", "3", launcher=torchrun)
    assert differing(last(launched), last(start(tmp_path, "started", "--max_steps", "3", *DDP))) == []


def test_sharded_run_loads_in_one_process(tmp_path: Path) -> None:
    import vidtok

    write_config(tmp_path, base=KL)
    folder = start(tmp_path, "sharded", "--max_steps", "2", "model.params.ema_decay=0.5", *FSDP)
    model = vidtok.load(folder, ema=True)
    assert model.config.ch == 8
    begun = start(tmp_path, "begun", "--max_steps", "2", f"model.params.ckpt_path={folder}")
    assert last(begun)["global_step"] == 2
