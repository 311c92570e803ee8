"""Distillation: from a model to a decoder's folder, on clips, videos and token files; exact resuming; refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.run_files import differing, last

import vidtok
from tiny import FSQ_1_1, KL_1_1, KL_NONCAUSAL, ONE_THREAD, tiny_model, write_video
from vidtok import Tokenizer
from vidtok.cli import main
from vidtok.errors import ConfigError, TokenFileError, TrainingError, VidTokError
from vidtok.metrics.image import psnr
from vidtok.models.decoders.config import PreviewConfig
from vidtok.models.decoders.make import PreviewDecoder, make_decoder
from vidtok.training.distillation.fitting import fit, synthetic_pairs
from vidtok.training.distillation.run import distilled

pytestmark = pytest.mark.gradients

SMALL = (
    "model.params.loss_config.params.perceptual_weight=0",
    "model.params.distill_config.decoder.ch=8", "model.params.distill_config.decoder.num_res_blocks=1",
    "model.params.ema_decay=0.9", "data.params.batch_size=1", "data.params.num_workers=0",
    "lightning.modelcheckpoint.params.every_n_train_steps=2", "lightning.trainer.accelerator=cpu",
    "lightning.trainer.enable_progress_bar=false", "lightning.trainer.log_every_n_steps=1",
)  # fmt: skip
CLIPS = tuple(
    f"data.params.{part}.params.{key}"
    for part in ("train", "validation")
    for key in ("video_params.input_height=24", "video_params.input_width=24", "video_params.sample_num_frames=9")
)
_LENIENT = "data.params.train.params.max_unreadable=0.5"
SYNTHETIC = (*SMALL, *CLIPS, "data.params.validation.params.clips_per_epoch=1")


@pytest.fixture(autouse=True)
def _quick_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projections are fitted on two small clips."""
    pairs = synthetic_pairs
    for module in ("start", "preview"):
        monkeypatch.setattr(
            f"vidtok.training.distillation.{module}.synthetic_pairs", lambda model, *_: pairs(model, 5, 32)
        )


def saved(folder: Path, name: str) -> Path:
    return tiny_model(name).save_pretrained(folder / "model")


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1, KL_NONCAUSAL])
def test_from_a_model_to_a_decoder(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    folder = distilled(model, tmp_path / "fast", steps=3, overrides=SYNTHETIC)
    content = json.loads((folder / "config.json").read_text())
    assert content["files"] == ["decoder.safetensors"]
    assert content["decoder"]["kind"] == "fast"
    full, fast = vidtok.load(model), vidtok.load(model, decoder=folder)
    assert all(torch.equal(a, b) for a, b in zip(full.encoder.parameters(), fast.encoder.parameters(), strict=True))
    assert fast.decoder_name == f"{full.name}-fast"
    assert f"# {full.name}-fast" in (folder / "README.md").read_text()
    z, video = next(synthetic_pairs(full, 1, 32))
    with torch.no_grad():
        assert fast.decode(z).shape == video.shape
    run = vidtok.load(folder / "run")  # the run is a model with that decoder
    assert run.decoder_name == "run"
    assert {key for key in last(folder / "run")["state_dict"] if "teacher" in key} == set()


def test_losses_fall_and_the_start_is_a_preview(tmp_path: Path) -> None:
    model = tiny_model(KL_1_1)
    own = make_decoder(PreviewConfig(), model.config)
    assert isinstance(own, PreviewDecoder)
    pairs = [*synthetic_pairs(model, 3, 32)]

    def error() -> float:
        with torch.no_grad():
            return float(torch.stack([(own(z) - video).square().mean() for z, video in pairs]).mean())

    before = error()
    fit(own.linear, own.patch, pairs)
    fitted = error()
    assert fitted < before
    with torch.no_grad():  # no other weights of the projection are better
        for parameter in own.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02 * parameter.std())
    assert error() > fitted


def test_resuming_after_kill_gives_equal_losses(tmp_path: Path) -> None:
    model = saved(tmp_path, KL_1_1)

    def start(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "vidtok", "distill", str(model), "-o", str(folder), "--steps", "6"]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen([*command, *SYNTHETIC], env=ONE_THREAD, stdout=nowhere, stderr=nowhere)

    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "killed")
    first = tmp_path / "killed" / "run" / "checkpoints" / "last.ckpt"
    while not first.is_file() and killed.poll() is None:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 2 <= last(first.parent.parent)["global_step"] < 6
    folder = distilled(model, tmp_path / "killed", steps=6, overrides=SYNTHETIC)
    assert whole.wait() == 0
    assert differing(last(folder / "run"), last(tmp_path / "whole" / "run")) == []


