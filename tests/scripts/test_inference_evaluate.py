from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.inference_evaluate import load_model_from_config

from scripts import inference_evaluate
from tiny import (
    FSQ_1_0,
    KL_1_0,
    KL_1_1,
    KL_NONCAUSAL,
    ONE_THREAD,
    ModelFiles,
    clip_pairs,
    stream_pairs,
    tiny_model,
    write_model,
    write_video,
)
from vidtok import CheckpointError, ConfigError
from vidtok.metrics.image import psnr, ssim
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.runtime.passes import Pair
from vidtok.video import read_video, to_float

SCRIPT = Path(inference_evaluate.__file__)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (KL_1_0, KL_1_1, FSQ_1_0, KL_NONCAUSAL)}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "deep" / "er").mkdir(parents=True)
    write_video(folder / "a.mp4", 12, 16, 24, fps=30)
    write_video(folder / "deep" / "er" / "b.mp4", 9, 32, 16, fps=30)
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture(autouse=True)
def _no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS's weights are nowhere, whatever this machine has."""

    def none(cls: type[LPIPS], source: object = None) -> LPIPS:
        raise LPIPSWeightsError("LPIPS lacks VGG16; put it somewhere")

    monkeypatch.setattr(LPIPS, "from_weights", classmethod(none))


def call(files: ModelFiles, folder: Path, *arguments: str) -> int:
    return inference_evaluate.main(
        ["--config", str(files.config), "--ckpt", str(files.checkpoint), "--data_dir", str(folder),
         "--input_height", "16", "--input_width", "16", "--chunk_size", "8", *arguments]
    )  # fmt: skip


def scores(text: str) -> dict[str, str]:
    """What was counted, by line, and the figures of the published line, which is the last one."""
    *counts, published = text.splitlines()
    figures = re.fullmatch(r"PSNR: (\d+\.\d+), SSIM: (\d\.\d+), LPIPS: (.+)", published)
    assert figures is not None
    return dict(line.split(": ", 1) for line in counts) | dict(
        zip(("PSNR", "SSIM", "LPIPS"), figures.groups(), strict=True)
    )


def mean(score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], pairs: list[Pair]) -> float:
    """The mean score over all frames."""
    return torch.cat([score(p.reconstruction, to_float(p.source)).flatten() for p in pairs]).mean().item()


def test_the_published_defaults() -> None:
    assert vars(inference_evaluate.parse_arguments([])) == {
        "config": "configs/vidtok_kl_causal_488_4chn.yaml",
        "ckpt": "checkpoints/vidtok_kl_causal_488_4chn.ckpt",
        "data_dir": "./",
        "meta_path": None,
        "input_height": 256,
        "input_width": 256,
        "sample_fps": 30,
        "chunk_size": 16,
        "read_long_video": False,
        "precision": "full",
        "seed": 42,
    }


