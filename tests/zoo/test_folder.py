import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from vidtok.config.read import read_config
from vidtok.config.registry import models
from vidtok.errors import CheckpointError, ConfigError
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.zoo import folder as folder_module
from vidtok.zoo.checkpoint import read_checkpoint
from vidtok.zoo.folder import read_folder, save_folder

CONFIG = read_config("vidtok_fsq_causal_488_4096").model


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"encoder.weight": torch.randn(3, 2), "decoder.weight": torch.randn(2)}


@pytest.mark.parametrize("name", list(models()))
def test_every_configuration_survives(tmp_path: Path, name: str) -> None:
    config = read_config(name).model
    save_folder(tmp_path / "model", config, {}, name)
    read, read_name, weights, *_ = read_folder(tmp_path / "model")
    assert (read, read_name) == (config, name)
    assert weights == (tmp_path / "model" / "model.safetensors",)


def test_weights_survive_whatever_their_memory(tmp_path: Path) -> None:
    whole = torch.randn(4, 3)
    state = {
        "whole": whole,
        "again": whole,
        "view": whole[1],
        "turned": whole.T,
        "spread": torch.ones(1).expand(5),
        "half": whole.half(),
        "empty": torch.zeros(0),
        "last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    save_folder(tmp_path / "model", CONFIG, state, "mine")
    read = read_checkpoint(read_folder(tmp_path / "model").files[0])
    assert set(read) == set(state)
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in state.items())
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_folder_is_whole_and_readable_and_nothing_is_left_beside_it(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    target = tmp_path / "new" / "model"
    assert save_folder(target, CONFIG, state, "mine") == target
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o500 == 0o500
    values = json.loads((target / "config.json").read_text())
    assert (values["model_type"], values["format_version"], values["name"]) == ("vidtok", 1, "mine")


def test_saving_again_replaces_the_model_and_keeps_other_files(tmp_path: Path, state: dict[str, Tensor]) -> None:
    target = save_folder(tmp_path / "model", CONFIG, state, "old")
    (target / "README.md").write_text("about")
    save_folder(target, CONFIG, {"x": torch.ones(1)}, "new")
    assert read_folder(target)[1] == "new"
    assert list(read_checkpoint(target / "model.safetensors")) == ["x"]
    assert (target / "README.md").read_text() == "about"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = save_folder(tmp_path / "model", CONFIG, state, "old")

    def full(path: Path, state: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "_write_weights", full)
    with pytest.raises(CheckpointError, match=r"the model cannot be saved to .*model: No space left on device"):
        save_folder(target, CONFIG, {}, "new")
    with pytest.raises(CheckpointError, match="No space left"):
        save_folder(tmp_path / "other", CONFIG, {}, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_folder(target)[1] == "old"
    assert set(read_checkpoint(target / "model.safetensors")) == set(state)


def test_places_that_cannot_be_written(tmp_path: Path, state: dict[str, Tensor]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file is a file; expected a folder to save the model in"):
        save_folder(tmp_path / "file", CONFIG, state, "mine")
    with pytest.raises(CheckpointError, match=r"the model cannot be saved to .*: (Not a directory|File exists)"):
        save_folder(tmp_path / "file" / "model", CONFIG, state, "mine")


def test_folders_that_are_no_models(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"gone is not a folder; expected one with config\.json and model\.safet"):
        read_folder(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"has no config\.json and no model\.safetensors; expected a model that"):
        read_folder(tmp_path)
    target = save_folder(tmp_path / "model", CONFIG, state, "mine")
    (target / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"model has no model\.safetensors; expected a model that `save_pretrained`"
    ):
        read_folder(target)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        (
            {"model_type": "bert"},
            CheckpointError,
            r"config\.json has model_type 'bert'; expected 'vidtok' or 'vidtwin', as",
        ),
        ({"model_type": ["vidtok"]}, CheckpointError, r"has model_type \['vidtok'\]; expected 'vidtok' or"),
        ({"model_type": "x" * 5000}, CheckpointError, r"has model_type 'x{76}\.\.\.; expected 'vidtok' or"),
        ({"model_type": None}, CheckpointError, r"has model_type None; expected 'vidtok' or"),
        (
            {"format_version": 2},
            CheckpointError,
            r"has format_version 2; this version of the package reads up to 1 \(a new",
        ),
        ({"format_version": "1"}, CheckpointError, r"has format_version '1'; this version"),
        ({"name": 3}, CheckpointError, r"has name 3; expected the model's name"),
        ({"chh": 3}, ConfigError, r"config\.json: chh is not known \(did you mean ch\?\)"),
        ({"ch": "wide"}, ConfigError, r"config\.json: ch is 'wide'; expected a whole number"),
        ({"z_channels": 7}, ConfigError, r"config\.json: z_channels is 7; expected 4, one a level"),
        (
            {"bottleneck": {"kind": "vq"}},
            ConfigError,
            r"config\.json: bottleneck is .*; expected a mapping with kind: kl or",
        ),
    ],
)
def test_a_config_that_cannot_be_used(
    tmp_path: Path, state: dict[str, Tensor], change: dict[str, Any], error: type[Exception], expected: str
) -> None:
    path = save_folder(tmp_path / "model", CONFIG, state, "mine") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=expected):
        read_folder(path.parent)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", r"config\.json is not valid JSON"),
        (b"\xff", r"config\.json is not valid JSON"),
        (b'{"ch": ' + b"9" * 5000 + b"}", r"config\.json is not valid JSON"),
        (b"[" * 100_000, r"config\.json is not valid JSON"),
        (b"[]", r"config\.json holds a list; expected a model's configuration"),
        (b" " * ((1 << 20) + 1), r"config\.json holds 1048577 bytes; a model's configuration is a short file"),
    ],
)
def test_a_config_that_is_no_configuration(
    tmp_path: Path, state: dict[str, Tensor], content: bytes, expected: str
) -> None:
    path = save_folder(tmp_path / "model", CONFIG, state, "mine") / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        read_folder(path.parent)


def test_any_valid_configuration_survives(tmp_path: Path) -> None:
    config = AutoencoderConfig(z_channels=2, ch=32, ch_mult=(1,), dropout=0.1, use_checkpoint=True)
    save_folder(tmp_path / "model", config, {}, "tiny")
    assert read_folder(tmp_path / "model")[0] == config


def test_files_may_be_read_by_whom_the_process_lets(tmp_path: Path, state: dict[str, Tensor]) -> None:
    folder = save_folder(tmp_path / "model", CONFIG, state, "mine")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    plain = tmp_path / "plain"
    plain.touch()
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}
