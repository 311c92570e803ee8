"""Refusals of a run before it begins, each in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.training.run_files import train, write_config

from vidtok.cli import main
from vidtok.errors import VidTokError
from vidtok.training.runs import trainer

pytestmark = pytest.mark.gradients

_IMAGE_LOGGER = "vidtok.modules.logger.ImageVideoLogger"


@pytest.mark.parametrize("missing", ["tensorboard", "wandb", "lightning"])
def test_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    arguments = ["train", str(write_config(tmp_path)), "--logdir", str(tmp_path)]
    if missing == "lightning":
        monkeypatch.setitem(sys.modules, "lightning", None)
        monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
        monkeypatch.delitem(sys.modules, "vidtok.training.runs.run", raising=False)
    else:
        monkeypatch.setattr(trainer, "find_spec", lambda _: None)
    assert main([*arguments, *(["--wandb"] if missing == "wandb" else [])]) == 2
    extra = "wandb" if missing == "wandb" else "train"
    assert f"not installed: `pip install 'vidtok[{extra}]'`" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.base_learning_rate=0"], "model.base_learning_rate is 0; expected a number above 0"),
        (["model.params.monitor=val/psnrr"], "model.params.monitor is val/psnrr, which validation does not give (did"),
        (["model.params.monitor=val_ema/psnr"], "which validation does not give"),
        (["model.params.mode=most"], "model.params.mode is 'most'; expected min or max"),
        (["model.params.ema_decay=1"], "model.params.ema_decay is 1; expected a number from 0 to less than 1"),
        (["model.params.lr_g_factor=-1"], "model.params.lr_g_factor is -1; expected a number of at least 0"),
        (["model.params.compile_model=2"], "model.params.compile_model is 2; expected true or false"),
        (["model.params.ignore_keys=a"], "model.params.ignore_keys is 'a'; expected a list of prefixes"),
        (["model.params.ignore_keys=[1]"], "model.params.ignore_keys is [1]; expected a list of prefixes"),
        (["model.params.monitor=[1]"], "model.params.monitor is [1]; expected a metric's name"),
        (["model.params.lr_schedule.warmup=1"], "model.params.lr_schedule.warmup is not known (did you mean"),
        (["model.params.lr_schedule.warmup_steps=-1"], "warmup_steps is -1; expected a whole number"),
        (["model.params.lr_schedule.decay=exp"], "decay is 'exp'; expected one of none, linear, cosine"),
        (
            ["model.params.lr_schedule.decay=cosine", "model.params.lr_schedule.decay_steps=0"],
            "decay_steps is 0; expected the step at which the decay ends, after the warm-up; or nothing, and lightning",
        ),
        (["model.params.lr_schedule.hold=1"], "hold is 1; expected a share from 0 to less than 1"),
        (["model.params.lr_schedule.cooldown=1"], "cooldown is 1; expected a share from 0 to 1, and 0 where"),
        (["model.params.lr_schedule.final=2"], "final is 2; expected a share from 0 to 1"),
        (["model.params.lr_schedule=3"], "model.params.lr_schedule is 3; expected a mapping"),
        (["model.params.optimizer_config.params.lr=1"], "optimizer_config.params.lr is not known"),
        (["model.params.optimizer_config.params.betas=[1,2]"], "betas is [1, 2]; expected two numbers from 0"),
        (["model.params.optimizer_config.params.eps=-1"], "eps is -1; expected a number of at least 0"),
        (["-b", "finetune"], "model.params.ckpt_path is not given; expected the weights to start from"),
        (["model.params.ckpt_path=none.ckpt"], "the checkpoint none.ckpt does not exist"),
        (
            [f"model.params.encoder_config.params.fix_{part}=true" for part in ("encoder", "decoder")],
            "fix_encoder and fix_decoder are both true; expected at least one part left to train",
        ),
        (["model.params.loss_config.params.disc_strat=1"], "params.disc_strat is not known (did you mean disc_st"),
        (["model.params.loss_config.param.a=1"], "model.params.loss_config.param is not known (did you mean params"),
        (["model.params.loss_config.target=torch.nn.Identity"], "model.params.loss_config asks for no objective"),
        (["model.params.loss_config.params.perceptual_weight=1"], "To train without LPIPS, set perceptual_weight: 0"),
        (["lightning.trainr=1"], "lightning.trainr is not known (did you mean trainer"),
        (["lightning.trainer=1"], "lightning.trainer is 1; expected a mapping"),
        (["lightning.trainer.max_step=1"], "lightning.trainer.max_step is not known (did you mean max_steps"),
        (["--accumulate_grad_batches", "0"], "accumulate_grad_batches is 0; expected a whole number of at least 1"),
        (["--log_every_n_steps", "-1"], "log_every_n_steps is -1; expected a whole number of steps from 0 (never) up"),
        (["--gradient_clip_val", "0"], "gradient_clip_val is 0; expected a norm above 0, or null"),
        (["--gradient_clip_algorithm", "value"], "gradients are clipped by their norm alone"),
        (["--precision", "16-mixed"], "precision is 16-mixed: half precision cannot hold"),
        (["--precision", "8"], "Lightning's Trainer refuses its options"),
        (["--strategy", "magic"], "the strategy is 'magic'; expected one of auto, ddp,"),
        (["--max_time", "a:b"], "Lightning's Trainer refuses its options"),
        (["--max_time", "3"], "--max_time is 3; expected a time as DD:HH:MM:SS, or a mapping such as {hours: 12}"),
        (["lightning.trainer.max_epochs=abc"], "lightning.trainer.max_epochs is 'abc'; expected a whole number"),
        (["lightning.trainer.devices=x"], "lightning.trainer.devices is 'x'; expected auto, a number of devices"),
        (["lightning.strategy.params.shards=2"], "lightning.strategy.params.shards is not known"),
        (["lightning.strategy.target=torch.optim.Adam"], "lightning.strategy.target is torch.optim.Adam, a name"),
        (["lightning.seed=-1"], "lightning.seed is -1; expected a whole number of at least 0"),
        (["lightning.scale_lr=2"], "lightning.scale_lr is 2; expected true or false"),
        (["lightning.modelcheckpoint.params.every_n=1"], "modelcheckpoint.params.every_n is not known"),
        (["lightning.modelcheckpoint.params.save_top_k=-2"], "save_top_k is -2; expected a whole number of at least 0"),
        (["lightning.callbacks.a=1"], "lightning.callbacks.a is 1; expected a mapping with target and params"),
        (["lightning.callbacks.a.params.b=1"], "lightning.callbacks.a.target is missing"),
        (
            [f"lightning.callbacks.a.target={_IMAGE_LOGGER}", "lightning.callbacks.a.params.batch_frequenc=1"],
            "lightning.callbacks.a.params.batch_frequenc is not known (did you mean batch_frequency",
        ),
        (
            [f"lightning.callbacks.a.target={_IMAGE_LOGGER}", "lightning.callbacks.a.params.max_samples=0"],
            "lightning.callbacks.a.params.max_samples is 0; expected a whole number of at least 1",
        ),
        (
            [f"lightning.callbacks.a.target={_IMAGE_LOGGER}", "lightning.callbacks.a.params.fps=0"],
            "lightning.callbacks.a.params.fps is 0; expected a number above 0",
        ),
        (["-n", "a/b"], "the run's name is 'a/b'; expected a name for a folder, without slashes"),
        (["-r", "nowhere"], "the checkpoint nowhere does not exist; expected the folder of a run"),
        (["-r", "a", "--resume_from_checkpoint", "b"], "both given; expected one of them"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(VidTokError) as caught:
        train(write_config(tmp_path), tmp_path / "logs", "--max_steps", "1", *options)
    assert message in str(caught.value)
    assert not (tmp_path / "logs").exists()


def test_options_that_lightning_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(VidTokError, match=r"Trainer refuses its options: .*; lightning.trainer has .*precision: 8"):
        train(write_config(tmp_path), tmp_path, "--precision", "8")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        VidTokError, match=r"the run's folder .*file.* cannot be made or written to: .*another --logdir"
    ):
        train(write_config(tmp_path), tmp_path / "file", "--max_steps", "1")


def test_all_problems_are_told_at_once_before_pytorch_is_loaded(tmp_path: Path) -> None:
    overrides = [
        "model.params.encoder_config.params.chh=3", "model.params.encoder_config.params.ch=0",
        "model.params.lr_schedule.warmup=1", "model.base_learning_rate=0", "lightning.trainer.max_stepz=3",
        "model.params.loss_config.params.disc_wieght=1", "data.params.batch_sise=2",
        "data.params.train.params.data_dir=nowhere", "data.params.validation.params.data_dir=nowhere",
    ]  # fmt: skip
    line = ["train", "vidtok_kl_causal_488_4chn", "stage_two", *overrides]
    run = f"import sys; from vidtok.cli import main; code = main({line!r})"
    code = f"{run}; assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    first, *told = done.stderr.splitlines()
    assert first == "error: the configuration has 10 problems:"
    sections = "  vidtok_kl_causal_488_4chn + stage_two: model.params"
    source = f"{sections}.encoder_config.params"
    for beginning in (
        f"{source}.chh is not known (did you mean ch?)", f"{sections}: ch is 0; expected a whole number",
        "  model.params.ckpt_path is not given", "  model.params.lr_schedule.warmup is not known",
        "  model.base_learning_rate is 0;", "  model.params.loss_config.params.disc_wieght is not known",
        "  lightning.trainer.max_stepz is not known", "  data.params.batch_sise is not known",
        "  data.params.train.params.data_dir: nowhere does not exist; check the path",
        "  data.params.validation.params.data_dir: nowhere does not exist; check the path",
    ):  # fmt: skip
        assert len([line for line in told if line.startswith(beginning)]) == 1, (beginning, told)
    assert not list(tmp_path.iterdir())
