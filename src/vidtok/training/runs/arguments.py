"""The options of `main.py` and `vidtok train`: the published ones, and every option of Lightning's Trainer."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from vidtok.config.layers import from_overrides, resolve
from vidtok.errors import ConfigError
from vidtok.fields import Check, Within, fit, from_text
from vidtok.text import fault

TRAINER_OPTIONS = (
    "accelerator", "strategy", "devices", "num_nodes", "precision", "fast_dev_run", "max_epochs", "min_epochs",
    "max_steps", "min_steps", "max_time", "limit_train_batches", "limit_val_batches", "limit_test_batches",
    "limit_predict_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
    "num_sanity_val_steps", "log_every_n_steps", "enable_checkpointing", "enable_progress_bar",
    "enable_model_summary", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
    "deterministic", "benchmark", "inference_mode", "use_distributed_sampler", "profiler", "detect_anomaly",
    "barebones", "sync_batchnorm", "reload_dataloaders_every_n_epochs", "default_root_dir",
    "enable_autolog_hparams",
)  # fmt: skip
"""Options of Lightning's Trainer that are plain values, as `--option value` or under `lightning.trainer`."""

_MANY = 10**12
_MOST_DEVICES = 4096
_Endless = Annotated[int, Within(-1, _MANY)]
_Steps = Annotated[int, Within(0, _MANY)]
_Share = Annotated[int, Within(0, _MANY)] | Annotated[float, Within(0, 1)]
_DEVICES = "auto, a number of devices, -1 for all, or their numbers such as 0,1"
_DEVICE_NUMBERS = re.compile(r"\d{1,4}(,\d{1,4})*,?")
_TIME = "a time as DD:HH:MM:SS, or a mapping such as {hours: 12}"
TRAINER_VALUES: Mapping[str, Any] = {
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), _Endless | None),
    **dict.fromkeys(("min_epochs", "min_steps", "reload_dataloaders_every_n_epochs"), _Steps | None),
    **dict.fromkeys(
        ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
        _Share | None,
    ),
    **dict.fromkeys(
        ("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "benchmark", "inference_mode",
         "use_distributed_sampler", "detect_anomaly", "barebones", "sync_batchnorm", "enable_autolog_hparams"),
        bool | None,
    ),
    "num_nodes": Annotated[int, Within(1, 10**5)],
    "check_val_every_n_epoch": Annotated[int, Within(1, _MANY)] | None,
    "log_every_n_steps": Annotated[int, Within(0, _MANY, expected="a whole number of steps from 0 (never) up")] | None,
    "accumulate_grad_batches": Annotated[int, Within(1, 10**6)],
    "gradient_clip_val": Annotated[float, Within(above=0, most=1e12, expected="a norm above 0")] | None,
    "fast_dev_run": bool | Annotated[int, Within(0, 10**6)],
    "val_check_interval": Annotated[int, Within(1, _MANY)] | Annotated[float, Within(above=0, most=1)] | None,
    "deterministic": bool | Literal["warn"] | None,
    "devices": Annotated[int | str | tuple[int, ...], Check(_DEVICES, lambda value: _names_devices(value))],
    "max_time": Annotated[str, Check(_TIME)] | Annotated[Mapping[str, float], Check(_TIME)] | None,
}  # fmt: skip
"""Values that the Trainer's options take, as hints of `vidtok.fields`; Lightning checks the others itself."""
Seed = Annotated[int, Within(0, 2**32 - 1)]


_OVERRIDE = re.compile(r"(--)?[A-Za-z_]\w*(\.\w+)+=")
_TOP_LEVEL = re.compile(r"[A-Za-z_]\w*=")
_WITHOUT_EFFECT = ("startup", "logger", "callbacks", "plugins", "model_registry")
"""Published options that change nothing here: loggers, callbacks and plugins come from the configuration."""
_PUBLISHED = "main.py"
"""The published command; its configurations all follow `--base`."""


