"""A run that was interrupted goes on as one that never was."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.run_files import FSQ, differing, last, train, write_config

from vidtok.errors import TrainingError
from vidtok.training.config import TrainingConfig
from vidtok.training.runs import folder as folder_module
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.callbacks import StopOnSignal
from vidtok.training.runs.checkpoints import KeepCheckpoints, WholeFiles
from vidtok.training.runs.run import plan_run

pytestmark = pytest.mark.gradients

ROOT = Path(__file__).parents[3]
EMA = "model.params.ema_decay=0.9"
WARMUP = "model.params.lr_schedule.warmup_steps=3"


@pytest.mark.parametrize(
    ("adversarial", "base", "options"),
    [
        (False, None, ()),
        (True, FSQ, ("--accumulate_grad_batches", "2")),
    ],
)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, adversarial: bool, base: str | None, options: tuple[str, ...]
) -> None:
    config = write_config(tmp_path, adversarial=adversarial, **({"base": base} if base else {}))
    options = (*options, EMA, WARMUP, "model.params.encoder_config.params.dropout=0.1", "--no_date")
    whole = train(config, tmp_path / "whole", *options, "--max_steps", "8")
    for steps in ("4", "8"):  # the second start takes up the first by itself
        parts = train(config, tmp_path / "parts", *options, "--max_steps", steps)
    assert last(whole)["global_step"] == 8
    assert differing(last(whole), last(parts)) == []


def test_resume_takes_folder_or_checkpoint(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    folder = train(config, tmp_path, "--max_steps", "2", "-s", "5")
    again = train(None, tmp_path, "-r", str(folder), "--max_steps", "4")
    assert again == folder
    other = train(config, tmp_path / "other", "--max_steps", "4", "-s", "5")
    assert differing(last(folder), last(other)) == []
    checkpoint = folder / "checkpoints" / "step=000000002.ckpt"
    anew = train(config, tmp_path / "anew", "--resume_from_checkpoint", str(checkpoint), "--max_steps", "4", "-s", "5")
    assert anew.parent == tmp_path / "anew"
    assert differing(last(anew)["state_dict"], last(other)["state_dict"]) == []
    assert plan_run(parse_arguments(["-r", str(checkpoint)])).resume_from == checkpoint
    newest = folder / "checkpoints" / "last.ckpt"
    assert plan_run(parse_arguments(["-b", str(config), "--resume_from_checkpoint", str(folder)])).resume_from == newest


def test_newest_run_of_the_name_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = write_config(tmp_path)
    folder = train(config, tmp_path, "--max_steps", "2")
    with caplog.at_level(logging.INFO, logger="vidtok"):
        assert train(config, tmp_path, "--max_steps", "3") == folder
    assert f"going on with the run in {folder}" in caplog.text
    assert last(folder)["global_step"] == 3
    arguments = ["-b", str(config), "--logdir", str(tmp_path)]
    for other in (["-n", "another"], ["--checkpoint_auto_resume", "false"], ["-f", "_b"], ["-p", "project"]):
        plan = plan_run(parse_arguments([*arguments, *other]))
        assert plan.resume_from is None
        assert plan.folder != folder


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDTOK_RUN_FOLDER", raising=False)
    arguments = parse_arguments(["-b", str(write_config(tmp_path)), "--logdir", str(tmp_path / "logs")])
    folders = []
    for _ in range(3):
        folders.append(plan_run(arguments).folder)
        folders[-1].mkdir(parents=True)
    assert len(set(folders)) == 3
    assert folders == sorted(folders)
    written = [folder_module.write_config(folders[0], {"seed": seed}) for seed in range(3)]
    assert [path.read_text() for path in sorted(written)] == ["seed: 0\n", "seed: 1\n", "seed: 2\n"]


def test_interruption_ends_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(write_config(tmp_path), tmp_path / "whole", "--no_date", "--max_steps", "5")

    def interrupt(self: StopOnSignal, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_start", interrupt)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(write_config(tmp_path), tmp_path / "parts", "--no_date", "--max_steps", "5")
    assert signal.getsignal(signal.SIGINT) is before
    parts = tmp_path / "parts" / "tiny"
    assert last(parts)["global_step"] == 3  # the batch under way was finished
    monkeypatch.undo()
    train(write_config(tmp_path), tmp_path / "parts", "--no_date", "--max_steps", "5")
    assert differing(last(whole), last(parts)) == []


def test_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    files = WholeFiles()
    files.save_checkpoint({"state_dict": {}, "optimizer_states": [], "loops": {}, "step": 1}, path)

    def full(value: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be written: No space left on device; the ones before"):
        files.save_checkpoint({"step": 2}, path)
    assert files.load_checkpoint(path)["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_last_checkpoint_shares_its_file_or_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidtok.training.runs.checkpoints import link

    (tmp_path / "a").write_text("a")
    link(tmp_path / "a", tmp_path / "last")
    assert (tmp_path / "last").stat().st_ino == (tmp_path / "a").stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "b").write_text("b")
    link(tmp_path / "b", tmp_path / "last")
    assert (tmp_path / "last").read_text() == "b"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b", "last"]
    with pytest.raises(TrainingError, match="cannot be written"):
        link(tmp_path / "b", tmp_path / "nowhere" / "last")


def test_best_and_newest_are_kept(tmp_path: Path) -> None:
    folder = train(
        write_config(tmp_path), tmp_path, "--max_steps", "8", "--val_check_interval", "1",
        "lightning.modelcheckpoint.params.save_top_k=2", "lightning.modelcheckpoint.params.keep=2",
    )  # fmt: skip
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert [name for name in names if not name.startswith("best")] == [
        "last.ckpt", "step=000000006.ckpt", "step=000000008.ckpt",
    ]  # fmt: skip
    best = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert len(best) == 2
    assert sorted([*best, "best.json"]) == [name for name in names if name.startswith("best")]
    worse = ("model.base_learning_rate=1.0", "--resume", str(folder))
    train(write_config(tmp_path), tmp_path, "--max_steps", "12", "--val_check_interval", "1", *worse)
    kept = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert best.items() <= kept.items()  # what was best before the resumption still counts


def test_best_follow_the_mode() -> None:
    class Trainer:
        is_global_zero = False
        global_step = 0
        strategy: Any = type("Strategy", (), {"barrier": lambda self, name: None})()

        def save_checkpoint(self, path: Path) -> None: ...

    from vidtok.training.runs.checkpoints import CheckpointConfig

    for mode, expected in (("min", [1.0, 2.0]), ("max", [3.0, 4.0])):
        keep = KeepCheckpoints(Path(), CheckpointConfig(save_top_k=2), "val/psnr", mode)
        trainer: Any = Trainer()
        for step, score in enumerate((3.0, 1.0, 4.0, float("nan"), 2.0)):
            trainer.global_step = step
            keep._keep_if_best(trainer, score)
        assert sorted(keep.best.values()) == expected


def _start(tmp_path: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    arguments = ["-b", str(tmp_path / "tiny.yaml"), "--logdir", str(tmp_path), "-n", name, "--no_date", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def test_decay_ends_with_the_run_however_long_it_becomes(tmp_path: Path) -> None:
    decay = ("model.params.lr_schedule.decay=linear", "model.params.lr_schedule.final=0.5")
    folder = train(write_config(tmp_path), tmp_path, "--max_steps", "2", *decay)
    factors = []
    for options in ([], ["--max_steps", "4"], ["--max_steps", "4", "model.params.lr_schedule.decay_steps=8"]):
        raw = plan_run(parse_arguments(["-r", str(folder), *options])).config.raw
        factors.append(TrainingConfig.from_raw(raw).schedule.factor(2))
    assert factors == [0.5, 0.75, 0.875]


def test_a_trial_may_end_within_the_warm_up(tmp_path: Path) -> None:
    schedule = ("model.params.lr_schedule.decay=linear", "model.params.lr_schedule.warmup_steps=3")
    arguments = ["-b", str(write_config(tmp_path)), "--max_steps", "2", *schedule]
    rate = TrainingConfig.from_raw(plan_run(parse_arguments(arguments)).config.raw).schedule
    assert [rate.factor(step) for step in range(2)] == [0.25, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, number: signal.Signals, code: int, send: Callable[[int, int], None]
) -> None:
    """The process that trains alone is sent the signal, or its data worker as well."""
    write_config(tmp_path, adversarial=True)
    options = ("--max_steps", "60", EMA, "data.params.num_workers=1")
    assert _start(tmp_path, "whole", *options).wait() == 0
    process = _start(tmp_path, "killed", *options)
    while not list((tmp_path / "killed" / "checkpoints").glob("step=00000001*.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    send(process.pid, number)
    assert process.wait() == code
    reached = last(tmp_path / "killed")["global_step"]
    assert 10 <= reached < 60
    assert _start(tmp_path, "killed", *options).wait() == 0
    assert differing(last(tmp_path / "whole"), last(tmp_path / "killed")) == []
