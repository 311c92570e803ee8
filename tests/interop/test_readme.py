"""The README's section "In your pipeline", run as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from support import TESTS
from tiny import write_video
from vidtok.cli import main

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vidtok[diffusers]'")
pytest.importorskip("transformers")

_README = (TESTS.parent / "README.md").read_text(encoding="utf-8")
_SECTION = _README.split("## In your pipeline\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _SECTION, re.DOTALL | re.MULTILINE)


def test_python() -> None:
    (block,) = blocks("python")
    torch.manual_seed(0)
    names = {
        "transformer": diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
            text_dim=16, freq_dim=32, ffn_dim=24, num_layers=1, rope_max_seq_len=32,
        ).eval(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        "prompt": torch.randn(1, 8, 16),
        "no_prompt": torch.randn(1, 8, 16),
    }  # fmt: skip
    block = block.replace("num_frames=9", "num_frames=9, num_inference_steps=1")
    exec(compile(block, "README.md", "exec"), names)
    assert np.asarray(names["frames"]).shape == (1, 9, 32, 64, 3)


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4", 5, 32, 32)
    (block,) = blocks("bash")
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "vidtok"
            small = ["--size", "32"] if words[1] == "evaluate" else []
            assert main([*words[1:], *small]) == 0
    assert (tmp_path / "compared" / "report.html").exists()
