from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import vidtok
from tiny import (
    FSQ_1_0,
    KL_1_1,
    ONE_THREAD,
    ModelFiles,
    add_sound,
    audio_streams,
    leftovers,
    rows,
    tiny_model,
    write_model,
    write_video,
)
from vidtok.cli import main
from vidtok.tokens import TokenFile
from vidtok.video import probe


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (KL_1_1, FSQ_1_0)}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    silent = write_video(tmp_path / "silent.mp4", 40, 24, 40)
    add_sound(silent, tmp_path / "clip.mp4")
    silent.unlink()
    return tmp_path / "clip.mp4"


def call(command: str, files: ModelFiles | None, *arguments: str | Path) -> int:
    return main([command, *map(str, arguments), *(() if files is None else files.options)])


def test_sound_that_is_not_there_is_said_to_be_missing(
    models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, path = write_video(tmp_path / "silent.mp4", 16, 24, 9), tmp_path / "clip.vtok"
    assert call("encode", models[KL_1_1], silent, "-o", path, "--size", "original", "--audio") == 0
    assert rows(capsys.readouterr().out)["sound"] == "none: the video has no sound"
    assert not path.with_suffix(".mka").exists()


def test_there_and_back(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.vtok"
    assert call("encode", models[FSQ_1_0], video, "-o", path, "--size", "original", "--audio", "--device", "cpu") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    size = path.stat().st_size
    pixels = 40 * 24 * 40
    rate = (f"{8 * size / pixels:.4f} bits per pixel, {3 * pixels / size:.1f} times smaller than 24-bit RGB, "
            f"{video.stat().st_size / size:.2f} times smaller than the source file")  # fmt: skip
    lines = rows(captured.out)
    assert lines.pop("time").endswith(" frames a second")
    assert lines == {
        "output": f"{path}, {size:,} bytes",
        "sound": str(tmp_path / "clip.mka"),
        "model": f"{FSQ_1_0}, float32 on cpu",
        "frames": "40, 24 a second, 40 x 24 pixels",
        "tokens": "165 (11 x 3 x 5, T x H x W), each one of 4,096, adaptive",
        "rate": rate,
    }
    assert main(["info", str(path), "--check"]) == 0
    lines = rows(capsys.readouterr().out)
    assert lines["file"] == f"{path}, {size:,} bytes"
    assert lines["model"].startswith(f"{FSQ_1_0}, weights ")
    assert lines["video"] == "40 frames, 24 a second, 40 x 24 pixels"
    assert lines["tokens"] == "165 (11 x 3 x 5, T x H x W), each one of 4,096, adaptive"
    assert lines["chunks"] == "1, of 16 latent frames"
    assert lines["rate"] == rate
    assert lines["source"] == f"clip.mp4, 40 x 24 pixels, h264 yuv420p, {video.stat().st_size:,} bytes"
    assert lines["check"] == "all chunks are sound"
    assert call("decode", models[FSQ_1_0], path, "-o", tmp_path / "out.mp4", "--device", "cpu") == 0
    lines = rows(capsys.readouterr().out)
    assert lines["output"] == f"{tmp_path / 'out.mp4'}, with sound"
    assert lines["model"] == f"{FSQ_1_0}, float32 on cpu"
    assert lines["frames"] == "40, 24 a second, 40 x 24 pixels"
    info = probe(tmp_path / "out.mp4")
    assert (info.frame_count, info.fps, info.width, info.height) == (40, 24, 40, 24)
    assert audio_streams(tmp_path / "out.mp4") == 1


def test_options_reach_the_library(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.vtok"
    code = call(
        "encode", models[KL_1_1], video, "-o", path, "--height", "16", "--width", "24", "--fps", "12",
        "--start", "0.25", "--max-frames", "15", "--coding", "int8", "--dtype", "bfloat16", "--chunk-frames", "4",
    )  # fmt: skip
    assert code == 0
    lines = rows(capsys.readouterr().out)
    assert lines["frames"] == "15, 12 a second, 24 x 16 pixels, cropped from 40 x 24"
    assert lines["model"].endswith("bfloat16 on cpu")
    assert lines["latent"] == "4 channels x 5 x 2 x 3 (T x H x W), 120 values, int8"
    assert lines["int8"].endswith("dB of signal to rounding noise")
    assert lines["rate"].endswith("times smaller than 24-bit RGB")
    assert main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["complete"], told["frames"], told["latent_frames"], told["variable_rate"]) == (True, 15, 5, False)
    assert told["compression_of_source"] is None
    assert told["header"]["video"]["start"] == 0.25
    assert told["header"]["source"]["resized"] == [16, 26]
    assert told["header"]["encoding"]["settings"]["dtype"] == "bfloat16"
    part = ("--start", "2f", "--end", "1.0", "--no-audio", "--chunk-frames", "4", "--dtype", "float16")
    assert call("decode", models[KL_1_1], path, "-o", tmp_path / "out.mp4", *part) == 0
    lines = rows(capsys.readouterr().out)
    assert lines["frames"] == "10, 12 a second, 24 x 16 pixels"
    assert lines["model"].endswith("float16 on cpu")
    assert probe(tmp_path / "out.mp4").frame_count == 10


def test_the_default_is_the_published_size(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.vtok"
    assert call("encode", models[FSQ_1_0], video, "-o", path, "--max-frames", "1") == 0
    assert rows(capsys.readouterr().out)["frames"] == "1, 24 a second, 256 x 256 pixels, cropped from 40 x 24"
    assert call("decode", models[FSQ_1_0], path, "-o", tmp_path / "a.png") == 0
    assert rows(capsys.readouterr().out)["frames"] == "1, 256 x 256 pixels"


def test_large_frames_in_tiles(
    models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, path = write_video(tmp_path / "clip.mp4", 20, 64, 160), tmp_path / "a.vtok"
    tiles = ("--tile", "96", "--tile-overlap", "24")
    assert call("encode", models[FSQ_1_0], video, "-o", path, "--size", "original", *tiles) == 0
    said = "1 x 2, of at most 96 pixels, which overlap by 24 or more"
    assert rows(capsys.readouterr().out)["tiles"] == said
    assert main(["info", str(path)]) == 0
    assert rows(capsys.readouterr().out)["tiles"] == said
    assert main(["info", str(path), "--json"]) == 0
    encoding = json.loads(capsys.readouterr().out)["header"]["encoding"]
    assert encoding["tiling"] == {"size": 96, "overlap": 24, "rows": 1, "columns": 2}
    assert (encoding["settings"]["tile"], encoding["settings"]["tile_overlap"]) == (96, 24)
    assert call("decode", models[FSQ_1_0], path, "-o", tmp_path / "out.mp4", *tiles) == 0
    assert probe(tmp_path / "out.mp4").frame_count == 20
    whole = tmp_path / "b.vtok"
    assert call("encode", models[FSQ_1_0], video, "-o", whole, "--size", "original", "--max-memory", "64GB") == 0
    assert "tiles" not in rows(capsys.readouterr().out)
    with TokenFile(whole) as file:
        assert file.header.encoding["tiling"] is None


def test_a_tree(models: dict[str, ModelFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_video(tmp_path / "in" / "a.mp4", 5, 16, 16)
    write_video(tmp_path / "in" / "deep" / "b.mp4", 7, 16, 16)
    (tmp_path / "in" / "c.mp4").write_bytes(b"junk")
    command = ("encode", models[FSQ_1_0], tmp_path / "in", "-o", tmp_path / "out", "--size", "original")
    assert call(*command) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'out'}: 2 encoded, 0 there already, 1 failed\n12 frames in ")
    assert captured.err.startswith("error: 1 of 3 files could not be encoded:\n")
    assert f"  {tmp_path / 'in' / 'c.mp4'}: {tmp_path / 'in' / 'c.mp4'} is neither a video nor" in captured.err
    assert leftovers(tmp_path / "out" / "deep") == ["b.mp4.vtok"]
    (tmp_path / "in" / "c.mp4").unlink()
    assert call(*command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 0 encoded, 2 there already, 0 failed\n"


def test_damage_is_named_and_skipped(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.vtok"
    assert (
        call("encode", models[FSQ_1_0], write_video(tmp_path / "long.mp4", 90, 16, 16), "-o", path, "--size", "16") == 0
    )
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        content[file.entries[0].offset + 50] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["info", str(path), "--check"]) == 2
    named = "chunk 0 (frames 0 to 60) is damaged: it does not match its checksum"
    captured = capsys.readouterr()
    assert captured.err == f"error: {path} is damaged:\n  {named}\n"
    assert main(["info", str(path), "--check", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["damages"] == [named]
    assert call("decode", models[FSQ_1_0], path, "-o", tmp_path / "out.mp4") == 2
    assert capsys.readouterr().err == f"error: {path}: {named}; decode the rest with --skip-damaged " \
                                      "(skip_damaged=True)\n"  # fmt: skip
    assert call("decode", models[FSQ_1_0], path, "-o", tmp_path / "out.mp4", "--skip-damaged") == 0
    lines = rows(capsys.readouterr().out)
    assert lines["damage"] == named
    assert lines["frames"].startswith("90, ")


def test_a_file_without_its_end(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.vtok"
    assert call("encode", models[FSQ_1_0], video, "-o", path, "--size", "16") == 0
    path.write_bytes(path.read_bytes()[:-100])
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    lines = rows(capsys.readouterr().out)
    assert lines["file"].endswith("not finished: still being written, or cut off")
    assert lines["video"].startswith("0 frames, ")
    assert "rate" not in lines


def test_the_wrong_model_is_refused(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "a.vtok", tmp_path / "out.mp4"
    assert call("encode", models[FSQ_1_0], video, "-o", path, "--size", "16") == 0
    capsys.readouterr()
    assert call("decode", models[KL_1_1], path, "-o", output) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} was made with {FSQ_1_0}, which is not this {KL_1_1} (configurations ")
    other = tiny_model(FSQ_1_0)
    with torch.no_grad():
        other.decoder.get_parameter("conv_out.conv.bias").neg_()
    other.name = "mine"
    other.save_pretrained(tmp_path / "mine")
    command = ["decode", str(path), "-o", str(output), "-m", str(tmp_path / "mine")]
    assert main(command) == 2
    assert f"was made with {FSQ_1_0}, which is not this mine (weights " in capsys.readouterr().err
    assert main([*command, "--allow-other-weights"]) == 0
    # Of what a file names, only models of the family are looked for.
    assert main(["encode", str(video), "-o", str(path), "-m", str(tmp_path / "mine"), "--size", "16"]) == 0
    output.unlink()
    capsys.readouterr()
    assert main(["decode", str(path), "-o", str(output)]) == 2
    assert "was made with a model called mine, which is not known by name; give its --model" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coding", "zip"], "--coding"),
        (["--coding", "packed"], "coding is 'packed'; expected one of float16, bfloat16, float32, int8, as"),
        (["--size", "64", "--height", "64"], "--size cannot be given together with --height or --width"),
        (["--audio", "--fps", "3"], "the sound is kept with a whole video only; leave out --audio"),
        (["--start", "100"], "ends after 1.67 s; expected an earlier start"),
        (["--device", "toaster"], "error: there is no device 'toaster'"),
        (["-o", "a.mp4"], "a.mp4 does not end in .vtok; expected a name such as video.vtok"),
        (["-o", "none/a.vtok"], "no such folder; make the folder first"),
        (["--tile", "8"], "error: a tile has 8 pixels a side; expected at least 64"),
        (["--tile-overlap", "8"], "tile_overlap is 8, but there are no tiles; give --tile or --max-memory"),
        (["--max-memory", "much"], "--max-memory is 'much'; expected an amount of memory such as 6GB"),
        (["--max-memory", "1MB"], "max_memory is 1MB, but vidtok_kl_causal_488_4chn_v1_1 needs about"),
    ],
)
def test_values_that_cannot_be_used(
    arguments: list[str], message: str, models: dict[str, ModelFiles], video: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "a.vtok")]
    assert call("encode", models[KL_1_1], video, *output, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert leftovers(tmp_path) == ["clip.mp4"]


def test_an_empty_file_is_told_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for command in ["info", str(empty)], ["reconstruct", str(empty), "-o", str(tmp_path / "o.mp4"), "-m", "x"]:
        assert main(command) == 2
        assert capsys.readouterr().err == f"error: {empty} is empty; get an undamaged copy\n"


def test_what_is_no_token_file(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ["info", str(video)], ["decode", str(video), "-o", str(tmp_path / "out.mp4")]:
        assert main(command) == 2
        assert capsys.readouterr().err == f"error: {video} does not begin as a token file does; expected a file " \
                                          "that `vidtok encode` wrote\n"  # fmt: skip
    assert main(["decode", str(video), "-o", str(tmp_path / "out.avi")]) == 2
    assert "ends in '.avi'; expected one of .mp4" in capsys.readouterr().err


def test_interrupted(
    models: dict[str, ModelFiles], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **named: object) -> torch.Tensor:
        raise KeyboardInterrupt

    path = tmp_path / "a.vtok"
    with monkeypatch.context() as patch:
        patch.setattr(vidtok.EncodeStream, "push", interrupt)
        assert call("encode", models[KL_1_1], video, "-o", path, "--audio", "--size", "original") == 130
    assert leftovers(tmp_path) == ["clip.mp4"]
    assert call("encode", models[KL_1_1], video, "-o", path, "--size", "original") == 0
    monkeypatch.setattr(vidtok.DecodeStream, "push", interrupt)
    assert call("decode", models[KL_1_1], path, "-o", tmp_path / "out.mp4") == 130
    assert leftovers(tmp_path) == ["a.vtok", "clip.mp4"]


def test_killed_in_the_middle(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 600, 32, 32)
    path = tmp_path / "a.vtok"
    files = models[FSQ_1_0]
    command = [sys.executable, "-m", "vidtok", "encode", video, "-o", path, *files.options, "--size", "128",
               "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), env=ONE_THREAD, stdout=subprocess.DEVNULL)
    part = tmp_path / "a.vtok.part"
    while process.poll() is None and (not part.exists() or part.stat().st_size < 1500):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert leftovers(tmp_path) == ["a.vtok.part", "clip.mp4"]
    with TokenFile(part) as file:
        assert not file.complete
        assert file.frames < 600
    assert call("encode", files, video, "-o", path, "--size", "128", "--max-frames", "30") == 0
    assert leftovers(tmp_path) == ["a.vtok", "clip.mp4"]
    with TokenFile(path) as file:
        assert file.frames == 30
