"""The scripts of examples/, shortened. `tests/interop/test_export.py` runs `decode_onnx.py`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from support import TESTS
from tiny import FSQ_1_0, tiny_model, write_video
from vidtok.jobs import EncodeOptions, encode_file
from vidtok.video import read_video


@pytest.mark.gradients
def test_a_next_token_model_is_trained_and_its_samples_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(FSQ_1_0)
    folder = model.save_pretrained(tmp_path / "model")
    (tmp_path / "tokens").mkdir()
    encode_file(model, write_video(tmp_path / "in.mp4", 33, 16, 24), tmp_path / "tokens" / "a.vtok", EncodeOptions())
    arguments = [
        tmp_path / "tokens",
        tmp_path / "out",
        "--model",
        folder,
        "--frames",
        "2",
        "--steps",
        "3",
        "--batch",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["generate.py", *map(str, arguments)])
    state = torch.get_rng_state()
    runpy.run_path(str(TESTS.parent / "examples" / "generate.py"), run_name="__main__")
    torch.set_rng_state(state)
    assert "5 windows of 12 tokens" in capsys.readouterr().out
    assert read_video(tmp_path / "out" / "sheet.png").shape == (1, 4 * 16, 3 * 5 * 24, 3)
    assert read_video(tmp_path / "out" / "11.mp4").shape == (5, 16, 24, 3)