@dataclass(kw_only=True)
class TrainArguments:
    """The arguments of a run; the defaults are the published ones."""

    base: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    trainer: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    no_base_name: bool = False
    postfix: str = ""
    project: str = ""
    logdir: str = "logs"
    no_date: bool = False
    legacy_naming: bool = False
    resume: str = ""
    resume_from_checkpoint: str = ""
    checkpoint_auto_resume: bool = True
    train: bool = True
    no_test: bool = False
    debug: bool = False
    seed: int | None = None
    seed_rank: bool = False
    scale_lr: bool = False
    enable_tf32: bool = True
    wandb: bool = False
    wandb_entity: str | None = None
    wandb_key: str | None = None
    wandb_project: str = "vidtok"
    wandb_id: str | None = None
    wandb_auto_resume: bool = True
    allow_base: list[str] = field(default_factory=list)
    """Files and folders that `base:` may lead to outside the folder of the file that names them."""
    quiet: bool = False
    verbose: bool = False
    without_effect: tuple[str, ...] = ()
    """Options that were given and change nothing here."""


def parse_arguments(argv: Sequence[str] | None = None, *, prog: str = _PUBLISHED) -> TrainArguments:
    """The arguments in `argv`. Ends the process on `--help` and on unknown options.

    Under another `prog`, configurations may stand without `--base` in front.
    """
    parser = _parser(prog)
    words = list(sys.argv[1:] if argv is None else argv)
    overrides = [word for word in words if _OVERRIDE.match(word)]
    known, rest = parser.parse_known_args([word for word in words if not _OVERRIDE.match(word)])
    values = vars(known)
    base = [name for group in values.pop("base") or [] for name in group]
    for word in rest:
        if _TOP_LEVEL.match(word) or (not word.startswith("-") and prog != _PUBLISHED):
            base.append(word)
        elif "=" in word:
            parser.error(f"{word} is neither an option nor an override such as model.base_learning_rate=1e-4")
        else:
            parser.error(f"unrecognized argument: {word}")
    overrides += [word for word in base if _is_top_level(word)]
    trainer = {key: values.pop(key) for key in TRAINER_OPTIONS if key in values}
    return TrainArguments(
        base=[word for word in base if not _is_top_level(word)],
        overrides=sorted(overrides, key=words.index),
        without_effect=tuple(key for key in _WITHOUT_EFFECT if values.pop(key) is not None),
        trainer={key: _plain(key, value) for key, value in trainer.items() if value is not None},
        **values,
    )


def _is_top_level(word: str) -> bool:
    """True if a word among the configurations is an override of a top-level key, such as `data=null`."""
    return bool(_TOP_LEVEL.match(word)) and not Path(word).exists()


def _plain(key: str, text: str) -> Any:
    """The value of `--key text`, as YAML reads it: `--max_steps 10` is a number."""
    value: Any = text
    # YAML takes 12:00:00:00 for a number in base 60.
    if text.strip() and not (key == "max_time" and ":" in text and not text.startswith("{")):
        try:
            value = resolve(from_overrides([f"{key}={text}"]), f"--{key}")[key]
        except ConfigError as error:
            raise ConfigError(f"--{key} {text}: {error}") from error
    check_trainer_option(key, value, f"--{key}")
    return value


def check_trainer_option(key: str, value: object, place: str) -> None:
    """Raise `ConfigError` unless the Trainer's option `key` takes `value`, which stands at `place`."""
    if key in TRAINER_VALUES:
        fit(value, TRAINER_VALUES[key], place)


def _names_devices(value: int | str | tuple[int, ...]) -> bool:
    if isinstance(value, tuple):
        return 0 < len(value) <= _MOST_DEVICES and all(0 <= number < _MOST_DEVICES for number in value)
    if value in ("auto", "-1", -1):
        return True
    if isinstance(value, str):
        return bool(_DEVICE_NUMBERS.fullmatch(value)) and value.strip("0") != ""
    return 0 < value <= _MOST_DEVICES


class SentenceParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, like all errors of this package."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {fault(message, self.prog)}\n")


