"""Weights in 8 bits: how far they are off, how small they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import vidtok
from support import make_clip, small_config
from vidtok import Tokenizer
from vidtok.cli.app import main
from vidtok.errors import CheckpointError
from vidtok.zoo.checkpoint import read_checkpoint
from vidtok.zoo.int8 import quantized, restored

KL = "vidtok_kl_causal_488_4chn_v1_1"


@given(st.integers(1, 5), st.integers(1, 7), st.floats(1e-30, 1e30), st.integers(0, 2**31))
def test_weights_are_off_by_half_a_step_at_most(rows: int, columns: int, size: float, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    stored = quantized({"a.weight": weight})
    assert stored["a.weight"].dtype == torch.int8
    back = restored(stored, "here")["a.weight"]
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((back - weight).abs() <= 0.501 * step).all()


def test_what_is_no_matrix_stays(tmp_path: Path) -> None:
    state = {
        "bias": torch.randn(3),
        "count": torch.tensor([[1, 2]]),
        "zeros": torch.zeros(2, 2),
        "scale": torch.ones(2),
    }
    stored = quantized(state)
    assert set(stored) == {*state, "zeros.scale"}
    back = restored(stored, "here")
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_model_in_8_bits_is_a_quarter_and_loads_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    Tokenizer(small_config(KL, ch=32), name="small").save_pretrained(tmp_path / "whole")
    assert main(["export", str(tmp_path / "whole"), str(tmp_path / "int8"), "--dtype", "int8"]) == 0
    before = (tmp_path / "int8" / "model.safetensors").read_bytes()
    assert main(["export", str(tmp_path / "int8"), str(tmp_path / "int8")]) == 2
    assert (tmp_path / "int8" / "model.safetensors").read_bytes() == before
    assert "small, weights of" in capsys.readouterr().out
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("whole", "int8")]
    assert sizes[1] < 0.3 * sizes[0]
    whole, narrow = (vidtok.load(tmp_path / folder) for folder in ("whole", "int8"))
    assert narrow.name == "small"
    assert narrow.dtype == torch.float32
    video = make_clip(1, 3, 5, 24, 24)
    with torch.no_grad():
        expected, found = (model(video, sample=False)[1] for model in (whole, narrow))
    assert 0 < (found - expected).square().mean() < 3e-3 * expected.var()
    assert vidtok.load(tmp_path / "int8", dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "scale", [None, torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.int32)], ids=["none", "3", "2x1", "int"]
)
def test_refuses_8_bits_without_their_factors(tmp_path: Path, scale: torch.Tensor | None) -> None:
    state = {"conv.weight": torch.ones(2, 3, dtype=torch.int8)}
    save_file(state | ({} if scale is None else {"conv.weight.scale": scale}), tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"conv.weight in int8, and no factor for each of its 2 channels as"):
        read_checkpoint(tmp_path / "odd.safetensors")
