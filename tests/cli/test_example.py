from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny import leftovers
from vidtok.cli import main
from vidtok.config import registry
from vidtok.synthetic import example
from vidtok.video import Pixels, probe


@pytest.fixture(autouse=True)
def _short_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = example.draw_clip

    def short() -> Iterator[Pixels]:
        return draw(6, (24, 32))

    monkeypatch.setattr(example, "draw_clip", short)


def test_the_model_that_comes_with_the_package_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "example"
    assert main(["example", "--folder", str(folder), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert leftovers(folder) == ["clip.mp4", "reconstructed.mp4"]
    assert str(folder / "reconstructed.mp4") in captured.out
    assert registry.SHIPPED[0] in captured.out
    assert captured.err == ""
    info = probe(folder / "reconstructed.mp4")
    assert (info.frame_count, info.width, info.height) == (6, 64, 24)


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["example", "--folder", str(tmp_path / "file")]) == 2
    assert "file cannot be made: File exists; choose another folder with --folder" in capsys.readouterr().err
