"""Runs from their arguments to their folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.training.run_files import FSQ, differing, last, train, write_config

import vidtok
from support import make_clip
from vidtok.cli import main
from vidtok.config.read import read_configs
from vidtok.errors import CheckpointError, VidTokError
from vidtok.training.config import TrainingConfig
from vidtok.training.data import DataConfig, build_data
from vidtok.training.module import PUBLISHED_NAMES
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.config import RunConfig
from vidtok.training.runs.run import keep_compiled_code_apart, plan_run
from vidtok.video import read_video, to_uint8
from vidtok.zoo.runs import newest_checkpoint, run_checkpoint

pytestmark = pytest.mark.gradients

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of an FSQ model, with everything switched on."""
    tmp_path = tmp_path_factory.mktemp("finished")
    with torch.enable_grad():
        return train(
            write_config(tmp_path, base=FSQ, adversarial=True), tmp_path / "logs", "-n", "my-run", "-s", "7",
            "--max_steps", "6", "--val_check_interval", "2", "model.params.ema_decay=0.5",
            "lightning.trainer.log_every_n_steps=1", "lightning.callbacks.shown.target=" + _IMAGE_LOGGER,
            "lightning.callbacks.shown.params.batch_frequency=2", "lightning.callbacks.shown.params.max_samples=1",
        )  # fmt: skip


_IMAGE_LOGGER = "vidtok.modules.logger.ImageVideoLogger"


def test_folder(finished: Path) -> None:
    assert finished.parent.name == "logs"
    date, _, name = finished.name.partition("_")
    assert name == "my-run"
    assert len(date) == len("2026-01-01T00-00-00")
    names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    checkpoints = [name for name in names if name.startswith("checkpoints/")]
    assert checkpoints == [
        "checkpoints/best-step=000000004.ckpt", "checkpoints/best.json", "checkpoints/last.ckpt",
        "checkpoints/step=000000002.ckpt", "checkpoints/step=000000004.ckpt", "checkpoints/step=000000006.ckpt",
    ]  # fmt: skip
    shown = [name for name in names if name.startswith(("images", "videos"))]
    assert shown == [
        "images/train/step=000000004.png", "images/val/step=000000004.png",
        "videos/train/step=000000004.mp4", "videos/val/step=000000004.mp4",
    ]  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)


def test_config_that_is_kept_says_all(finished: Path) -> None:
    (path,) = (finished / "configs").iterdir()
    kept = read_configs([path])
    assert kept.model.ch == 8
    assert kept.raw["model"]["params"]["ema_decay"] == 0.5
    assert kept.raw["lightning"]["seed"] == 7
    assert kept.raw["lightning"]["trainer"]["max_steps"] == 6


def test_interpolations_see_the_options(tmp_path: Path) -> None:
    """As the recipes have it, a schedule that ends with the run does so where the command line says how long it is."""
    schedule = [
        "model.params.lr_schedule.decay=linear",
        "model.params.lr_schedule.decay_steps=${lightning.trainer.max_steps}",
    ]
    words = ["-b", str(write_config(tmp_path)), "--logdir", str(tmp_path), *schedule, "lightning.trainer.max_steps=9"]
    for options, steps in (([], 9), (["--max_steps", "3", "--precision", "bf16-mixed"], 3)):
        raw = plan_run(parse_arguments([*words, *options])).config.raw
        assert raw["model"]["params"]["lr_schedule"]["decay_steps"] == raw["lightning"]["trainer"]["max_steps"] == steps
    assert raw["lightning"]["trainer"]["precision"] == "bf16-mixed"


