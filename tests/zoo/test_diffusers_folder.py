"""Folders of diffusers' `AutoencoderVidTok`, written and read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support import make_clip, small_model
from vidtok import CheckpointError, ConfigError, FSQConfig, Tokenizer, load
from vidtok.cli import main
from vidtok.zoo.diffusers_format import from_diffusers, to_diffusers
from vidtok.zoo.folder import read_folder, save_diffusers_folder

KL = "vidtok_kl_causal_488_16chn_v1_1"
FSQ = "vidtok_fsq_causal_488_32768_v1_1"
OTHERS = ("vidtok_kl_causal_288_8chn_v1_1", "vidtok_fsq_causal_41616_262144_v1_1")


@pytest.mark.parametrize("name", [KL, FSQ, *OTHERS])
def test_diffusers_gives_the_same(name: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    ours = small_model(name)
    folder = save_diffusers_folder(tmp_path / name, ours.config, ours.named_weights())
    theirs = diffusers.AutoencoderVidTok.from_pretrained(folder)
    back = load(folder)
    assert back.config == ours.config
    assert back.name == name
    video = make_clip(1, 3, 1 + 2 * ours.temporal_factor, 32, 48)
    # The published padding in front, which `encode` of that class leaves to the caller.
    front = video[:, :, :1].expand(-1, -1, ours.temporal_factor - 1, -1, -1)
    encoded = theirs.encode(torch.cat([front, video], 2))
    z, log = back.encode(video, True, sample=False)
    if ours.regularization.discrete:
        assert torch.equal(encoded[1], log["indices"])
    else:
        assert (encoded.latent_dist.mode() - z).abs().max() < 1e-4
    assert (theirs.decode(z) - back.decode(z)).abs().max() < 1e-4


def test_a_folder_of_theirs_is_read(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderVidTok(ch=8, z_channels=6, double_z=False, regularizer="fsq").eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert ours.codebook_size == 8**6
    assert ours.name == "theirs"
    video = make_clip(1, 3, 5, 16, 16)
    reconstruction = theirs(video).sample
    assert (reconstruction - ours(video)[1]).abs().max() < 1e-4


def test_the_configuration_goes_both_ways() -> None:
    for name in (KL, FSQ):
        config = small_model(name, dropout=0.1).config
        assert from_diffusers(to_diffusers(config)) == config
    assert from_diffusers({}).z_channels == 4  # that class's defaults


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vidtok_kl_causal_488_4chn", {}, r"of version 1.0 or not causal.*\(temporal_padding is 'zeros'\)"),
        ("vidtok_kl_noncausal_488_4chn", {}, r"of version 1.0 or not causal.*\(temporal_padding is 'both_sides'\)"),
        (KL, {"interpolation": "nearest"}, "repeats frames where that class interpolates"),
        (KL, {"norm_type": "groupnorm", "ch": 32}, "another norm than layernorm"),
        (KL, {"patch_size": 2}, r"takes patches of pixels.*\(patch_size is 2\)"),
        (KL, {"block_transform": True}, "a block transform beside the network"),
        (FSQ, {"bottleneck": FSQConfig(levels=(8, 8, 8, 8, 4))}, r"levels \[8, 8, 8, 8, 4\]; that class has 8"),
    ],
)
def test_others_are_refused_with_the_reason(name: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    config = dataclasses.replace(small_model(name).config, **changes)
    with pytest.raises(ConfigError, match=reason):
        save_diffusers_folder(tmp_path / "out", config, {})
    assert not (tmp_path / "out").exists()


def test_other_families_are_refused(tmp_path: Path) -> None:
    from twin import tiny_twin

    with pytest.raises(ConfigError, match="the family vidtwin; AutoencoderVidTok has vidtok alone"):
        save_diffusers_folder(tmp_path / "out", tiny_twin().config, {})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"_class_name": "AutoencoderKLWan"}, "_class_name is 'AutoencoderKLWan'; expected 'AutoencoderVidTok'"),
        ({}, "_class_name is None"),
        ({"_class_name": "AutoencoderVidTok", "chs": 3}, "AutoencoderVidTok has no argument 'chs'"),
        ({"_class_name": "AutoencoderVidTok", "is_causal": False}, "is_causal is False; expected true"),
        ({"_class_name": "AutoencoderVidTok", "regularizer": "vq"}, "regularizer is 'vq'; expected 'kl' or 'fsq'"),
        ({"_class_name": "AutoencoderVidTok", "double_z": False}, "double_z is False; expected True"),
        (
            {"_class_name": "AutoencoderVidTok", "regularizer": "fsq", "double_z": False, "codebook_size": 512},
            "config.json: codebook_size is 512 and z_channels 4",
        ),
        ({"_class_name": "AutoencoderVidTok", "regularizer": "fsq", "double_z": False}, "codebook_size is 262144"),
        ({"_class_name": "AutoencoderVidTok", "z_channels": 10**9}, "z_channels is 1000000000"),
        ({"_class_name": "VidTokVAE"}, "tokenizer is None; expected a model's configuration with model_type 'vidtok'"),
        ({"_class_name": "VidTokVAE", "tokenizer": {"model_type": "vidtok", "name": 3}}, "tokenizer.name is 3"),
        ({"_class_name": "VidTokVAE", "tokenizer": {"model_type": "vidtok", "name": "", "x": 1}}, "'?x'?"),
    ],
)
def test_malformed_configurations(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=reason):
        read_folder(tmp_path)


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = Tokenizer(small_model(KL, ch=4).config, name="mine")
    ours.save_pretrained(tmp_path / "mine")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "mine"), str(out), "--format", "diffusers", "--dtype", "bfloat16"]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert load(out, dtype=torch.bfloat16).z_channels == 16
    assert main(["export", str(out), str(tmp_path / "back")]) == 0
    assert load(tmp_path / "back").config == ours.config
    capsys.readouterr()
    assert main(["export", str(tmp_path / "mine"), str(out), "--format", "diffusers", "--dtype", "int8"]) == 2
    assert "--dtype is int8, which only this package reads" in capsys.readouterr().err
    old = small_model("vidtok_kl_causal_488_4chn").save_pretrained(tmp_path / "old")
    assert main(["export", str(old), str(tmp_path / "new"), "--format", "diffusers"]) == 2
    assert "the model is of version 1.0 or not causal" in capsys.readouterr().err
    (out / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(out)
