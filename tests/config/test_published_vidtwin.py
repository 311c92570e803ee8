"""The published YAML file of VidTwin, all of its sections, as it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import vidtok
from support import ALL_MODELS
from vidtok.config.read import read_config
from vidtok.errors import ConfigError
from vidtok.training.config import TrainingConfig
from vidtok.training.data.config import DataConfig
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.runs.config import RunConfig

PUBLISHED = """\
model:
  base_learning_rate: 1.6e-4
  target: vidtwin.models.vidtwin_ae.VidAutoEncoderQformerCompactSymVidVAE
  params:
    monitor: val/rec_loss
    mode: min
    ckpt_path: PATH_TO_CHECKPOINT
    ignore_keys: []
    expect_ch: 8
    cont_num_blocks: 1
    downsample_motion: true
    motion_num_blocks: 1
    d_dim: 8
    temporal_qformer_config:
      target: vidtwin.modules.qformer.MyQformerInterface
      params:
        num_query_tokens: 16
        query_hidden_size: 64
        encoder_hidden_size: 768
    encoder_config:
      target: vidtwin.modules.st_transformer.STTEncoder
      params:
        in_channels: 3
        input_size: [16, 224, 224]
        patch_size: [1, 16, 16]
        hidden_size: 768
        depth: 16
        num_heads: 12
        temporal_casual: true
    decoder_config:
      target: vidtwin.modules.st_transformer.STTDecoder
      params: ${model.params.encoder_config.params}
    regularizer_config:
      target: vidtok.modules.regularizers.DiagonalGaussianRegularizer
    loss_config:
      target: vidtok.modules.losses.GeneralLPIPSWithDiscriminator
      params:
        perceptual_weight: 0.05
        disc_start: 20001
        disc_weight: 0.05
        learn_logvar: true
        dims: 3
        disc_type: 2d
        regularization_weights:
          kl_loss: 0.001
    lr_scheduler_config_d:
      target: vidtok.models.vidtwin_ae.LambdaWarmUpCosineScheduler
      params: {lr_min: 1.0e-6, lr_max: 1.0e-4, lr_start: 1.0e-6, warmup_steps: 5000}
    lr_scheduler_config_g:
      target: vidtok.models.vidtwin_ae.LambdaWarmUpCosineScheduler
      params: {lr_min: 1.0e-6, lr_max: 1.0e-4, lr_start: 1.0e-6, warmup_steps: 5000}
    optimizer_config:
      target: torch.optim.AdamW
      params:
        betas: [0, 0.9]
        weight_decay: 1.0e-4
    lr_scheduler_config:
      target: inverse_sqrt
      params:
        num_warmup_steps: 2000
      frequency: 1
data:
  target: vidtok.data.datamodule.DataModuleFromConfig
  params:
    batch_size: 2
    num_workers: 12
    train:
      target: vidtok.data.vidtok.VidTokDataset
      params:
        data_dir: DATA_DIR
        meta_path: META_PATH
        video_params: {input_height: 224, input_width: 224, sample_num_frames: 16, sample_fps: 8}
    validation:
      target: vidtok.data.vidtok.VidTokDataset
      params:
        data_dir: DATA_DIR
        meta_path: META_PATH
        video_params: {input_height: 224, input_width: 224, sample_num_frames: 16, sample_fps: 8}
        start_index: 0
lightning:
  strategy:
    target: lightning.pytorch.strategies.DDPStrategy
    params: {find_unused_parameters: true}
  modelcheckpoint:
    params: {every_n_train_steps: 5000}
  callbacks:
    image_logger:
      target: vidtok.modules.logger.ImageVideoLogger
      params: {disabled: false, batch_frequency: 5000, max_images: 8, clamp: true}
  trainer:
    devices: 4
    num_nodes: 1
    max_epochs: 10
"""


def write(folder: Path, text: str = PUBLISHED) -> Path:
    path = folder / "vidtwin.yaml"
    path.write_text(text)
    return path


def test_every_section_is_read_and_nothing_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run = read_config(write(tmp_path))
        training = TrainingConfig.from_raw(run.raw)
        data = DataConfig.from_section(run.raw["data"])
        lightning = RunConfig.from_raw(run.raw)
        objective = ObjectiveConfig.from_dict(run.raw["model"]["params"]["loss_config"]["params"])
    assert not caplog.records
    assert run.model == vidtok.VidTwinConfig()
    assert run.ckpt_path == "PATH_TO_CHECKPOINT"
    assert (training.optimizer, dict(training.optimizer_options)) == (
        "adamw", {"betas": (0, 0.9), "weight_decay": 1e-4}
    )  # fmt: skip
    assert (training.schedule.decay, training.schedule.warmup_steps) == ("inverse_sqrt", 2000)
    assert (objective.perceptual_weight, objective.regularization_weights) == (0.05, {"kl_loss": 0.001})
    assert data.validation is not None
    assert (lightning.strategy, lightning.trainer["devices"], lightning.trainer["max_epochs"]) == ("ddp", 4, 10)


def test_the_schedules_keys_may_stand_beside_its_target(tmp_path: Path) -> None:
    beside = PUBLISHED.replace("      params:\n        num_warmup_steps: 2000\n", "      num_warmup_steps: 2000\n")
    assert beside != PUBLISHED
    schedule = TrainingConfig.from_raw(read_config(write(tmp_path, beside)).raw).schedule
    assert (schedule.decay, schedule.warmup_steps) == ("inverse_sqrt", 2000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("temporal_casual: true", "temporal_casual: false", r"temporal_casual is False; the family knows True alone"),
        ("frequency: 1", "frequency: 2", r"lr_scheduler_config\.frequency is 2; expected 1"),
        ("frequency: 1", "interval: 1", r"lr_scheduler_config\.interval is not known"),
        ("target: inverse_sqrt", "target: inverse_sqr", r"lr_scheduler_config\.target is 'inverse_sqr'"),
        ("    lr_scheduler_config:", "    lr_schedule: {decay: inverse_sqrt}\n    lr_scheduler_config:",
         "has lr_schedule and lr_scheduler_config; expected one of them"),
    ],
)  # fmt: skip
def test_what_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in PUBLISHED
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_raw(read_config(write(tmp_path, PUBLISHED.replace(old, new))).raw)


def test_a_logger_that_is_to_do_otherwise_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    RunConfig.from_raw(read_config(write(tmp_path, PUBLISHED.replace("clamp: true", "clamp: false"))).raw)
    assert "lightning.callbacks.image_logger.params.clamp has no effect here" in caplog.text


def test_no_published_configuration_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    folders = [f"data.params.{part}.params.data_dir=videos" for part in ("train", "validation")]
    for name in ALL_MODELS[::8]:
        raw = read_config(name, folders).raw
        TrainingConfig.from_raw(raw)
        RunConfig.from_raw(raw)
        DataConfig.from_section(raw["data"])
    assert not caplog.records


def test_tiling_that_is_switched_off_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    off = ["use_tiling=false", "use_overlap=false", "t_chunk_enc=16", "t_chunk_dec=4", "input_key=jpg"]
    read_config("vidtok_kl_causal_488_4chn_v1_1", [f"model.params.{each}" for each in off])
    assert not caplog.records
    read_config("vidtok_kl_causal_488_4chn_v1_1", ["model.params.use_tiling=true"])
    assert "model.params.use_tiling has no effect here" in caplog.text
