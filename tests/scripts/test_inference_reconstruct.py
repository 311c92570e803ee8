from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import inference_reconstruct
from tiny import (
    FSQ_1_1,
    KL_1_0,
    KL_1_1,
    KL_NONCAUSAL,
    ONE_THREAD,
    ModelFiles,
    clip_pairs,
    draw,
    frames_written,
    leftovers,
    stream_pairs,
    tiny_model,
    write_model,
    write_video,
)
from vidtok.runtime.passes import continued_clip_pairs
from vidtok.video import Pixels, VideoWriter, probe, read_video, to_uint8

SCRIPT = Path(inference_reconstruct.__file__)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (KL_1_0, KL_1_1, FSQ_1_1, KL_NONCAUSAL)}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    return frames_written(monkeypatch, "vidtok.cli.scripts_reconstruct")


def call(files: ModelFiles, video: Path, output: Path, *arguments: str) -> int:
    size = ["--input_height", "16", "--input_width", "16", "--chunk_size", "8"]
    return inference_reconstruct.main(
        ["--config", str(files.config), "--ckpt", str(files.checkpoint), "--input_video_path", str(video),
         "--output_video_dir", str(output), *size, *arguments]
    )  # fmt: skip


def test_the_published_defaults() -> None:
    assert vars(inference_reconstruct.parse_arguments([])) == {
        "config": "configs/vidtok_kl_causal_488_4chn.yaml",
        "ckpt": "checkpoints/vidtok_kl_causal_488_4chn.ckpt",
        "input_height": 256,
        "input_width": 256,
        "sample_fps": 30,
        "chunk_size": 16,
        "read_long_video": False,
        "precision": "full",
        "seed": 42,
        "input_video_path": "assets/example.mp4",
        "output_video_dir": "tmp",
        "pad_gen_frames": False,
        "concate_input": True,
    }
    for text, value in ("true", True), ("False", False), ("1", True), ("no", False):
        assert inference_reconstruct.parse_arguments(["--concate_input", text]).concate_input is value


@pytest.mark.parametrize(("name", "length"), [(KL_1_0, 9), (KL_1_1, 9), (FSQ_1_1, 9), (KL_NONCAUSAL, 8)])
def test_independent_clips(
    name: str, length: int, models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    video = write_video(tmp_path / "walk.mp4", 20, 16, 16, fps=30)
    assert call(models[name], video, tmp_path / "results") == 0
    assert capsys.readouterr().out == f"reconstructed video: {tmp_path / 'results' / 'walk_reconstructed.mp4'}\n"
    frames = read_video(video).numpy()[: 2 * length]
    model = tiny_model(name)
    torch.manual_seed(42)
    expected = [to_uint8(p.reconstruction) for p in clip_pairs(model, np.split(frames, 2), sample=None)]
    both = np.concatenate(written)
    assert np.array_equal(both[:, :, :16], frames)
    assert np.array_equal(both[:, :, 16:], np.concatenate(expected))
    info = probe(tmp_path / "results" / "walk_reconstructed.mp4")
    assert (info.frame_count, info.width, info.fps) == (2 * length, 32, 30)


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1])
def test_generated_frames_in_front(
    name: str, models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels]
) -> None:
    video = write_video(tmp_path / "walk.mp4", 18, 16, 16, fps=30)
    assert call(models[name], video, tmp_path, "--pad_gen_frames", "--concate_input", "false", "--seed", "3") == 0
    model, clips = tiny_model(name), np.split(read_video(video).numpy(), 2)
    torch.manual_seed(3)
    expected = [to_uint8(p.reconstruction) for p in continued_clip_pairs(model, clips, sample=None)]
    assert np.array_equal(np.concatenate(written), np.concatenate(expected))


@pytest.mark.parametrize("name", [KL_1_1, KL_NONCAUSAL])
def test_a_long_video_whole(name: str, models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels]) -> None:
    video = write_video(tmp_path / "walk.mp4", 20, 16, 16, fps=30)
    assert call(models[name], video, tmp_path, "--read_long_video", "--concate_input", "false") == 0
    frames, model = read_video(video).numpy(), tiny_model(name)
    torch.manual_seed(42)
    if model.is_causal:
        pairs = stream_pairs(model, np.split(frames, [8, 16]), sample=None)
    else:
        pairs = clip_pairs(model, np.split(frames, [8, 16]), sample=None)
    assert np.array_equal(np.concatenate(written), np.concatenate([to_uint8(p.reconstruction) for p in pairs]))


