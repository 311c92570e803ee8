"""`vidtok tokenize`: its summary, exit codes, and messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.datasets.inline import work_inline

from tiny import FSQ_1_0, write_model, write_video
from vidtok.cli import main
from vidtok.datasets import TokenDataset


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch)


def test_a_folder_and_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path, FSQ_1_0)
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in/a.mp4", 36, 32, 32)
    write_video(tmp_path / "in/short.mp4", 5, 32, 32)
    out = tmp_path / "out"
    command = ["tokenize", str(tmp_path / "in"), "-o", str(out), *model.options, "--size", "32", "--device", "cpu"]
    assert main([*command, "--clip-frames", "17", "--shard-size", "1MB", "--shard", "0/1"]) == 0
    said = capsys.readouterr()
    assert "inputs   2 of 2 of part 0/1 done" in said.out
    assert "records  2 new, 34 frames" in said.out
    assert "empty    1 input" in said.out
    assert "2 inputs, 2 of them new" in said.err
    assert len(TokenDataset(out)) == 2
    assert main(["tokenize", "-o", str(out), *model.options, "--size", "32", "--device", "cpu"]) == 2
    assert "was begun otherwise (clip_frames was 17, is nothing" in capsys.readouterr().err.replace("None", "nothing")
    (tmp_path / "in/bad.mp4").write_text("no video")
    assert main([*command, "--clip-frames", "17", "--shard-size", "1MB", "--max-failures", "5"]) == 2
    err = capsys.readouterr().err
    assert "1 input could not be tokenized" in err
    assert "bad.mp4" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "3/3"], "--shard is '3/3'; expected i/n with i from 0 to n - 1"),
        (["--shard-size", "big"], "--shard-size is 'big'; expected a size such as 256MB"),
        (["--stride", "3"], "stride is 3, but videos are not cut"),
        (["--address", "auto"], "address is auto, but the engine is local"),
        (["no.mp4", "--sink", "bin"], "the sink bin holds tokens alone"),
        (["no.mp4", "--coding", "int8"], "coding is int8; the sink parquet stores latents as"),
        (["no/such/folder"], "there is no input no/such/folder"),
        ([], "has no plan to go on with; give inputs"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenize", "-o", str(tmp_path / "out"), "-m", "vidtok_kl_causal_488_16chn_tiny", "--device", "cpu"]
    assert main([*command, *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
