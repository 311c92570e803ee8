"""Models in parts, and decoders of their own: saved, loaded, told apart, behind token files and in evaluations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import vidtok
from support import make_clip
from tiny import FSQ_1_1, KL_1_0, KL_1_1, rows, tiny_model, write_video
from vidtok import Tokenizer, VidTokError
from vidtok.cli import main
from vidtok.errors import CheckpointError, ConfigError
from vidtok.models.decoders.config import DecoderConfig, FastConfig, PreviewConfig
from vidtok.models.decoders.make import make_decoder
from vidtok.tokens.identity import model_identity, origin_of

FAST = FastConfig(ch=8, ch_mult=(1, 2), num_res_blocks=1)


def with_fast(model: Tokenizer, config: DecoderConfig = FAST, name: str = "quick") -> Tokenizer:
    """`model` with a decoder of its own, whose weights are random and none of them zero."""
    torch.manual_seed(0)
    own = make_decoder(config, model.config)
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.with_decoder(own.eval(), name)


@pytest.fixture(params=[KL_1_1, FSQ_1_1], ids=["kl", "fsq"])
def model(request: pytest.FixtureRequest) -> Tokenizer:
    return tiny_model(request.param)


@pytest.fixture
def saved(model: Tokenizer, tmp_path: Path) -> Path:
    """The whole model in a folder, with a decoder of its own beside its files."""
    folder = model.save_pretrained(tmp_path / "model")
    twin = with_fast(model)
    twin.name = "quick"
    twin.save_pretrained(folder / "fast", parts="decoder")
    return folder


def video_of(model: Tokenizer) -> torch.Tensor:
    return make_clip(1, 3, 1 + model.temporal_factor, 16, 24)


def test_either_part_loads_alone(model: Tokenizer, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "parts", parts="both")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "decoder.safetensors", "encoder.safetensors",
    ]  # fmt: skip
    z = model.encode(video_of(model), sample=False)
    whole = vidtok.load(folder)
    assert torch.equal(whole.encode(video_of(model), sample=False), z)
    assert torch.equal(whole.decode(z), model.decode(z))
    (tmp_path / "aside").mkdir()
    for part, other in (("decoder", "encoder"), ("encoder", "decoder")):
        shutil.move(folder / f"{other}.safetensors", tmp_path / "aside")
        half = vidtok.load(folder, parts=part)  # type: ignore[arg-type]
        assert all(name.startswith(part) for name in half.state_dict())
        assert model_identity(half) == model_identity(model)
        assert half.dtype == torch.float32
        if part == "decoder":
            assert torch.equal(half.decode(z), model.decode(z))
        else:
            assert torch.equal(half.encode(video_of(model), sample=False), z)
        used = half.encode if part == "decoder" else half.decode
        with pytest.raises(VidTokError, match=f"{other} was not loaded; load the model without parts='{part}'"):
            used(video_of(model) if part == "decoder" else z)
        with pytest.raises(CheckpointError, match=f"has the {part} alone; load it with parts='{part}'"):
            vidtok.load(folder)
        shutil.move(tmp_path / "aside" / f"{other}.safetensors", folder)


def test_a_part_of_one_file_loads_alone_too(model: Tokenizer, saved: Path) -> None:
    half = vidtok.load(saved, parts="decoder", dtype=torch.bfloat16)
    assert model_identity(half) == model_identity(vidtok.load(saved, dtype=torch.bfloat16))
    again = half.save_pretrained(saved.parent / "again")
    assert json.loads((again / "config.json").read_text())["files"] == ["decoder.safetensors"]
    with pytest.raises(CheckpointError, match="was loaded without its encoder; load it whole"):
        half.save_pretrained(saved.parent / "none", parts="encoder")


def test_another_decoder_by_name_and_by_folder(model: Tokenizer, saved: Path) -> None:
    expected = with_fast(model)
    z = model.encode(video_of(model), sample=False)
    for decoder in ("fast", saved / "fast"):
        loaded = vidtok.load(saved, decoder=decoder)
        assert (loaded.decoder_name, loaded.name) == ("quick", model.name)
        assert torch.equal(loaded.decode(z), expected.decode(z))
        assert torch.equal(loaded.encode(video_of(model), sample=False), z)
        assert model_identity(loaded) == model_identity(model)
    assert vidtok.load(saved, decoder="full").decoder_name == "full"
    (saved / "model.safetensors").unlink()  # a decoder of its own needs no weights of the model
    shutil.copytree(saved / "fast", saved.parent / "alone")
    alone = vidtok.load(saved.parent / "alone", parts="decoder")
    assert torch.equal(alone.decode(z), expected.decode(z))
    assert origin_of(alone) == origin_of(expected)


def test_a_whole_model_with_another_decoder(model: Tokenizer, tmp_path: Path) -> None:
    twin = with_fast(model, PreviewConfig())
    again = vidtok.load(twin.save_pretrained(tmp_path / "whole", int8=True))
    z = model.encode(video_of(model), sample=False)
    assert (again.decode(z) - twin.decode(z)).abs().max() < 0.05
    assert model_identity(again) == model_identity(model)


def test_decoders_of_other_latents_are_refused_with_both_descriptions(saved: Path, tmp_path: Path) -> None:
    other = tiny_model(KL_1_0).save_pretrained(tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"the decoder quick is for latents of a causal .*has latents of a causal"
    ):
        vidtok.load(other, decoder=saved / "fast")
    changed = vidtok.load(saved)
    with torch.no_grad():
        next(changed.encoder.parameters()).neg_()
    folder = changed.save_pretrained(tmp_path / "changed")
    message = r"is for latents of .* with the encoder [0-9a-f]{12}; .* has the encoder [0-9a-f]{12}"
    with pytest.raises(CheckpointError, match=message):
        vidtok.load(folder, decoder=saved / "fast")
    with pytest.raises(CheckpointError, match="is neither a folder with a decoder nor the name of one that comes with"):
        vidtok.load(saved, decoder="quicker")
    with pytest.raises(CheckpointError, match="is a model, and has no decoder of its own for others"):
        vidtok.load(saved, decoder=other)
    with pytest.raises(ConfigError, match="parts is 'middle'; expected encoder or decoder, or None"):
        vidtok.load(saved, parts="middle")  # type: ignore[arg-type]


def test_folders_that_are_damaged(saved: Path) -> None:
    path = saved / "fast" / "config.json"
    values = json.loads(path.read_text())
    for change, error, message in (
        ({"files": ["../x"]}, CheckpointError, r"has files \['../x'\]; expected some of encoder.safetensors"),
        ({"files": ["encoder.safetensors"]}, CheckpointError, "has no encoder.safetensors, its weights"),
        ({"decoder": {"kind": "slow"}}, ConfigError, "expected a mapping with kind: fast or kind: preview"),
        ({"decoder": {**values["decoder"], "patch_size": 2}}, ConfigError, "make a spatial factor of 4; expected 8"),
        ({"origin": 3}, ConfigError, "origin is 3"),
    ):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(error, match=message):
            vidtok.load(saved, decoder=saved / "fast")


def test_commands_take_a_decoder_and_say_which(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "clip.mp4", 20, 24, 32)
    model, tokens = ["--model", str(saved)], str(tmp_path / "clip.vtok")
    assert main(["encode", str(video), "-o", tokens, "--size", "original", *model]) == 0
    capsys.readouterr()
    for decoder, name in (
        ([], "full"),
        (["--decoder", "fast"], "quick"),
        (["--decoder", str(saved / "fast")], "quick"),
    ):
        assert main(["decode", tokens, "-o", str(tmp_path / "out.mp4"), *model, *decoder]) == 0
        assert rows(capsys.readouterr().out)["decoder"] == name
    part = ["--start", "9f", "--max-memory", "40GB"]
    assert main(["decode", tokens, "-o", str(tmp_path / "out.mp4"), *model, "--decoder", "fast", *part]) == 0
    common = [str(video), "-o", str(tmp_path / "out.mp4"), "--size", "original", *model]
    assert main(["reconstruct", *common, "--decoder", "fast", "--tile", "64"]) == 0
    assert "decoder quick" in capsys.readouterr().out
    out = tmp_path / "results"
    both = ["--decoder", "full", "--decoder", "fast"]
    assert main(["evaluate", str(video), "--size", "64", "--out", str(out), "--no-report", *model, *both]) == 0
    subjects = [json.loads(path.read_text())["subject"] for path in sorted(out.glob("*.json"))]
    assert len(subjects) == 2
    assert sorted("decoder" in subject for subject in subjects) == [False, True]
    assert main(["decode", tokens, "-o", str(tmp_path / "out.mp4"), *model, "--decoder", "none"]) == 2
    assert "is neither a folder with a decoder nor" in capsys.readouterr().err
