"""Options with values that cannot be used: exit code 2 and one sentence, before anything is opened or loaded."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import vidtok
from cli.numbers import BAD, HUGE, SCRIPTS, commands, options, script_options, script_parser, trainer_options
from vidtok.cli import main
from vidtok.errors import ConfigError
from vidtok.training.runs.arguments import parse_arguments

_ZERO = {"--start", "--stream", "--seed", "--tile-overlap", "--end", "--gpus", "--retries", "--max-failures"}
"""Options for which 0 is a value; what is wrong then is the input."""
_TRAINER_ZERO = {
    "--max_epochs", "--max_steps", "--num_sanity_val_steps", "--min_epochs", "--min_steps", "--log_every_n_steps",
    "--reload_dataloaders_every_n_epochs", "--limit_train_batches", "--limit_val_batches", "--limit_test_batches",
    "--limit_predict_batches", "--overfit_batches", "--fast_dev_run", "--seed",
}  # fmt: skip
_TRAINER_MINUS_ONE = {"--max_epochs", "--max_steps", "--num_sanity_val_steps", "--devices"}


@pytest.fixture
def junk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is no input, where no model may be loaded."""
    monkeypatch.setattr(vidtok, "load", lambda *_, **__: pytest.fail("a model was loaded"), raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "junk"
    path.write_bytes(b"this is neither a video nor tokens")
    return path


def sentence(error: str) -> str:
    """The one sentence that a command prints."""
    assert error.startswith("error: "), error
    assert error.endswith("\n"), error
    assert error.count("\n") == 1, error
    return error.removeprefix("error: ")


def test_numbers_of_all_commands(junk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = 0
    for option in options(str(junk)):
        for value in BAD:
            # One word, since -1 alone would be another option.
            assert main([*option.words, f"{option.name}={value}"]) == 2, (option, value)
            said = sentence(capsys.readouterr().err)
            named = option.name.strip("-").replace("-", "_") in said.replace("-", "_")
            assert named or (value == "0" and option.name in _ZERO), (option, value, said)
            runs += 1
    assert runs > 250
    assert [path.name for path in junk.parent.iterdir()] == ["junk"]


def test_numbers_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    found = trainer_options()
    assert len(found) > 15
    for option in found:
        for value in BAD:
            if (value == "0" and option in _TRAINER_ZERO) or (value == "-1" and option in _TRAINER_MINUS_ONE):
                assert parse_arguments([f"{option}={value}"]) is not None
                continue
            with pytest.raises((ConfigError, SystemExit)) as caught:
                parse_arguments([f"{option}={value}"])
            said = capsys.readouterr().err or f"error: {caught.value}\n"
            assert sentence(said).startswith(f"{option} is "), (option, value, said)


def test_numbers_of_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    for name in SCRIPTS:
        parser = script_parser(name)
        found = script_options(parser)
        assert len(found) == 5, (name, found)
        required = [word for action in parser._actions if action.required for word in (action.option_strings[0], "x")]
        for option in found:
            for value in BAD:
                if (option, value) == ("--seed", "0"):
                    continue
                with pytest.raises(SystemExit) as caught:
                    parser.parse_args([*required, f"{option}={value}"])
                assert caught.value.code == 2
                assert sentence(capsys.readouterr().err).startswith(f"{option} is "), (name, option, value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthesize", "x", "--size", HUGE], f"--size is {HUGE}; expected a whole number from 16 to 16384"),
        (["synthesize", "x", "--frames", "1000000000"], "--frames is 1000000000; expected a whole number from 1 to"),
        (["synthesize", "x", "--fps", HUGE], f"--fps is {HUGE}; expected a rate from 0.00001 to 1000000 frames per"),
        (["synthesize", "x", "--clips", "9" * 5000], "...; expected a whole number from 1 to 100000"),
        (["synthesize", "x", "--size", "16384", "--frames", "99"], "expected at most 1,073,741,824 a clip"),
        (["evaluate", "x", "--workers", "2.5"], "--workers is '2.5'; expected a whole number from 1 to 64"),
        (["encode", "x"], "--output is missing; see `vidtok encode --help`"),
        (["encode", "-o", "x"], "INPUT is missing; see `vidtok encode --help`"),
        (["encode", "--outptu", "x"], "there is no option --outptu (did you mean --output?); see `vidtok encode --h"),
        (["encode", "a", "b", "-o", "x", "-m", "y"], "extra argument(s) (b); see `vidtok encode --help`"),
        (["encode", "x", "--dtype", "int4"], "--dtype is 'int4'; expected one of float32, bfloat16, float16"),
        (["encode", "x", "-m"], "option '-m' requires an argument"),
        (["enocde"], "no such command 'enocde'"),
        (["decode", "x", "-o", "y.mp4", "--start", "1:2:3:4"], "--start: '1:2:3:4' is no place in a video; expected"),
        (["train", "--bogus"], "unrecognized argument: --bogus; see `vidtok train --help`"),
        (["train", "--train", "maybe"], "--train: 'maybe' is neither true nor false; see `vidtok train --help`"),
    ],
)
def test_errors_of_the_command_line_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in sentence(captured.err)
    assert captured.out == ""


def test_no_command_at_all_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: vidtok" in capsys.readouterr().err


@pytest.mark.slow
def test_742_runs_with_any_words(junk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options of all commands with words of all kinds: an error is one sentence, and nothing takes long."""
    draw = random.Random(25)
    words = [
        *BAD, "1.5", "1e400", "0x10", "-0", " 5 ", "1_0", "\u0663", "9" * 5000, "a" * 5000, "\n", "--", "\u00bd",
        "original", "100f", "1:2", "6GB", "auto", "cpu", "cuda:99", str(junk), ".", "/", "/dev/null", "nowhere/x.mp4",
        "x.png", "null", "[]", "{}", "${x}", "%d",
    ]  # fmt: skip
    known = list(options(str(junk)))
    flags = [name for _, function in commands() for name in function.__annotations__ if name != "return"]
    wrong: list[str] = []
    longest = 0.0
    for _ in range(742):
        option = draw.choice(known)
        line = [*option.words]
        for _ in range(draw.randint(1, 3)):
            line += [
                f"--{draw.choice(flags).replace('_', '-')}" if draw.random() < 0.4 else option.name,
                draw.choice(words),
            ]
        began = time.perf_counter()
        try:
            code = main(line)
        except BaseException as error:
            wrong.append(f"{line}: {type(error).__name__}: {error}")
            continue
        longest = max(longest, time.perf_counter() - began)
        said = capsys.readouterr().err
        if code not in (0, 2) or (code == 2 and (not said.startswith("error: ") or said.count("\n") != 1)):
            wrong.append(f"{line}: {code}: {said}")
    assert wrong == []
    assert longest < 10