def number(hint: Any) -> Callable[[str], Any]:
    """The `type` of an argument that is a number; `hint` is an int or float annotated with `Within`."""

    def parse(text: str) -> Any:
        try:
            return from_text(text, hint)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = SentenceParser(
        prog=prog,
        usage=f"{prog} {'-b CONFIG' if prog == _PUBLISHED else 'CONFIG'}... [options] [section.key=value ...]",
        description="Train a model. Configurations are merged from left to right; section.key=value goes last.",
        epilog=_recipes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-b", "--base", nargs="*", action="append", metavar="CONFIG", help="YAML files, models, recipes")
    add("--allow_base", "--allow-base", action="append", default=[], metavar="PATH", help="file or folder for `base:`")
    add("-l", "--logdir", default="logs", help="folder for the runs' folders (default: logs)")
    add("-n", "--name", nargs="?", const="", default="", help="the run's name (default: after CONFIG)")
    add("--no_base_name", **_flag(), help="leave CONFIG out of the name: the date alone, with --postfix behind it")
    add("-f", "--postfix", default="", help="text to add at the end of the name")
    add("-p", "--project", default="", help="a folder below LOGDIR, new or not, for this run's folder")
    add("--no_date", **_flag(), help="leave the date out of the folder's name")
    add("--legacy_naming", **_flag(), help="name runs after the file alone, not after its folders below configs/ too")
    add("-r", "--resume", nargs="?", const="", default="", help="a run's folder or checkpoint, to go on with")
    add("--resume_from_checkpoint", default="", metavar="CKPT", help="go on in a new folder from a checkpoint or run")
    add("--checkpoint_auto_resume", **_flag(True), help="go on with the newest run of the same name (default: true)")
    add("-t", "--train", **_flag(True), help="train (default: true)")
    add("--no-test", "--no_test", dest="no_test", **_flag(), help="do not test after training")
    add("-d", "--debug", **_flag(), help="open the debugger where training fails")
    add("-s", "--seed", type=number(Seed), metavar="N", help="seed of weights, data and noise (default: 23)")
    add("--seed_rank", **_flag(), help="add each process's rank to its seed")
    add("--scale_lr", **_flag(), help="learning rate = base rate x accumulated batches x devices x batch size")
    add("--enable_tf32", **_flag(True), help="let NVIDIA GPUs round float32 products to TF32 (default: true)")
    add("--wandb", **_flag(), help="log to Weights & Biases instead of TensorBoard")
    add("--wandb_entity", help="user or team there")
    add("--wandb_key", help="API key there (better: `wandb login`)")
    add("--wandb_project", default="vidtok", help="project there (default: vidtok)")
    add("--wandb_id", help="the run's id there")
    add("--wandb_auto_resume", **_flag(True), help="a resumed run goes on under its id there (default: true)")
    add("-q", "--quiet", action="store_true", help="print warnings and errors alone")
    add("-v", "--verbose", action="store_true", help="let Lightning's own messages through too")
    for option in _WITHOUT_EFFECT:
        add(f"--{option}", nargs="?", const="", metavar="VALUE", help="published; has no effect here")
    group = parser.add_argument_group("Lightning's Trainer", "these replace values under lightning.trainer")
    for option in TRAINER_OPTIONS:
        group.add_argument(f"--{option}", metavar="VALUE")
    return parser


def _recipes() -> str:
    """The recipes that come with the package, for the end of the help."""
    from vidtok.config.recipes import recipes

    found = recipes().values()
    width = max(len(recipe.usage) for recipe in found)
    listed = "\n".join(f"  {recipe.usage.ljust(width)}  {recipe.about}" for recipe in found)
    return f"recipes (a model's name stands in place of MODEL; `vidtok models` lists them):\n{listed}"


def _flag(default: bool = False) -> dict[str, Any]:
    """An option that may stand alone or before a truth value."""
    return {"type": _boolean, "nargs": "?", "const": True, "default": default, "metavar": "true|false"}


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "y", "t", "1"):
        return True
    if text.lower() in ("false", "no", "n", "f", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