def test_pictures_show_input_above_reconstruction(finished: Path) -> None:
    (path,) = (finished / "configs").iterdir()
    data = build_data(read_configs([path]).raw["data"], seed=7)
    clip = to_uint8(next(iter(data.val_dataloader()))["video"][0])
    (picture,) = read_video(finished / "images" / "val" / "step=000000004.png")
    assert picture.shape == (48, 3 * 24, 3)
    assert (picture[:24].numpy() == np.concatenate([clip[0], clip[2], clip[4]], axis=1)).all()
    assert (picture[24:] != picture[:24]).any()
    shown = read_video(finished / "videos" / "val" / "step=000000004.mp4")
    assert shown.shape == (5, 48, 24, 3)
    assert abs(shown[:, :24].numpy().astype(float) - clip).mean() < 8


def test_scalars_are_logged(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert scalars >= {
        "train/rec_loss", "train/disc_loss", "train/aux_loss", "train/grad_norm_generator", "lr/generator",
        "lr/discriminator", "val/psnr", "val_ema/psnr", "val/ssim", "val/codebook_use",
    }  # fmt: skip
    for published, own in PUBLISHED_NAMES.items():
        assert [event.value for event in events.Scalars(published)] == [event.value for event in events.Scalars(own)]
    assert set(events.Tags()["images"]) == {"val/reconstruction", "train/reconstruction"}


def test_run_loads_and_exports(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = last(finished)["state_dict"]
    model, averaged = vidtok.load(finished), vidtok.load(finished, ema=True)
    assert model.name == "my-run"
    name = "encoder.conv_in.conv.weight"
    assert torch.equal(model.get_parameter(name), state[name])
    assert torch.equal(averaged.get_parameter(name), state["model_ema.encoderconv_inconvweight"])
    assert not torch.equal(model.get_parameter(name), averaged.get_parameter(name))
    earlier = vidtok.load(finished, finished / "checkpoints" / "step=000000002.ckpt")
    assert not torch.equal(model.get_parameter(name), earlier.get_parameter(name))

    assert main(["export", str(finished), str(finished)]) == 2
    assert main(["export", str(finished), str(tmp_path / "slim")]) == 0
    assert "moving averages of" in capsys.readouterr().out
    exported = vidtok.load(tmp_path / "slim")
    assert exported.name == "my-run"
    assert differing(exported.state_dict(), averaged.state_dict()) == []
    half = [str(finished), str(tmp_path / "half"), "--no-ema", "--dtype", "float16", "--name", "half"]
    assert main(["export", *half]) == 0
    saved = vidtok.load(tmp_path / "half", dtype=torch.float16)
    assert saved.name == "half"
    assert torch.equal(saved.get_parameter(name), state[name].half())
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("slim", "half")]
    assert sizes[1] < 0.6 * sizes[0] < 0.1 * (finished / "checkpoints" / "last.ckpt").stat().st_size
    video = make_clip(1, 3, 5, 24, 24)
    with torch.no_grad():
        assert torch.equal(exported(video)[1], averaged(video)[1])


def test_exports_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(write_config(tmp_path), tmp_path, "--max_steps", "2", "-n", "plain")
    assert main(["export", str(folder), str(tmp_path / "out")]) == 0
    assert "weights of" in capsys.readouterr().out
    assert main(["export", str(folder), str(tmp_path / "out"), "--ema"]) == 2
    assert "holds no moving averages" in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "is not the folder of a training run" in capsys.readouterr().err


def test_starts_from_weights(finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, base=FSQ, adversarial=True)
    options = ("--max_steps", "2", "--checkpoint_auto_resume", "false", "model.base_learning_rate=1e-12")
    start = last(finished)["state_dict"]
    same = last(train(config, tmp_path, *options, f"model.params.ckpt_path={finished}"))["state_dict"]
    for name in ("encoder.conv_in.conv.weight", "decoder.conv_out.conv.weight", "loss.discriminator.main.0.weight"):
        torch.testing.assert_close(same[name], start[name], atol=1e-9, rtol=0)
    slim = tmp_path / "slim"
    vidtok.load(finished).save_pretrained(slim)
    other = last(
        train(
            config, tmp_path / "b", *options, f"model.params.ckpt_path={slim}", "model.params.ignore_keys=[decoder.]",
            "model.params.ema_decay=0.9",
        )
    )["state_dict"]  # fmt: skip
    torch.testing.assert_close(
        other["encoder.conv_in.conv.weight"], start["encoder.conv_in.conv.weight"], atol=1e-9, rtol=0
    )
    assert not torch.allclose(other["decoder.conv_out.conv.weight"], start["decoder.conv_out.conv.weight"], atol=1e-3)
    average = other["model_ema.encoderconv_inconvweight"]
    torch.testing.assert_close(average, start["encoder.conv_in.conv.weight"], atol=1e-9, rtol=0)


def test_trains_from_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    options = ["--logdir", str(tmp_path), "--max_steps", "1", "--no_date", "--no-test"]
    assert main(["train", str(config), *options, "data.params.batch_size=1"]) == 0
    assert last(tmp_path / "tiny")["global_step"] == 1
    assert main(["train", str(config), *options, "data.params.batch_siz=1"]) == 2
    err = capsys.readouterr().err
    assert "data.params.batch_siz is not known (did you mean batch_size" in err
    assert "Traceback" not in err
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "CONFIG... [options] [section.key=value ...]" in text
    assert "--accumulate_grad_batches" in text
    assert main(["train", str(config), "--bogus"]) == 2
    assert "unrecognized argument: --bogus" in capsys.readouterr().err


def test_tests_after_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["data"]["params"]["test"] = values["data"]["params"]["validation"]
    path.write_text(yaml.safe_dump(values))
    train(path, tmp_path / "a", "--max_steps", "1")
    assert "test/psnr" in capsys.readouterr().out
    folder = train(path, tmp_path / "a", "--max_steps", "1", "--no-test")
    assert "test/psnr" not in capsys.readouterr().out
    train(path, tmp_path / "a", "-t", "false", "-r", str(folder))
    assert "test/psnr" in capsys.readouterr().out


def test_scales_the_learning_rate(tmp_path: Path) -> None:
    options = ("--max_steps", "1", "--accumulate_grad_batches", "3", "--no_date")
    folder = train(write_config(tmp_path), tmp_path, *options, "--scale_lr")
    groups = last(folder)["optimizer_states"][0]["param_groups"]
    assert groups[0]["lr"] == pytest.approx(1e-3 * 3 * 2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision(tmp_path: Path, precision: str) -> None:
    folder = train(write_config(tmp_path, adversarial=True), tmp_path, "--max_steps", "2", "--precision", precision)
    state = last(folder)["state_dict"]
    assert state["encoder.conv_in.conv.weight"].dtype == torch.float32


def test_validates_across_short_epochs(tmp_path: Path) -> None:
    folder = train(write_config(tmp_path), tmp_path, "--max_steps", "5", "--val_check_interval", "4")
    assert (folder / "checkpoints" / "best-step=000000004.ckpt").is_file()


def test_fast_dev_run_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = train(write_config(tmp_path), tmp_path, "--fast_dev_run", "true")
    assert not list(folder.rglob("*.ckpt"))


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    shown = f"lightning.callbacks.shown.target={_IMAGE_LOGGER}"
    options = ("--max_steps", "2", "--val_check_interval", "1", "--wandb", "--wandb_project", "p", shown)
    folder = train(write_config(tmp_path), tmp_path, *options)
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert not (folder / "tensorboard").exists()


def test_errors_of_resuming(tmp_path: Path) -> None:
    with pytest.raises(
        VidTokError,
        match=r"no configuration is given; expected one or more of CONFIG \(or --base CONFIG\.yaml\), or --resume",
    ):
        plan_run(parse_arguments([]))
    with pytest.raises(CheckpointError, match="is not the folder of a run; expected one with configs/"):
        plan_run(parse_arguments(["-r", str(tmp_path)]))
    (tmp_path / "loose.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"loose.ckpt is not in the checkpoints/ of a run's folder; to go on"):
        plan_run(parse_arguments(["-r", str(tmp_path / "loose.ckpt")]))
    for part in ("configs", "checkpoints"):
        (tmp_path / "run" / part).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"has no last.ckpt and no step=\*.ckpt: the run has not come"):
        plan_run(parse_arguments(["-r", str(tmp_path / "run")]))
    (tmp_path / "run" / "checkpoints" / "step=000000010.ckpt").touch()
    with pytest.raises(CheckpointError, match="has no YAML file in configs/; expected the folder of a training run"):
        plan_run(parse_arguments(["-r", str(tmp_path / "run")]))
    (tmp_path / "run" / "checkpoints" / "step=000000200.ckpt").touch()
    assert run_checkpoint(tmp_path / "run").name == "step=000000200.ckpt"
    assert newest_checkpoint(tmp_path) is None


def test_refuses_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    folder = train(config, tmp_path, "--max_steps", "2")
    weights = tmp_path / "weights.ckpt"
    torch.save({"state_dict": last(folder)["state_dict"]}, weights)
    with pytest.raises(CheckpointError, match=r"holds no optimizer_states: it is a checkpoint of weights.*ckpt_path="):
        train(config, tmp_path / "b", "--resume_from_checkpoint", str(weights))
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not fit the model: .* misshapen"):
        train(
            config, tmp_path / "b", "--resume_from_checkpoint", checkpoint, "model.params.encoder_config.params.ch=16"
        )
    with pytest.raises(CheckpointError, match="does not fit the model"):
        train(config, tmp_path / "b", f"model.params.ckpt_path={weights}", "model.params.encoder_config.params.ch=16")
    with pytest.raises(VidTokError, match=r"ignore_keys \['decodr'\] match no name in .*weights.ckpt"):
        train(config, tmp_path / "b", f"model.params.ckpt_path={weights}", "model.params.ignore_keys=[decodr]")


@pytest.mark.parametrize("options", [["model.params.encoder_config.params.ch=16"], ["--max_steps", "abc"]])
def test_a_refused_start_leaves_the_run_as_it_was(tmp_path: Path, options: list[str]) -> None:
    folder = train(write_config(tmp_path), tmp_path, "--max_steps", "1")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(VidTokError):
        train(None, tmp_path, "-r", str(folder), "--max_steps", "2", *options)
    assert sorted(tmp_path.rglob("*")) == before
    vidtok.load(folder)


@pytest.mark.parametrize(
    "recipe", ["stage_one", "stage_two", "finetune", "finetune_long", "tiny", "pictures", "synthetic_tiny"]
)
def test_recipes_of_the_package(recipe: str) -> None:
    base = [] if recipe == "synthetic_tiny" else ["vidtok_kl_causal_488_16chn_v1_1"]
    given = ["model.params.ckpt_path=x"]
    if "tiny" not in recipe and recipe != "pictures":
        given += [f"data.params.{part}.params.data_dir=." for part in ("train", "validation")]
    raw = plan_run(parse_arguments(["-b", *base, recipe, *given])).config.raw
    settings, running = TrainingConfig.from_raw(raw), RunConfig.from_raw(raw)
    data = DataConfig.from_section(raw["data"])
    ObjectiveConfig.from_dict(raw["model"]["params"]["loss_config"]["params"])
    assert settings.fix_encoder == (recipe == "stage_two")
    sizes = {"stage_one": (100_000, 2), "stage_two": (60_000, 1)}
    if recipe in sizes:
        assert (running.trainer["max_steps"], data.batch_size) == sizes[recipe]
        assert running.strategy == "ddp"


def test_each_process_of_a_machine_compiles_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, given, expected in [("0", "/cache", "/cache"), ("1", "/cache", "/cache-1"), (None, "/cache", "/cache")]:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given)
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if rank is not None:
            monkeypatch.setenv("LOCAL_RANK", rank)
        keep_compiled_code_apart()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == expected
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("LOCAL_RANK", "1")
    keep_compiled_code_apart()
    assert re.fullmatch(r"torchinductor_.+-1", Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).name)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
