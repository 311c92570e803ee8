from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vidtok
from tiny import KL_1_0, ONE_THREAD, leftovers, write_model, write_video
from vidtok.cli import main
from vidtok.cli.guard import guarded

_HEAVY = ("torch", "av", "lightning", "matplotlib", "gradio", "ray")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vidtok", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["reconstruct", "--help"], ["models"]])
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    code = (
        "import sys; from vidtok.cli import main; "
        f"assert main({arguments!r}) == 0; assert not {{*{_HEAVY!r}}} & {{*sys.modules}}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_version_and_help() -> None:
    assert run("--version").stdout == f"vidtok {vidtok.__version__}\n"
    text = run("-h").stdout
    for command in ("reconstruct", "models", "example"):
        assert command in text
    text = run("reconstruct", "-h").stdout
    for option in (
        "--output", "--model", "--checkpoint", "--height", "--width", "--size", "--fps", "--start", "--max-frames",
        "--side-by-side", "--device", "--dtype", "--chunk-frames", "--allow-truncated", "--tile", "--tile-overlap",
        "--max-memory",
    ):  # fmt: skip
        assert option in text


def test_unknown_options_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err
    assert main(["recontruct"]) == 2
    assert "recontruct" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_an_error_without_traceback() -> None:
    for arguments in ["models"], ["--help"]:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "vidtok", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
            )
        expected = "error: the output cannot be written: No space left on device; send it elsewhere\n"
        assert (done.returncode, done.stderr) == (2, expected)


def test_other_errors_of_the_system_are_raised() -> None:
    def fail() -> None:
        raise OSError("a defect")

    with pytest.raises(OSError, match="a defect"):
        guarded(fail)


def test_a_reader_that_has_gone_is_no_error() -> None:
    for arguments in ["models"], ["--help"]:
        with subprocess.Popen(
            [sys.executable, "-m", "vidtok", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    files = write_model(tmp_path, KL_1_0)
    video = write_video(tmp_path / "in.mp4", 2000, 16, 16)
    results = tmp_path / "results"
    results.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "vidtok", "reconstruct", video, "-o", results / "out.mp4", *files.options,
         "--chunk-frames", "1"],
        env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while process.poll() is None and not leftovers(results):
            time.sleep(0.01)
        assert leftovers(results) != ["out.mp4"]
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == code
    assert (out, err) == (b"", b"")
    assert leftovers(results) == []


def _raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_paths_that_the_system_refuses_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a" * 300
    for arguments in (
        ["reconstruct", long, "-o", str(tmp_path / "o.mp4"), "-m", "vidtok_kl_causal_488_16chn_tiny"],
        ["decode", long, "-o", str(tmp_path / "o.mp4"), "-m", "vidtok_kl_causal_488_16chn_tiny"],
        ["synthesize", str(tmp_path / long), "--clips", "1"],
        ["models", "show", long],
        ["evaluate", long, "-b", "pca"],
    ):
        assert main(arguments) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert f"{long}: File name too long; give a shorter name\n" in printed
    assert guarded(_raising(PermissionError(errno.EACCES, "Permission denied", "locked/a.mp4"))) == 2
    said = "error: locked/a.mp4: Permission denied; check the permissions of it and of the folders above it\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert guarded(lambda: None) == 0
    assert guarded(_raising(vidtok.VidTokError("what is wrong; what to do"))) == 2
    assert capsys.readouterr().err == "error: what is wrong; what to do\n"
    assert guarded(_raising(KeyboardInterrupt())) == 130
    assert guarded(_raising(BrokenPipeError())) == 1
    assert guarded(_raising(SystemExit())) == 0
    assert guarded(_raising(SystemExit(7))) == 7
    assert capsys.readouterr().err == ""
    assert guarded(_raising(SystemExit("in words"))) == 1
    assert capsys.readouterr().err == "in words\n"
    with pytest.raises(ZeroDivisionError):
        guarded(_raising(ZeroDivisionError()))
    for defect in (FileNotFoundError(errno.ENOENT, "No such file", "a"), OSError(errno.EACCES, "no file is named")):
        with pytest.raises(OSError, match=str(defect.strerror)):
            guarded(_raising(defect))
    assert guarded(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert signal.getsignal(signal.SIGTERM) is before