def test_the_output_runs_at_sample_fps(models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels]) -> None:
    video = write_video(tmp_path / "walk.mp4", 36, 16, 16, fps=24)
    assert call(models[KL_1_0], video, tmp_path, "--sample_fps", "10") == 0
    assert np.array_equal(np.concatenate(written)[:, :, :16], read_video(video).numpy()[::2][:18])
    assert probe(tmp_path / "walk_reconstructed.mp4").fps == 10


def test_frames_narrower_than_the_crop_have_black_sides(
    models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels]
) -> None:
    video = write_video(tmp_path / "tall.mp4", 9, 32, 16, fps=30)
    assert call(models[KL_1_0], video, tmp_path, "--input_width", "24") == 0
    source = np.concatenate(written)[:, :, :24]
    assert np.array_equal(source[:, :, 4:20], read_video(video).numpy()[:, 8:24])
    assert not source[:, :, [*range(4), *range(20, 24)]].any()


def test_autocast_comes_close(models: dict[str, ModelFiles], tmp_path: Path, written: list[Pixels]) -> None:
    video = write_video(tmp_path / "walk.mp4", 9, 16, 16, fps=30)
    for precision in "full", "autocast":
        assert call(models[KL_1_1], video, tmp_path, "--precision", precision, "--concate_input", "false") == 0
    full, half = (pixels.astype(int) for pixels in written)
    assert 0 < abs(full - half).mean() < 4


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        (KL_1_0, ["--read_long_video"], "--read_long_video carries on from clip to clip already"),
        (KL_NONCAUSAL, [], "no frames are padded"),
    ],
)
def test_a_flag_without_effect_is_said_so(
    name: str, arguments: list[str], reason: str, models: dict[str, ModelFiles], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    video = write_video(tmp_path / "walk.mp4", 9, 16, 16, fps=30)
    assert call(models[name], video, tmp_path, "--pad_gen_frames", *arguments) == 0
    assert f"--pad_gen_frames has no effect: {reason}" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chunk_size", "6"], "--chunk_size is 6; expected a multiple of 4, the temporal factor of"),
        (["--chunk_size", "20"], "walk.mp4 has fewer than the 21 frames of one clip at --sample_fps 30"),
        (["--ckpt", "no.ckpt"], "no.ckpt does not exist"),
        (["--input_video_path", "no.mp4"], "no.mp4: no such file"),
        (["--input_video_path", "cut.mp4"], "cut.mp4 is cut off or damaged"),
    ],
)
def test_errors(
    arguments: list[str], message: str, models: dict[str, ModelFiles], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    video = write_video(tmp_path / "walk.mp4", 20, 16, 16)
    if "cut.mp4" in arguments:
        (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "long.mp4", 60, 16, 16).read_bytes()[:-4000])
        arguments = ["--input_video_path", str(tmp_path / "cut.mp4")]
    assert call(models[KL_1_0], video, tmp_path / "results", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "truncated" not in captured.err  # the command has no such option
    assert not list(tmp_path.rglob("*reconstructed*"))


def test_an_output_folder_that_cannot_be_made(
    models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "walk.mp4", 9, 16, 16)
    assert call(models[KL_1_0], video, video) == 2
    assert "walk.mp4 cannot be made: File exists; give another --output_video_dir" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["walk.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concate_input", "maybe"], "--concate_input: 'maybe' is neither true nor false"),
        (["--chunk_size", "0"], "--chunk_size is 0; expected a whole number from 1 to"),
        (["--sample_fps", "0"], "--sample_fps is 0; expected a rate from 0.00001 to 1000000 frames per second"),
        (["--precision", "half"], "--precision is 'half'; expected one of full, autocast"),
    ],
)
def test_errors_of_the_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        inference_reconstruct.main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_run_as_published(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "walk.mp4", 30) as writer:
        writer.write(draw(5, 16, 16))
    done = subprocess.run(
        [sys.executable, "scripts/inference_reconstruct.py", "--config", models[KL_1_1].config,
         "--ckpt", models[KL_1_1].checkpoint, "--output_video_dir", tmp_path, "--input_video_path",
         tmp_path / "walk.mp4", "--input_height", "16", "--input_width", "16", "--chunk_size", "4"],
        cwd=SCRIPT.parents[1], env=ONE_THREAD, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert probe(tmp_path / "walk_reconstructed.mp4").frame_count == 5
