"""Training the second family: it learns, its run loads, and what is frozen or unused stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.training.run_files import last, train

import vidtok
from twin import YAML
from vidtok import VidTwin
from vidtok.config.read import read_config
from vidtok.training.config import LearningRateSchedule, TrainingConfig
from vidtok.training.objective.config import ObjectiveConfig

pytestmark = pytest.mark.gradients

_RECIPE = Path(vidtok.__file__).parent / "configs" / "training" / "vidtwin_tiny.yaml"
_REST = """\
  base_learning_rate: 3.0e-3
data:
  params:
    train: &clips
      params:
        clips_per_epoch: 24
        video_params: {{input_height: 32, input_width: 32}}
    validation: *clips
lightning:
  callbacks: null
  modelcheckpoint: {{params: {{every_n_train_steps: 1000}}}}
  trainer: {{accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false, val_check_interval: {steps},
            max_steps: {steps}}}
"""


def write_config(folder: Path, steps: int) -> Path:
    """The recipe of the package, with the smallest model of the tests."""
    path = folder / "tiny.yaml"
    text = YAML.replace("base: vidtwin_structure_7_7_8_dynamics_7_8", f"base: {_RECIPE}") + _REST.format(steps=steps)
    path.write_text(text.replace("        num_workers: 1", "        num_workers: 0"))
    return path


def scalars(folder: Path, name: str) -> list[float]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    folder = train(write_config(tmp_path, 60), tmp_path / "logs", "data.params.num_workers=0")
    losses = scalars(folder, "train/rec_loss")
    assert len(losses) == 60
    first, final = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    assert final < 0.6 * first
    loaded = vidtok.load(folder)
    assert type(loaded) is VidTwin
    psnr = scalars(folder, "val/psnr")
    assert psnr[-1] > 11
    assert scalars(folder, "train/kl_loss")[-1] > 0


def test_what_is_frozen_or_unused_does_not_change(tmp_path: Path) -> None:
    config = write_config(tmp_path, 2)
    frozen = "model.params.encoder_config.params.fix_encoder=true"
    folder = train(config, tmp_path / "logs", frozen, "data.params.num_workers=0", "--seed", "5")
    torch.manual_seed(0)
    weights = last(folder)["state_dict"]
    start = train(config, tmp_path / "again", frozen, "data.params.num_workers=0", "--seed", "5", "--max_steps", "1")
    before = last(start)["state_dict"]
    changed = {name.partition(".")[0] for name in weights if not torch.equal(weights[name], before[name])}
    assert changed & set(VidTwin.encoding_modules) == set()
    assert changed >= set(VidTwin.decoding_modules)
    for name in ("decoder.x_embedder.proj.weight", "encoder.final_layer.linear.weight"):
        assert torch.equal(weights[name], before[name])


def test_the_published_settings() -> None:
    raw = read_config("vidtwin_structure_7_7_8_dynamics_7_8").raw
    settings = TrainingConfig.from_raw(raw)
    assert (settings.optimizer, settings.base_learning_rate) == ("adamw", 1.6e-4)
    assert settings.optimizer_options == {"betas": (0.0, 0.9), "weight_decay": 1e-4}
    objective = ObjectiveConfig.from_dict(raw["model"]["params"]["loss_config"]["params"])
    assert (objective.perceptual_weight, objective.disc_weight) == (0.05, 0.05)


def test_the_schedule_rises_and_then_falls_as_the_inverse_square_root() -> None:
    schedule = LearningRateSchedule(warmup_steps=99, decay="inverse_sqrt")
    assert schedule.factor(0) == pytest.approx(0.01)
    assert schedule.factor(49) == pytest.approx(0.5)
    assert schedule.factor(99) == pytest.approx(1)
    assert schedule.factor(399) == pytest.approx(0.5)
    assert schedule.factor(9999) == pytest.approx(0.1)
