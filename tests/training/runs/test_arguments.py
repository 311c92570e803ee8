"""The arguments of `main.py` and `vidtok train`."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from vidtok.errors import TrainingError
from vidtok.training.runs.arguments import TRAINER_OPTIONS, parse_arguments
from vidtok.training.runs.folder import new_folder, run_name

pytestmark = pytest.mark.gradients


def test_names_of_runs() -> None:
    def name(*arguments: str) -> str:
        return run_name(parse_arguments(arguments))

    assert name("-b", "a/configs/b/c.yaml") == "b-c"
    assert name("-b", "configs/c.yaml") == "c"
    assert name("-b", "a/c.yaml", "vidtok_kl_causal_488_4chn", "-f", "_x") == "c-vidtok_kl_causal_488_4chn_x"
    assert name("-b", "a/configs/b/c.yaml", "--legacy_naming") == "c"
    assert name("-b", "a/c.yaml", "-n", "mine", "-f", "_x") == "mine_x"


def test_arguments() -> None:
    found = parse_arguments(
        ["-b", "a.yaml", "b.yaml", "--base", "c.yaml", "-s", "3", "-t", "--no_date", "false", "--devices", "0,",
         "--max_epochs", "3", "--wandb", "--benchmark", "true", "model.x=1", "--data.y=2", "--precision", "32-true"]
    )  # fmt: skip
    assert found.base == ["a.yaml", "b.yaml", "c.yaml"]
    assert (found.seed, found.train, found.no_date, found.wandb, found.logdir) == (3, True, False, True, "logs")
    assert found.trainer == {"devices": "0,", "max_epochs": 3, "benchmark": True, "precision": "32-true"}
    assert found.overrides == ["model.x=1", "--data.y=2"]
    assert parse_arguments(["a", "b.c=1", "d.yaml"], prog="vidtok train").base == ["a", "d.yaml"]


def test_long_options_may_be_abbreviated() -> None:
    found = parse_arguments(["--bas", "a.yaml", "--max_epo", "3", "--no_dat", "--checkpoint_a", "false", "--postf=_x"])
    assert (found.base, found.trainer, found.no_date) == (["a.yaml"], {"max_epochs": 3}, True)
    assert (found.checkpoint_auto_resume, found.postfix) == (False, "_x")


@pytest.mark.parametrize("prog", ["main.py", "vidtok train"])
def test_overrides_of_a_top_level_key_have_no_dot(prog: str) -> None:
    found = parse_arguments(["x=1", "model.y=2", "-b", "a.yaml", "data=null", "-n", "z=3"], prog=prog)
    assert (found.base, found.overrides, found.name) == (["a.yaml"], ["x=1", "model.y=2", "data=null"], "z=3")


def test_a_run_without_the_name_of_its_configuration(tmp_path: Path) -> None:
    words = ["-b", "a.yaml", "--no_base_name", "-l", str(tmp_path)]
    assert run_name(parse_arguments(words)) == ""
    assert re.fullmatch(r"\d{4}(-\d\d){2}T\d\d(-\d\d){2}", new_folder(parse_arguments(words)).name)
    assert run_name(parse_arguments([*words, "-f", "_x"])) == "_x"
    with pytest.raises(TrainingError, match="neither a name nor a date"):
        new_folder(parse_arguments([*words, "--no_date"]))


def test_published_options_that_change_nothing_are_taken() -> None:
    found = parse_arguments(["--startup", "--logger", "true", "--callbacks", "x", "--plugins", "y"])
    assert found.without_effect == ("startup", "logger", "callbacks", "plugins")
    assert parse_arguments(["--model_registry", "name"]).without_effect == ("model_registry",)
    assert parse_arguments([]).without_effect == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml"], "unrecognized argument: a.yaml"),
        (["--wandb", "maybe"], "'maybe' is neither true nor false"),
        (["--max", "2"], "ambiguous option: --max could match"),
        (["--max_stepz=2"], "--max_stepz=2 is neither an option nor an override such as"),
    ],
)
def test_arguments_that_are_not_known(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_every_option_of_lightning_is_offered() -> None:
    options = set(inspect.signature(Trainer).parameters) - {"logger", "callbacks", "plugins", "model_registry"}
    assert options == set(TRAINER_OPTIONS)


def test_reading_the_arguments_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidtok.cli, vidtok.training.runs.entry; print({'lightning', 'torch'} & {*sys.modules} or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
