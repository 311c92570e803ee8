from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vidtok
from tiny import KL_1_1, leftovers, tiny_model
from vidtok import example
from vidtok.cli import main
from vidtok.video import Pixels, probe
from vidtok.zoo import registry


@pytest.fixture(autouse=True)
def _short_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = example.draw_clip

    def short() -> Iterator[Pixels]:
        return draw(6, (24, 32))

    monkeypatch.setattr(example, "draw_clip", short)


def test_without_weights_an_untrained_model_is_used_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "weights_at_hand", lambda entry: None)
    folder = tmp_path / "new" / "example"
    assert main(["example", "--folder", str(folder), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert leftovers(folder) == ["clip.mp4", "reconstructed.mp4", "untrained"]
    assert str(folder / "reconstructed.mp4") in captured.out
    assert "No trained weights are on this machine" in captured.out
    assert captured.err == ""
    info = probe(folder / "reconstructed.mp4")
    assert (info.frame_count, info.width, info.height) == (6, 64, 24)
    assert vidtok.load(folder / "untrained").name == "untrained"


def test_a_model_at_hand_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "weights_at_hand", lambda entry: tmp_path if entry.name == KL_1_1 else None)
    monkeypatch.setattr(vidtok, "load", lambda name, device: tiny_model(name))
    assert main(["example", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert KL_1_1 in out
    assert "untrained" not in out
    assert leftovers(tmp_path) == ["clip.mp4", "reconstructed.mp4"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["example", "--folder", str(tmp_path / "file")]) == 2
    assert "file cannot be made: File exists; choose another folder with --folder" in capsys.readouterr().err


def test_the_untrained_model_is_always_the_same(tmp_path: Path) -> None:
    first, second = (example.save_untrained(tmp_path / name) / "model.safetensors" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
