from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from vidtok.cli import main
from vidtok.config import registry
from vidtok.config.read import read_config

_read_config = cache(read_config)
_VIDTWIN = "vidtwin_structure_7_7_8_dynamics_7_8"


@pytest.fixture(autouse=True)
def _some_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model's weights are at hand, whatever this machine has."""

    def at_hand(entry: registry.ModelEntry) -> Path | None:
        return Path("/cache/weights.ckpt") if entry.name == "vidtok_kl_causal_488_8chn" else None

    monkeypatch.setattr("vidtok.zoo.weights.weights_at_hand", at_hand)


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's configurations are read once for all tables: each is several files, one over the other."""
    monkeypatch.setattr("vidtok.config.read.read_config", _read_config)


def test_a_table_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header[:4] == ["name", "TxHxW", "latent", "version"]
    assert [row[0] for row in rows] == list(registry.models())
    assert rows[0] == [
        "vidtok_kl_causal_488_4chn", "4x8x8", "4 channels", "1.0", "29.64", "0.852", "0.114", "194.2", "no",
    ]  # fmt: skip
    by_name = {row[0]: row for row in rows}
    assert by_name["vidtok_kl_causal_488_8chn"][-1] == "yes: /cache/weights.ckpt"
    assert by_name["vidtok_kl_causal_288_8chn_v1_1"][1:4] == ["2x8x8", "8 channels", "1.1"]
    assert by_name["vidtok_fsq_causal_41616_262144_v1_1"][1:] == [
        "4x16x16", "262,144 codes", "1.1", "-", "-", "-", "-", "no",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", ["60", "80", "160"])
def test_a_table_for_people(columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "\t" not in "".join(lines)
    assert len(lines) == 27
    assert lines[0].split() == ["name", "TxHxW", "latent", "version", "PSNR", "SSIM", "LPIPS", "FVD", "weights"]
    assert lines[1].split() == [
        "vidtok_kl_causal_488_4chn", "4x8x8", "4", "channels", "1.0", "29.64", "0.852", "0.114", "194.2", "no",
    ]  # fmt: skip
    assert "vidtok_fsq_causal_41616_262144_v1_1 " in lines[-4]
    assert lines[-3].split() == [registry.SHIPPED[0], "4x8x8", "16", "channels", "1.1", "-", "-", "-", "-", "no"]
    assert lines[-1].split()[:6] == [_VIDTWIN, "16x224x224", "8,064", "values", "1.0", "28.14"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) == 26
    assert entries[_VIDTWIN]["streams"] == [
        {"name": "structure", "channels": 8, "positions": [16, 7, 7]},
        {"name": "dynamics_x", "channels": 8, "positions": [16, 7]},
        {"name": "dynamics_y", "channels": 8, "positions": [16, 7]},
    ]
    fsq = entries["vidtok_fsq_causal_888_32768_v1_1"]
    assert fsq["compression"] == [8, 8, 8]
    assert (fsq["bottleneck"], fsq["codebook_size"], fsq["causal"]) == ("fsq", 32768, True)
    assert (fsq["psnr"], fsq["fvd"], fsq["weights"]) == (27.95, 293.2, None)
    assert fsq["hub_file"] == "checkpoints/vidtok_v1_1/vidtok_fsq_causal_888_32768_v1_1.ckpt"
    kl = entries["vidtok_kl_causal_488_8chn"]
    assert (kl["channels"], kl["codebook_size"], kl["weights"]) == (8, None, "/cache/weights.ckpt")
    assert entries["vidtok_kl_noncausal_488_4chn"]["causal"] is False


def test_show_prints_the_whole_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["models", "show", "vidtok_fsq_causal_488_4096"]) == 0
    text = capsys.readouterr().out
    whole = yaml.safe_load(text)
    assert set(whole) == {"model", "data", "lightning"}
    assert whole["model"]["params"]["regularizer_config"]["params"]["levels"] == [8, 8, 8, 8]
    (tmp_path / "own.yaml").write_text(text)
    assert main(["models", "show", str(tmp_path / "own.yaml")]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == whole


def test_show_of_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "vidtok_kl_causal_488_4ch"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: 'vidtok_kl_causal_488_4ch' is neither a file nor the name of a model")
    assert "vidtok_kl_causal_488_4chn" in captured.err


def test_a_base_elsewhere_has_to_be_allowed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "above.yaml").write_text("base: vidtok_fsq_causal_488_4096\n")
    own = tmp_path / "one" / "own.yaml"
    own.write_text("base: ../above.yaml\n")
    assert main(["models", "show", str(own)]) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        f"error: {own}: base '../above.yaml' does not lie below the folder of the file that names it; put it "
        f"there, or allow it with --allow-base {tmp_path} (vidtok --allow-base PATH COMMAND)\n"
    )
    assert main(["--allow-base", str(tmp_path), "models", "show", str(own)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]
    assert main(["models", "show", str(own)]) == 2  # for one command
