"""The habits that every command has from `App`: plain help, `--quiet` and `--verbose`, completion, signs of life."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from cli.numbers import commands
from tiny import KL_1_1, tiny_model, write_video
from vidtok.cli import main, progress
from vidtok.cli.commands import App
from vidtok.cli.verbosity import apply, is_quiet, start
from vidtok.config.recipes import recipes
from vidtok.models.tiles import Tiling


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_help_of_every_command_is_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(commands())) > 10
    for words, _ in commands():
        text = help_of(words, capsys)
        assert "--quiet" in text, words
        assert "--verbose" in text, words
        for odd in ("<", "{", "(none)", " range]", "[default: ("):
            assert odd not in text, (words, odd)


def test_the_list_of_commands_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of((), capsys)
    assert "..." not in text.replace("[ARGS]...", "")
    assert "Make a short clip and reconstruct it with the small model that comes with this package." in text
    for command in ("example", "reconstruct", "encode", "decode", "evaluate", "train", "recipes", "models", "metrics"):
        assert f" {command} " in text
    for heading in ("Videos and tokens:", "Evaluation:", "Models:", "Training:", "--install-completion"):
        assert heading in text


def test_a_new_command_has_the_habits_for_free(capsys: pytest.CaptureFixture[str]) -> None:
    fresh = App(context_settings={"help_option_names": ["--help"]})
    seen = []

    @fresh.command("once")
    def once(path: Path, times: int = 1) -> None:
        """Do it."""
        seen.append((path, times, is_quiet()))

    @fresh.command("never")
    def never() -> None:
        """Leave it."""

    start()
    fresh(["once", "a", "-q"], standalone_mode=False)
    start()
    fresh(["once", "a", "--times", "2"], standalone_mode=False)
    assert seen == [(Path("a"), 1, True), (Path("a"), 2, False)]
    fresh(["once", "--help"], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "[OPTIONS] PATH" in text
    assert "--times N" in text


def test_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_VIDTOK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("COMP_WORDS", "vidtok rec")
    assert main([]) == 0
    assert capsys.readouterr().out.split() == ["reconstruct", "recipes"]
    monkeypatch.setenv("COMP_CWORD", "4")
    monkeypatch.setenv("COMP_WORDS", "vidtok encode a.mp4 --model vidtok_kl_noncausal_488_1")
    assert main([]) == 0
    assert capsys.readouterr().out.split() == ["vidtok_kl_noncausal_488_16chn"]


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [usage.split()[-1] for usage, _ in rows] == list(recipes())
    assert ["MODEL stage_one", recipes()["stage_one"].about] in rows
    assert all(about and not about.endswith(".") for _, about in rows)
    assert main(["models", "show", "stage_one"]) == 0
    assert "max_steps: 100000" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "MODEL stage_one" in capsys.readouterr().out


def test_quiet_and_verbose(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("vidtok.test")
    for settings, least in (((True, False), logging.ERROR), ((False, True), logging.INFO)):
        start()
        apply(quiet=settings[0], verbose=settings[1])
        assert log.getEffectiveLevel() == least
    start()
    assert not is_quiet()


def test_lines_where_the_output_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)
    start()
    with progress.progress_bar("encoding", 20) as done:
        done(5)
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("encoding: 5 of 20 frames, 0:00 so far, 0:0")
    assert said[0].endswith(" left")
    apply(quiet=True, verbose=False)
    with progress.progress_bar("encoding", 20) as done:
        done(5)
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    start()


def test_tiles_within_a_group_of_frames(tmp_path: Path) -> None:
    model = tiny_model(KL_1_1).with_tiling(Tiling(64, 16))
    work = progress.Work("reconstructing", 9, "frames", both=True)
    lines = []

    def on_tile(number: int, of: int, frames: int, encodes: bool) -> None:
        work.on_tile(number, of, frames, encodes)
        lines.append((work.line().split(", ")[1], round(work.reached, 2)))

    with progress.reporting(on_tile):
        model.reconstruct(write_video(tmp_path / "in.mp4", 9, 64, 100), tmp_path / "out.mp4", chunk_frames=8)
    assert lines[:2] == [("encoding tile 1 of 2", 1.35), ("encoding tile 2 of 2", 2.7)]
    assert lines[-1][0] == "decoding tile 2 of 2"
