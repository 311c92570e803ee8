"""`vidtok synthesize`, and that the published evaluation takes what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import inference_evaluate
from tiny import KL_1_0, leftovers, write_model
from vidtok.cli import main

SMALL = ["--clips", "2", "--size", "32", "--frames", "5", "--fps", "10", "--seed", "3"]


def test_clips_are_written_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "clips"
    assert main(["synthesize", str(folder), *SMALL]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{folder}: 2 clips of 5 frames, 32 x 32 pixels, 10 a second, ")
    assert captured.out.endswith(" bytes; meta.csv names them\n")
    assert captured.err == ""
    assert leftovers(folder) == ["000_still.mp4", "001_pan.mp4", "meta.csv"]
    files = write_model(tmp_path, KL_1_0)
    arguments = ["--config", files.config, "--ckpt", files.checkpoint, "--data_dir", folder]
    arguments += ["--meta_path", folder / "meta.csv", "--input_height", 32, "--input_width", 32, "--chunk_size", 4]
    assert inference_evaluate.main([str(argument) for argument in arguments]) == 0
    assert "videos: 2, frames: 10" in capsys.readouterr().out


def test_a_folder_in_use_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.mp4").write_text("")
    assert main(["synthesize", str(tmp_path), *SMALL]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path} is not empty; give a new folder")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--clips", "0"], "--clips"), (["--size", "8"], "--size"), (["--fps", "0"], "rate")]
)
def test_options_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["synthesize", str(tmp_path / "clips"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert leftovers(tmp_path) == []