def test_on_videos_and_on_token_files_without_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path, FSQ_1_1)
    videos, tokens = tmp_path / "videos", tmp_path / "tokens"
    videos.mkdir()
    for name in ("a", "b"):
        write_video(videos / f"{name}.mp4", 20, 32, 40)
    options = (*SMALL, *CLIPS)
    distilled(model, tmp_path / "from-videos", data=videos, steps=2, overrides=options)
    assert main(["encode", str(videos), "-o", str(tokens), "--size", "original", "--model", str(model)]) == 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the encoder was used")

    monkeypatch.setattr("vidtok.models.vidtok.networks.Encoder.forward", refuse)
    folder = distilled(model, tmp_path / "from-tokens", data=tokens, steps=2, overrides=options)
    names = list(last(folder / "run")["state_dict"])
    assert not any(name.startswith("encoder.") for name in names)
    assert vidtok.load(model, decoder=folder, parts="decoder").decoder_name.endswith("-fast")
    (tokens / "damaged.vtok").write_bytes(b"no tokens")
    distilled(model, tmp_path / "with-damage", data=tokens, steps=2, overrides=(*options, _LENIENT))
    (tokens / "damaged.vtok").unlink()
    tiny_model(KL_1_1).save_pretrained(tmp_path / "other")
    with pytest.raises(TokenFileError, match="was made with"):
        distilled(tmp_path / "other", tmp_path / "none", data=tokens, steps=2, overrides=options)
    large = tuple(f"data.params.train.params.video_params.input_{side}=512" for side in ("height", "width"))
    with pytest.raises(VidTokError, match="of a training clip; leave it out, or set smaller clips"):
        distilled(model, tmp_path / "large", data=tokens, steps=2, overrides=(*options, *large))


def test_runs_that_cannot_begin(tmp_path: Path) -> None:
    model = saved(tmp_path, KL_1_1)
    with pytest.raises(ConfigError, match=r"ckpt_path is null, and .*distill_config asks for a teacher"):
        distilled(model, tmp_path / "a", overrides=(*SYNTHETIC, "model.params.ckpt_path=null"))
    loud = tiny_model(KL_1_1)
    with torch.no_grad():
        for parameter in loud.encoder.parameters():
            parameter.mul_(1e20)
    with pytest.raises(TrainingError, match=r"latents of .* overflow: they are not finite on a procedural clip"):
        distilled(loud.save_pretrained(tmp_path / "loud"), tmp_path / "b", overrides=SYNTHETIC)
    other = tiny_model(FSQ_1_1).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"ckpt_path leads to .*, a model of configuration"):
        distilled(model, tmp_path / "c", overrides=(*SYNTHETIC, f"model.params.ckpt_path={other}"))
    with pytest.raises(ConfigError, match="make a spatial factor of 4; expected 8"):
        distilled(model, tmp_path / "d", overrides=(*SYNTHETIC, "model.params.distill_config.decoder.patch_size=2"))
    with pytest.raises(ConfigError, match="teacher_weight is -1"):
        distilled(model, tmp_path / "e", overrides=(*SYNTHETIC, "model.params.distill_config.teacher_weight=-1"))
    with pytest.raises(ConfigError, match=r"recipe tiny has no model.params.distill_config"):
        distilled(model, tmp_path / "f", recipe="tiny")
    with pytest.raises(ConfigError, match="which does not exist; expected a folder of videos or token files"):
        distilled(model, tmp_path / "g", data=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="a vidtwin has a latent of 3 parts"):
        distilled_config_of_twin(tmp_path)
    assert not any((tmp_path / name / "run" / "checkpoints").exists() for name in "abcdefg")


def distilled_config_of_twin(folder: Path) -> None:
    from twin import tiny_twin

    twin = tiny_twin()
    distilled(twin.save_pretrained(folder / "twin"), folder / "h", overrides=())


@torch.no_grad()
def test_preview_and_its_factors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path, KL_1_1)
    assert main(["preview", str(model), "-o", str(tmp_path / "preview"), "--clips", "2"]) == 0
    assert "a linear preview of" in capsys.readouterr().out
    loaded: Tokenizer = vidtok.load(model, decoder=tmp_path / "preview")
    found: dict[str, Any] = json.loads((tmp_path / "preview" / "latent_rgb.json").read_text())
    factors, bias = torch.tensor(found["factors"]), torch.tensor(found["bias"])
    assert factors.shape == (loaded.z_channels, 3)
    z, video = next(synthetic_pairs(loaded, 1, 32))
    colours = torch.einsum("bztyx,zc->bctyx", z, factors) + bias.view(1, 3, 1, 1, 1)
    factor, side = loaded.temporal_factor, loaded.spatial_factor
    means = loaded.decode(z)[:, :, 1:].unflatten(2, (-1, factor)).mean(3)
    means = torch.nn.functional.avg_pool3d(means, (1, side, side))
    assert torch.allclose(colours[:, :, 1:], means, atol=1e-4)
    assert math.isfinite(float(psnr(loaded.decode(z).clamp(-1, 1), video).mean()))