@pytest.mark.parametrize(("name", "clip"), [(KL_1_1, 9), (FSQ_1_0, 9), (KL_NONCAUSAL, 8)])
@pytest.mark.parametrize("whole", [False, True])
def test_scores_over_all_videos(
    name: str, clip: int, whole: bool, models: dict[str, ModelFiles], videos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(models[name], videos, *(["--read_long_video"] if whole else [])) == 0
    found = scores(capsys.readouterr().out)
    model, pairs = tiny_model(name), []
    torch.manual_seed(42)
    for video in videos / "a.mp4", videos / "deep" / "er" / "b.mp4":
        frames = read_video(video, height=16).numpy()
        if whole and model.is_causal:
            pairs += stream_pairs(model, np.split(frames[:9], [8]), sample=None)
            continue
        if whole:
            frames = frames[:8]
        count = -(-len(frames) // clip)
        filled = np.concatenate([frames, np.repeat(frames[-1:], count * clip - len(frames), 0)])
        pairs += clip_pairs(model, np.split(filled, count), sample=None)
    assert float(found["PSNR"]) == pytest.approx(mean(psnr, pairs), abs=1e-3)
    assert float(found["SSIM"]) == pytest.approx(mean(ssim, pairs), abs=1e-3)
    assert found["videos"] == f"2, frames: {sum(len(p.source) for p in pairs)}"
    assert found["LPIPS"] == "not measured: LPIPS lacks VGG16; put it somewhere"


def test_frames_narrower_than_the_crop_have_black_sides(
    models: dict[str, ModelFiles], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "a.mp4").unlink()
    assert call(models[KL_NONCAUSAL], videos, "--input_width", "24") == 0
    found = scores(capsys.readouterr().out)
    frames = read_video(videos / "deep" / "er" / "b.mp4", height=16).numpy()
    frames = np.pad(np.concatenate([frames, np.repeat(frames[-1:], 7, 0)]), ((0, 0), (0, 0), (4, 4), (0, 0)))
    model = tiny_model(KL_NONCAUSAL)
    torch.manual_seed(42)
    pairs = list(clip_pairs(model, np.split(frames, 2), sample=None))
    assert float(found["PSNR"]) == pytest.approx(mean(psnr, pairs), abs=1e-3)


def test_long_videos_count_to_their_last_whole_chunk_and_short_ones_do_not(
    models: dict[str, ModelFiles], videos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_video(videos / "long.mp4", 30, 16, 16, fps=30)
    write_video(videos / "short.mp4", 8, 16, 16, fps=30)
    for name, frames, short in (
        (KL_1_1, 9 + 9 + 25, "short.mp4 has 8 frames; expected at least 9"),
        (KL_NONCAUSAL, 48, ""),
    ):
        caplog.clear()
        assert call(models[name], videos, "--read_long_video") == 0
        found = scores(capsys.readouterr().out)
        assert found["videos"] == f"{3 if short else 4}, frames: {frames}"
        assert short in caplog.text
        assert found.get("not counted", "") == ("1 video, too short or unreadable; see above" if short else "")


def test_lpips_where_its_weights_are_at_hand(
    models: dict[str, ModelFiles], videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distance(torch.nn.Module):
        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert prediction.dtype == torch.float32
            assert prediction.shape[2] <= 16
            return torch.full((1, target.shape[2]), 0.25)

    monkeypatch.setattr(LPIPS, "from_weights", classmethod(lambda cls, source: Distance()))
    assert call(models[KL_1_0], videos, "--precision", "autocast") == 0
    assert scores(capsys.readouterr().out)["LPIPS"] == "0.2500"


def test_a_meta_file_chooses(
    models: dict[str, ModelFiles], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = tmp_path / "meta.csv"
    meta.write_text("id,videos\n7,deep/er/b.mp4\n")
    assert call(models[KL_1_0], videos, "--meta_path", str(meta)) == 0
    assert scores(capsys.readouterr().out)["videos"] == "1, frames: 9"
    for content, message in (
        ("id\n7\n", "has no column videos, but id"),
        ("videos\n\n", "names no videos"),
        ("", "has no column videos, but nothing"),
    ):
        meta.write_text(content)
        assert call(models[KL_1_0], videos, "--meta_path", str(meta)) == 2
        assert message in capsys.readouterr().err
    assert call(models[KL_1_0], videos, "--meta_path", str(tmp_path / "no.csv")) == 2
    assert "no.csv cannot be read" in capsys.readouterr().err


def test_videos_that_cannot_be_read_are_left_out_whole(
    models: dict[str, ModelFiles], videos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert call(models[FSQ_1_0], videos) == 0
    before = scores(capsys.readouterr().out)
    content = write_video(videos / "cut.mp4", 60, 16, 16, fps=30).read_bytes()
    (videos / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    assert call(models[FSQ_1_0], videos) == 0
    after = scores(capsys.readouterr().out)
    assert after.pop("not counted") == "1 video that cannot be read whole; see above"
    assert after == before
    assert "cut.mp4 is cut off or damaged" in caplog.text
    assert "get an undamaged copy" in caplog.text
    assert "truncated" not in caplog.text  # the command has no such option
    shutil.rmtree(videos / "deep")
    (videos / "a.mp4").unlink()
    assert call(models[FSQ_1_0], videos) == 2
    assert f"of 1 video of {videos} none could be read; see above" in capsys.readouterr().err


def test_folders_without_videos(
    models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(models[KL_1_0], tmp_path) == 2
    assert f"there is no .mp4 file below --data_dir {tmp_path}" in capsys.readouterr().err
    assert call(models[KL_1_0], tmp_path / "no") == 2
    assert f"--data_dir {tmp_path / 'no'} is not a folder" in capsys.readouterr().err


def test_chunk_size_is_checked(models: dict[str, ModelFiles], videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(models[KL_1_0], videos, "--chunk_size", "7") == 2
    assert "--chunk_size is 7; expected a multiple of 4" in capsys.readouterr().err


def test_run_as_published(models: dict[str, ModelFiles], videos: Path) -> None:
    files = models[KL_1_1]
    done = subprocess.run(
        [sys.executable, "scripts/inference_evaluate.py", "--config", files.config, "--ckpt", files.checkpoint,
         "--data_dir", videos, "--input_height", "16", "--input_width", "16", "--chunk_size", "4"],
        cwd=SCRIPT.parents[1], env=ONE_THREAD, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert set(scores(done.stdout)) == {"videos", "PSNR", "SSIM", "LPIPS"}


def test_the_published_snippet(models: dict[str, ModelFiles], capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model_from_config(str(models[KL_1_1].config), str(models[KL_1_1].checkpoint), verbose=True)
    assert f"loaded {KL_1_1} (" in capsys.readouterr().err
    model.to("cpu").eval()
    assert model.is_causal
    assert model.encoder.time_downsample_factor == 4
    num_frames = 17
    x = torch.rand(2, 3, num_frames, 64, 64) * 2 - 1
    with torch.no_grad():
        _, x_recon, reg_log = model(x)
        assert x_recon.shape == x.shape
        assert reg_log["kl_loss"] > 0
        z = model.encode(x)
        assert z.shape == (2, 4, 5, 8, 8)
        decoded = model.decode(z)
        assert decoded.shape == (2, 3, 20, 64, 64)  # f frames for each latent frame, as published
        assert decoded[:, :, -num_frames:].shape == x.shape
        _, mode, _ = model(x, sample=False)
        model.use_tiling = True
        model.t_chunk_enc, model.t_chunk_dec, model.use_overlap = 8, 2, True
        _, tiled, _ = model(x, sample=False)
    torch.testing.assert_close(tiled, mode, atol=1e-4, rtol=0)


def test_the_published_snippet_with_tokens(models: dict[str, ModelFiles]) -> None:
    model = load_model_from_config(models[FSQ_1_0].config, models[FSQ_1_0].checkpoint)
    x = torch.rand(1, 3, 17, 64, 64) * 2 - 1
    with torch.no_grad():
        z, log = model.encode(x, return_reg_log=True)
        assert log["indices"].shape == (1, 5, 8, 8)
        from_tokens = model.decode(log["indices"], decode_from_indices=True)
        torch.testing.assert_close(from_tokens, model.decode(z))
        torch.testing.assert_close(model.indices_to_latent(log["indices"]), z)
        torch.testing.assert_close(from_tokens, model(x)[1])


@pytest.mark.slow
def test_compiled_parts_give_the_same(models: dict[str, ModelFiles]) -> None:
    model = load_model_from_config(models[KL_1_1].config, models[KL_1_1].checkpoint)
    x = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        _, expected, _ = model(x, sample=False)
        model.encoder = torch.compile(model.encoder)
        model.decoder = torch.compile(model.decoder)
        _, compiled, _ = model(x, sample=False)
    torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=0)


def test_what_cannot_be_loaded(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist"):
        load_model_from_config(models[KL_1_0].config, tmp_path / "none.ckpt")
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        load_model_from_config(tmp_path / "none.yaml", models[KL_1_0].checkpoint)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_model_from_config(models[KL_1_0].config, models[FSQ_1_0].checkpoint)


def test_ignored_keys_and_no_checkpoint(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    files = models[KL_1_1]
    trained = load_model_from_config(files.config, files.checkpoint).state_dict()
    torch.manual_seed(0)
    partly = load_model_from_config(str(files.config), str(files.checkpoint), ["decoder.conv_", r".*conv_out"], False)
    for name, weight in partly.state_dict().items():
        ignored = name.startswith("decoder.conv_") or "conv_out" in name
        assert torch.equal(weight, trained[name]) != ignored, name
    torch.save({**trained, "extra.weight": torch.zeros(1)}, tmp_path / "more.ckpt")
    load_model_from_config(files.config, tmp_path / "more.ckpt", ignore_keys=["extra"])
    with pytest.raises(CheckpointError, match="1 unexpected"):
        load_model_from_config(files.config, tmp_path / "more.ckpt")
    with pytest.raises(CheckpointError, match=r"ignore_keys has '\*', which is no regular expression"):
        load_model_from_config(files.config, files.checkpoint, ["*"])
    model = load_model_from_config(files.config)
    before = model.encoder.conv_in.conv.weight.clone()
    model.init_from_ckpt(files.checkpoint, ["encoder.conv_in"])
    assert torch.equal(model.encoder.conv_in.conv.weight, before)
    assert torch.equal(model.decoder.conv_in.conv.weight, trained["decoder.conv_in.conv.weight"])
    untrained = load_model_from_config(files.config, None)
    assert not untrained.training
    assert untrained.padding == "front"
    assert not torch.equal(untrained.encoder.conv_in.conv.weight, trained["encoder.conv_in.conv.weight"])
    assert load_model_from_config(models[FSQ_1_0].config).padding == "end"


def test_parts_that_a_configuration_fixes_say_so(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    files = models[KL_1_1]
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(files.config.read_text() + "        fix_encoder: true\n")
    for config, expected in ((files.config, False), (fixed, True)):
        for checkpoint in (files.checkpoint, None):
            model = load_model_from_config(config, checkpoint)
            assert (model.encoder.fix_encoder, model.decoder.fix_decoder) == (expected, False)
            assert all(weight.requires_grad for weight in model.parameters())
