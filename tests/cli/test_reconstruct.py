from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.video.test_container import streams

import vidtok
from tiny import (
    FSQ_1_0,
    FSQ_NONCAUSAL,
    KL_1_0,
    KL_1_1,
    ModelFiles,
    draw,
    leftovers,
    rows,
    tiny_model,
    write_model,
    write_video,
)
from vidtok.cli import main
from vidtok.cli.progress import progress_bar
from vidtok.jobs.reconstruct import ReconstructionJob
from vidtok.video import VideoWriter, probe, read_video


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (KL_1_0, KL_1_1, FSQ_1_0, FSQ_NONCAUSAL)}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_video(tmp_path / "in" / "clip.mp4", 18, 24, 40)


def call(files: ModelFiles, *arguments: str | Path) -> int:
    return main(["reconstruct", *map(str, arguments), *files.options])


def test_kl(models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(models[KL_1_1], video, "-o", tmp_path / "out.mp4", "--size", "original", "--device", "cpu") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = rows(captured.out)
    assert lines["output"] == str(tmp_path / "out.mp4")
    assert lines["model"] == f"{KL_1_1}, float32 on cpu"
    assert lines["frames"] == "18, 24 a second, 40 x 24 pixels"
    assert lines["latent"] == "4 channels x 6 x 3 x 5 (T x H x W), 360 values, counted as 16 bits each"
    assert lines["rate"] == "0.3333 bits per pixel, 72.0 times smaller than 24-bit RGB"
    assert lines["PSNR"].endswith(" dB")
    assert 0 < float(lines["SSIM"]) < 1
    assert " frames a second" in lines["time"]
    assert probe(tmp_path / "out.mp4").frame_count == 18


@pytest.mark.parametrize(("name", "tokens"), [(FSQ_1_0, "24 (6"), (FSQ_NONCAUSAL, "20 (5")])
def test_fsq(
    name: str, tokens: str, models: dict[str, ModelFiles], video: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(models[name], video, "-o", tmp_path / "out.mp4", "--size", "16") == 0
    lines = rows(capsys.readouterr().out)
    codes = {FSQ_1_0: 4096, FSQ_NONCAUSAL: 262144}[name]
    bits = {FSQ_1_0: 12, FSQ_NONCAUSAL: 18}[name]
    assert lines["tokens"] == f"{tokens} x 2 x 2, T x H x W), each one of {codes:,}"
    assert lines["rate"].startswith(f"{int(tokens[:2]) * bits / (18 * 16 * 16):.4f} bits per pixel")


def test_another_stream(models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = streams(tmp_path / "in.mkv", [(32, 48), (64, 96)])
    for option, number, size in (((), 1, "96 x 64"), (("--stream", "0"), 0, "48 x 32")):
        assert call(models[FSQ_1_0], path, "-o", tmp_path / "out.mp4", "--size", "original", *option) == 0
        lines = rows(capsys.readouterr().out)
        assert lines["frames"] == f"10, 25 a second, {size} pixels"
        assert lines["stream"] == f"video stream {number} of 2 (0 to 1); another one: --stream N (stream=N)"
    assert call(models[FSQ_1_0], path, "-o", tmp_path / "out.mp4", "--stream", "2") == 2
    assert "in.mkv has no video stream 2; expected 0 to 1, or leave --stream" in capsys.readouterr().err


def test_the_default_is_the_published_size(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(models[KL_1_0], video, "-o", tmp_path / "out.mp4", "--max-frames", "1") == 0
    assert rows(capsys.readouterr().out)["frames"] == "1, 24 a second, 256 x 256 pixels, cropped from 40 x 24"


def test_options_reach_the_library(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        models[KL_1_0], video, "-o", tmp_path / "out.mp4", "--height", "16", "--width", "24", "--fps", "12",
        "--start", "0.25", "--max-frames", "5", "--side-by-side", "--dtype", "bfloat16", "--chunk-frames", "3",
    )  # fmt: skip
    assert code == 0
    lines = rows(capsys.readouterr().out)
    assert lines["frames"] == "5, 12 a second, 24 x 16 pixels, cropped from 40 x 24"
    assert lines["model"].endswith("bfloat16 on cpu")
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.fps, info.frame_count) == (48, 16, 12, 5)


def test_a_picture_and_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model(KL_1_1).save_pretrained(tmp_path / "model")
    with VideoWriter(tmp_path / "in.png", 1) as writer:
        writer.write(draw(1, 8, 10))
    command = ["reconstruct", tmp_path / "in.png", "-o", tmp_path / "out.png", "-m", tmp_path / "model"]
    assert main([*map(str, command), "--size", "original"]) == 0
    lines = rows(capsys.readouterr().out)
    assert lines["frames"] == "1, 10 x 8 pixels"
    assert lines["SSIM"] == "not defined below 11 pixels a side"
    assert tuple(read_video(tmp_path / "out.png").shape) == (1, 8, 10, 3)


def test_a_damaged_video(models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = write_video(tmp_path / "whole.mp4", 40, 32, 32).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 3 // 4])
    assert call(models[KL_1_0], cut, "-o", tmp_path / "out.mp4", "--size", "original") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {cut} is cut off or damaged")
    assert "--allow-truncated" in captured.err
    assert captured.out == ""
    assert call(models[KL_1_0], cut, "-o", tmp_path / "out.mp4", "--size", "original", "--allow-truncated") == 0
    assert rows(capsys.readouterr().out)["damage"].startswith("the input is damaged after ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "64", "--height", "64"], "--size cannot be given together with --height or --width"),
        (["--size", "big"], "'big' is neither `original` nor a number of pixels"),
        (["--size", "0"], "'0' is neither `original` nor a number of pixels"),
        (["--dtype", "int8"], "--dtype"),
        (["--max-frames", "0"], "--max-frames"),
        (["--chunk-frames", "none"], "--chunk-frames"),
        (["--fps", "-3"], "error: --fps is -3; expected a rate from 0.00001 to 1000000 frames per second"),
        (["--start", "100"], "clip.mp4 ends after 0.75 s; expected an earlier start"),
        (["--device", "toaster"], "error: there is no device 'toaster'"),
    ],
)
def test_values_that_cannot_be_used(
    arguments: list[str], message: str, models: dict[str, ModelFiles], video: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(models[KL_1_0], video, "-o", tmp_path / "out.mp4", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert leftovers(tmp_path) == ["in"]


def test_what_must_be_given(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, missing in ([str(video), "-m", "x"], "--output"), (["-o", "x.mp4"], "INPUT"):
        assert main(["reconstruct", *arguments]) == 2
        assert f"{missing} is missing" in capsys.readouterr().err


def test_places_are_checked_before_the_model_and_the_model_before_the_video(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: object) -> None:
        raise AssertionError("the video was decoded")

    monkeypatch.setattr(ReconstructionJob, "run", run)
    model = ["--model", "vidtok_kl_causal_488_4ch"]
    for output, message in (
        ("out.avi", "ends in '.avi'; expected one of .mp4"),
        ("no/out.mp4", "no such folder"),
        ("in", "is a folder; give the path of a file in it"),
        ("out.mp4", "'vidtok_kl_causal_488_4ch' is no model's name"),
    ):
        assert main(["reconstruct", str(video), "-o", str(tmp_path / output), *model]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
    checkpoint = ["--model", KL_1_0, "--checkpoint", str(tmp_path / "none.ckpt")]
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "out.mp4"), *checkpoint]) == 2
    assert "none.ckpt does not exist" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in"]


def test_interrupted(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def interrupt(*arguments: object, **named: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(vidtok.DecodeStream, "push", interrupt)
    assert call(models[KL_1_0], video, "-o", tmp_path / "out.mp4", "--size", "16") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert leftovers(tmp_path) == ["in"]


def test_a_defect_keeps_its_traceback(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> torch.Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(vidtok.DecodeStream, "push", fail)
    with pytest.raises(ZeroDivisionError):
        call(models[KL_1_0], video, "-o", tmp_path / "out.mp4", "--size", "16")
    assert leftovers(tmp_path) == ["in"]


def test_the_bar_shows_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for forced, shown in ("1", True), ("0", False):
        monkeypatch.setenv("TTY_COMPATIBLE", forced)
        monkeypatch.setenv("COLUMNS", "100")
        with progress_bar("reconstructing", 8) as progress:
            progress(3)
        captured = capsys.readouterr()
        assert ("reconstructing" in captured.err) is shown
        assert captured.out == ""


def test_large_frames_in_tiles(
    models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "wide.mp4", 5, 64, 160)
    output = tmp_path / "out.mp4"
    assert call(models[KL_1_1], video, "-o", output, "--size", "original", "--tile", "96", "--tile-overlap", "24") == 0
    assert rows(capsys.readouterr().out)["tiles"] == "1 x 2, of at most 96 pixels, which overlap by 24 or more"
    assert call(models[KL_1_1], video, "-o", output, "--size", "original", "--max-memory", "64GB") == 0
    assert "tiles" not in rows(capsys.readouterr().out)
