"""What a command can refuse before PyTorch is loaded, it refuses then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.numbers import commands
from tiny import KL_1_0, write_model, write_video
from vidtok.cli import main

_WITHOUT_TORCH = """
import sys
from vidtok.cli import main
for line in {lines!r}:
    print(main(line), "torch" in sys.modules, file=sys.stderr)
"""


def refused(lines: list[list[str]], folder: Path) -> list[str]:
    """The errors of `lines`, run in `folder` by one process, which must not load PyTorch."""
    code = _WITHOUT_TORCH.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    said = done.stderr.splitlines()
    assert len(said) == 2 * len(lines), done.stderr
    assert said[1::2] == ["2 False"] * len(lines), done.stderr
    return said[::2]


def test_nothing_heavy_is_loaded_for_a_command_that_cannot_run(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 2, 16, 16)
    (tmp_path / "junk.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("in.mp4\n")
    unknown = "'vidtok_kl_causal_488_16ch' is no model's name, YAML file, folder or Hub repository (did you mean"
    cases = [
        (["reconstruct", "no.mp4", "-o", "out.mp4"], "no.mp4: no such file; check the path; expected a video"),
        (["reconstruct", "junk.mp4", "-o", "out.mp4"], "junk.mp4 is neither a video nor a picture"),
        (["reconstruct", "in.mp4", "-o", "out.avi"], "out.avi ends in '.avi'; expected one of .mp4"),
        (["reconstruct", "in.mp4", "-o", "no/out.mp4"], "no is no such folder; make the folder first"),
        (["reconstruct", "in.mp4", "-o", "in.mp4"], "in.mp4 is the input itself; give another output"),
        (["reconstruct", "list.txt", "-o", "out.mp4"], "list.txt is a list of inputs, and out.mp4 is one file"),
        (["reconstruct", "in.mp4", "-o", "out.mp4", "-m", "vidtok_kl_causal_488_16ch"], unknown),
        (["reconstruct", "in.mp4", "-o", "out.mp4", "-m", "vidtok_kl_causal_488_16chn"], "are not on this machine"),
        (
            ["reconstruct", "in.mp4", "-o", "out.mp4", "--checkpoint", "no.ckpt"],
            "checkpoint no.ckpt does not exist",
        ),
        (["reconstruct", "in.mp4", "-o", "out.mp4", "--checkpoint", "junk.mp4"], "junk.mp4 is not a checkpoint (it"),
        (["encode", "in.mp4", "-o", "out.mp4", "-m", "x"], "out.mp4 does not end in .vtok"),
        (["encode", "in.mp4", "-o", "out.vtok", "-m", "."], "has no config.json and no model.safetensors"),
        (["decode", "no.vtok", "-o", "out.mp4"], "no.vtok: no such file; check the path; expected a token file"),
        (["info", "no.vtok"], "no.vtok: no such file; check the path; expected a token file"),
        (["evaluate", "no", "-m", "x"], "no: no such file; check the path; expected a folder with videos"),
        (["compare", "no", "no"], "no: no such file; check the path; expected results"),
    ]
    for said, (words, expected) in zip(refused([words for words, _ in cases], tmp_path), cases, strict=True):
        assert expected in said, words


def test_every_command_with_a_model_checks_it_first(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 2, 16, 16)
    (tmp_path / "in.vtok").write_bytes(b"no tokens")
    lines = []
    given = {"encode": ["in.mp4", "-o", "a.vtok"], "decode": ["in.vtok", "-o", "a.mp4"], "evaluate": ["in.mp4"],
             "reenact": ["-o", "a.mp4"], "export": ["nobody", "out"], "stats": ["nobody", "in.mp4"],
             "distill": ["nobody", "-o", "out"], "preview": ["nobody", "-o", "out"]}  # fmt: skip
    for words, function in commands():
        names = function.__annotations__
        if words[-1] == "export" or "model" in names:
            usual = given.get(words[-1], ["in.mp4", "-o", "a.mp4"])
            lines.append([*words, *usual, *(["--model", "nobody"] if "nobody" not in usual else [])])
    assert len(lines) >= 6
    assert all("'nobody' is no model's name" in said for said in refused(lines, tmp_path))


def test_the_small_model_stands_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "in.mp4", 1, 48, 160)
    command = ["reconstruct", str(video), "-o", str(tmp_path / "out.mp4"), "--size", "48"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "vidtok_kl_causal_488_16chn_tiny, float32" in captured.out
    assert "48 x 48 pixels, cropped from 160 x 48" in captured.out
    crop, better = captured.err.splitlines()
    assert crop == ("the crop leaves 30% of the picture; --height 48 --width 160 or --size original keeps all of it")
    assert "such as --model vidtok_kl_causal_488_16chn_v1_1 (`vidtok models` lists all)" in better
    assert main([*command, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_folders_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path, KL_1_0).options
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    write_video(videos / "a.mp4", 3, 16, 16)
    write_video(videos / "deep" / "b.mp4", 3, 16, 16).rename(videos / "deep" / "b.avi")
    (videos / "bad.mp4").write_bytes(b"no video")
    size = ["--size", "16"]

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(list(map(str, words)))
        captured = capsys.readouterr()
        return code, captured.out.strip(), captured.err

    out = tmp_path / "out"
    code, said, error = run("reconstruct", videos, "-o", out, *model, *size)
    assert code == 2
    assert said.startswith(f"{out}: 2 reconstructed, 0 there already, 1 failed; 6 frames, PSNR ")
    assert f"1 of 3 files could not be reconstructed:\n  {videos / 'bad.mp4'}: " in error
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.mp4")) == ["a.mp4", "deep/b.avi.mp4"]
    assert run("reconstruct", videos, "-o", videos / "out", *model)[2].startswith(f"error: {videos / 'out'} lies in")

    listed = videos / "list.txt"
    listed.write_text("a.mp4\n# the other\ndeep/b.avi\na.mp4\n")
    assert run("reconstruct", listed, "-o", out, *model, *size, "--skip-existing")[1] == (
        f"{out}: 0 reconstructed, 2 there already, 0 failed"
    )
    tokens = tmp_path / "tokens"
    code, said, _ = run("encode", listed, "-o", tokens, *model, *size)
    assert code == 0
    assert said.startswith(f"{tokens}: 2 encoded, 0 there already, 0 failed")
    again = tmp_path / "again"
    code, said, _ = run("decode", tokens, "-o", again, *model)
    assert (code, said) == (0, f"{again}: 2 decoded, 0 there already, 0 failed; 6 frames")
    assert sorted(path.relative_to(again).as_posix() for path in again.rglob("*.mp4")) == ["a.mp4", "deep/b.avi.mp4"]
    code, said, _ = run("evaluate", listed, "-b", "pca", "-m", f"{model[1]}={model[3]}", "-o", tmp_path / "r", *size)
    assert code == 0
    assert "2 videos, 6 frames" in said
