"""Commands that are killed at any moment leave whole files, or none, and the next run cleans up and finishes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tests.training.run_files import write_config

from tiny import FSQ_1_0, ONE_THREAD, write_model, write_video
from vidtok.evaluation.results import Result
from vidtok.tokens import TokenFile
from vidtok.video import read_video

ROOT = Path(__file__).parents[2]
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_FRAMES = 120


class Command(NamedTuple):
    """A command to kill."""

    words: tuple[str | Path, ...]
    folder: Path
    """Of what it writes."""
    check: Callable[[Path], None]
    """Raises an exception for a file that is not whole."""


def commands(folder: Path) -> dict[str, Command]:
    """Each of the commands that write for a while, with its input below `folder`."""
    files = write_model(folder, FSQ_1_0)
    video = write_video(folder / "clip.mp4", _FRAMES, 48, 48)
    (folder / "tree").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / "tree" / name).write_bytes(video.read_bytes())
    model = ("-m", files.config, "--checkpoint", files.checkpoint)
    out = {name: folder / name for name in ("encoded", "reconstructed", "logs", "results")}
    for path in out.values():
        path.mkdir()
    training = ("--logdir", out["logs"], "--max_steps", "12", "--no_date")
    return {
        "encode": Command(
            ("encode", folder / "tree", "-o", out["encoded"], *model, "--size", "48"), out["encoded"], _whole_tokens
        ),
        "reconstruct": Command(
            ("reconstruct", video, "-o", out["reconstructed"] / "o.mp4", *model, "--size", "48"),
            out["reconstructed"],
            _whole_video,
        ),
        "train": Command(("train", write_config(folder), *training), out["logs"], _whole_of_a_run),
        "evaluate": Command(
            (
                "evaluate",
                folder / "tree",
                "-m",
                f"{files.config}={files.checkpoint}",
                "-b",
                "h264",
                "--size",
                "48",
                "--max-frames",
                "12",
                "-o",
                out["results"],
            ),
            out["results"],
            _whole_result,
        ),
    }


def _whole_tokens(path: Path) -> None:
    if path.suffix == ".vtok":
        with TokenFile(path) as file:
            assert file.complete
            assert file.frames == _FRAMES
            assert file.damages() == []


def _whole_video(path: Path) -> None:
    assert len(read_video(path)) == _FRAMES


def _whole_of_a_run(path: Path) -> None:
    if path.suffix == ".ckpt":
        assert "state_dict" in torch.load(path, weights_only=True)
    elif path.parent.name == "configs":
        assert "lightning:" in path.read_text()


def _whole_result(path: Path) -> None:
    if path.suffix == ".json":
        Result.read(path)
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")


def start(command: Command) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "vidtok", *map(str, command.words)]
    return subprocess.Popen(words, cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(command: Command) -> None:
    """Run the command to its end; nothing is left beside what it writes."""
    process = start(command)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    hidden = [path for path in files(command) if path.name.startswith(".") or path.suffix == ".part"]
    assert hidden == []


def files(command: Command) -> list[Path]:
    return sorted(path for path in command.folder.rglob("*") if path.is_file())


def forget(command: Command, draw: random.Random) -> None:
    """Remove some of what was written, so that there is work again: of a run, the whole folder."""
    if command.words[0] == "train":
        if draw.random() < 0.7:
            for folder in filter(Path.is_dir, command.folder.iterdir()):
                shutil.rmtree(folder)
        return
    for path in files(command):
        if draw.random() < 0.7:
            path.unlink()


def began(command: Command, process: subprocess.Popen[bytes]) -> None:
    """Wait until the command writes, or ends."""
    before = set(files(command))
    while process.poll() is None and set(files(command)) == before:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("kills", [range(0, 13), range(13, 25)], ids=["first", "second"])
@pytest.mark.parametrize("name", ["encode", "reconstruct", "train", "evaluate"])
def test_a_hundred_kills(name: str, kills: range, tmp_path: Path) -> None:
    command = commands(tmp_path)[name]
    process = start(command)
    began(command, process)
    writing = time.perf_counter()
    assert process.wait(timeout=120) == 0
    length = time.perf_counter() - writing
    for path in files(command):
        command.check(path)
    for number in kills:
        draw = random.Random(f"{name} {number}")
        forget(command, draw)
        sent = draw.choice(_SIGNALS)
        process = start(command)
        began(command, process)
        time.sleep(draw.uniform(0, length))
        process.send_signal(sent)
        stopped = time.perf_counter()
        _, err = process.communicate(timeout=60)
        assert time.perf_counter() - stopped < 10
        assert process.returncode in (0, -sent, 128 + sent, 130), err.decode()
        assert "Traceback" not in err.decode()
        assert "terminate" not in err.decode()
        for path in files(command):
            if not path.name.startswith(".") and path.suffix != ".part":
                command.check(path)
            else:
                assert sent == signal.SIGKILL or path.suffix == ".part", path
    finish(command)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_two_encodings_of_one_tree_at_once(tmp_path: Path) -> None:
    command = commands(tmp_path)["encode"]
    both = [start(command), start(command)]
    said = [process.communicate(timeout=120)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [path.name for path in files(command)] == ["a.mp4.vtok", "b.mp4.vtok"]
    for path in files(command):
        command.check(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_two_trainings_of_one_name_at_once(tmp_path: Path) -> None:
    command = commands(tmp_path)["train"]
    command = command._replace(words=tuple(word for word in command.words if word != "--no_date"))
    both = [start(command), start(command)]
    said = {process.communicate(timeout=120)[1].decode(): process.returncode for process in both}
    assert sorted(said.values()) == [0, 2], said
    (refusal,) = [text for text, code in said.items() if code == 2]
    assert "is training in" in refusal or "has just been made" in refusal
    assert len([path for path in command.folder.iterdir() if path.is_dir()]) == 1
