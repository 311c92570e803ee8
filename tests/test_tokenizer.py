"""Loading by name, YAML file, folder and checkpoint; saving; and every way in which that can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vidtok
import vidtok.config.read
from support import make_clip, small_model
from tiny import FSQ_1_1, tiny_model
from vidtok import CheckpointError, ConfigError, Tokenizer

KL = "vidtok_kl_causal_488_4chn_v1_1"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(f"base: {KL}\nmodel:\n  params:\n    encoder_config:\n      params:\n        ch: 8\n")
    return path


@pytest.fixture
def model() -> Tokenizer:
    return small_model(KL)


def test_yaml_and_checkpoint(tmp_path: Path, yaml_file: Path, model: Tokenizer) -> None:
    checkpoint = tmp_path / "model.ckpt"
    extra = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.tensor(0.9)}
    torch.save({"state_dict": {**model.state_dict(), **extra}, "epoch": 3}, checkpoint)
    loaded = vidtok.load(yaml_file, checkpoint)
    assert loaded.name == "small"
    assert not loaded.training
    video = make_clip(1, 3, 5, 16, 16)
    assert torch.equal(loaded.encode(video, sample=False), model.encode(video, sample=False))


def test_name_and_checkpoint(tmp_path: Path) -> None:
    """A checkpoint at full width, by name, in each file format; on loading, nothing is built that is not needed."""
    with torch.device("meta"):
        shapes = Tokenizer(vidtok.config.read.read_config(KL).model).state_dict()
    state = {name: torch.full(value.shape, 0.01) for name, value in shapes.items()}
    checkpoint = tmp_path / "model.safetensors"
    save_file(state, checkpoint)
    loaded = vidtok.load(KL, checkpoint, dtype=torch.bfloat16)
    assert loaded.name == KL
    assert loaded.dtype == torch.bfloat16
    assert {name: value.shape for name, value in loaded.state_dict().items()} == {
        name: value.shape for name, value in shapes.items()
    }


def test_saved_folder_loads_back(tmp_path: Path, model: Tokenizer) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for loaded in (vidtok.load(folder), Tokenizer.from_pretrained(str(folder))):
        assert loaded.config == model.config
        assert loaded.name == model.name
        state = model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_half_precision_folder_loads_as_float32_unless_asked(tmp_path: Path, model: Tokenizer) -> None:
    folder = model.half().save_pretrained(tmp_path / "half")
    assert vidtok.load(folder).dtype == torch.float32
    assert vidtok.load(folder, dtype=torch.float16).dtype == torch.float16


def test_compiled_parts_save_under_published_names(tmp_path: Path, model: Tokenizer) -> None:
    names = set(model.state_dict())
    model.encoder = torch.compile(model.encoder)
    folder = model.save_pretrained(tmp_path / "compiled")
    assert set(vidtok.load(folder).state_dict()) == names


def test_folder_takes_another_checkpoint(tmp_path: Path, model: Tokenizer) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    other = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    torch.save(other, tmp_path / "other.pt")
    assert not vidtok.load(folder, tmp_path / "other.pt").encoder.conv_in.conv.weight.any()


def test_unknown_name_is_told_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="vidtok_kl_causal_488_4chn"):
        vidtok.load("vidtok_kl_causal_488_4ch")
    with pytest.raises(ConfigError, match="the model's name is empty"):
        vidtok.load("")


def test_yaml_with_random_weights(yaml_file: Path, model: Tokenizer) -> None:
    assert Tokenizer.from_config(yaml_file).config == model.config
    assert Tokenizer.from_config(yaml_file).name == "small"


def test_device_and_dtype_that_cannot_be(tmp_path: Path, model: Tokenizer) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    with pytest.raises(vidtok.VidTokError, match="device 'cuda:77' cannot be used"):
        vidtok.load(folder, device="cuda:77")
    for dtype in ("float16", torch.int8):
        with pytest.raises(ConfigError, match=r"expected torch\.float32"):
            vidtok.load(folder, dtype=dtype)


def test_yaml_without_weights(yaml_file: Path) -> None:
    with pytest.raises(CheckpointError, match="names no weights"):
        vidtok.load(yaml_file)


def test_yaml_names_its_weights(tmp_path: Path, yaml_file: Path, model: Tokenizer) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    text = yaml_file.read_text().replace("  params:\n", f"  params:\n    ckpt_path: {tmp_path / 'model.pt'}\n", 1)
    yaml_file.write_text(text)
    assert vidtok.load(yaml_file).config == model.config


def test_checkpoint_in_the_place_of_a_model(tmp_path: Path, model: Tokenizer) -> None:
    torch.save(model.state_dict(), tmp_path / "model.ckpt")
    with pytest.raises(ConfigError, match="give a checkpoint with the name or YAML file of its model"):
        vidtok.load(tmp_path / "model.ckpt")


def test_missing_checkpoint(yaml_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt does not exist"):
        vidtok.load(yaml_file, "nowhere.ckpt")


def test_another_models_checkpoint(tmp_path: Path, yaml_file: Path) -> None:
    torch.save(small_model("vidtok_fsq_causal_888_32768_v1_1").state_dict(), tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"unexpected.*misshapen"):
        vidtok.load(yaml_file, tmp_path / "other.ckpt")


def test_nan_weights(tmp_path: Path, yaml_file: Path, model: Tokenizer) -> None:
    state = model.state_dict()
    state["decoder.conv_in.conv.bias"][0] = torch.nan
    torch.save(state, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match=r"NaN.*decoder\.conv_in\.conv\.bias"):
        vidtok.load(yaml_file, tmp_path / "nan.ckpt")


def test_offline_name_says_how_to_get_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"import vidtok\ntry: vidtok.load({KL!r})\nexcept vidtok.CheckpointError as error: print(error)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert KL in shown.stdout
    assert "--checkpoint PATH" in shown.stdout
    assert "huggingface.co/microsoft/VidTok" in shown.stdout


@pytest.mark.parametrize("module", ["lightning", "av", "matplotlib", "gradio", "ray", "torch"])
def test_importing_the_package_is_cheap(module: str) -> None:
    script = f"import sys, vidtok; raise SystemExit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_subpackages_are_reached_from_the_package() -> None:
    script = "import vidtok; vidtok.video.read_video"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_public_names_exist() -> None:
    for name in vidtok.__all__:
        assert getattr(vidtok, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vidtok.nothing


def test_indices_to_codes_is_the_published_name() -> None:
    model = tiny_model(FSQ_1_1)
    _, log = model.encode(make_clip(1, 3, 9, 16, 16), True)
    codes = model.regularization.indices_to_codes(log["indices"])
    assert torch.equal(codes, model.regularization.decode_indices(log["indices"]))
    assert torch.equal(model.decode(codes), model.decode(log["indices"], decode_from_indices=True))


@pytest.mark.parametrize("source", ["vidtok_kl_causal_488_16chn_tiny", "folder"])
def test_a_revision_is_of_a_hub_repository(source: str, tmp_path: Path) -> None:
    if source == "folder":
        source = str(tiny_model(FSQ_1_1).save_pretrained(tmp_path / "folder"))
    with pytest.raises(ConfigError, match=r"revision is 'v2', but .* is no Hub repository OWNER/NAME; leave it out"):
        vidtok.load(source, revision="v2")


def test_an_upload_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.create_repo", _refuse)
    with pytest.raises(CheckpointError, match=r"could not be uploaded to 'someone/model' on the Hub: refused; log in"):
        tiny_model(FSQ_1_1).push_to_hub("someone/model")


def _refuse(*args: object, **options: object) -> None:
    raise OSError("refused")
