"""Tiny runs for the tests of training: a configuration as a file, and what a run has written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.run import run

CLIPS_AND_TRAINER = """\
data:
  target: vidtok.data.datamodule.DataModuleFromConfig
  params:
    batch_size: 2
    num_workers: 0
    train:
      target: vidtok.data.synthetic.SyntheticClips
      params: &clips
        data_dir: null
        meta_path: null
        clips_per_epoch: 6
        max_objects: 0
        video_params: {{input_height: 24, input_width: 24, sample_num_frames: {frames}}}
    validation:
      target: vidtok.data.synthetic.SyntheticClips
      params:
        <<: *clips
        clips_per_epoch: 2
lightning:
  callbacks: null
  modelcheckpoint:
    params: {{every_n_train_steps: 2}}
  trainer:
    accelerator: cpu
    precision: 32-true
    log_every_n_steps: 1
    enable_progress_bar: false
    val_check_interval: 100
"""
"""Synthetic clips of so many `frames`, and a trainer that takes short steps on the CPU."""

_MODEL = """\
base: {base}
model:
  base_learning_rate: 1.0e-3
  params:
    encoder_config:
      params:
        ch: 8
        ch_mult: [1, 1, 1, 1]
        num_res_blocks: 1
    loss_config:
      params:
        perceptual_weight: 0.0
        disc_weight: {disc_weight}
        disc_start: 3
"""

KL = "vidtok_kl_causal_488_4chn_v1_1"
FSQ = "vidtok_fsq_causal_488_4096"


def write_config(folder: Path, *, base: str = KL, adversarial: bool = False, name: str = "tiny") -> Path:
    """A configuration of the smallest model of the variant `base` on synthetic clips."""
    path = folder / f"{name}.yaml"
    path.write_text((_MODEL + CLIPS_AND_TRAINER).format(base=base, disc_weight=0.2 if adversarial else 0.0, frames=5))
    return path


def train(config: Path | None, logdir: Path, *options: str) -> Path:
    """Train in this process and return the run's folder."""
    base = [] if config is None else ["-b", str(config)]
    return run(parse_arguments([*base, "--logdir", str(logdir), *options]))


def last(folder: Path) -> dict[str, Any]:
    """All that the run's last checkpoint holds."""
    content: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two checkpoints differ, tensors compared bit for bit.

    Left out is how many epochs were begun, which Lightning counts once more if it resumes between two.
    """
    found: list[str] = []
    _compare(one, other, "", found)
    return [place for place in found if not re.search("epoch_progress/.*/(ready|started)", place)]


def _compare(one: Any, other: Any, place: str, found: list[str]) -> None:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            _compare(one[key], other[key], f"{place}/{key}", found)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            _compare(a, b, f"{place}/{i}", found)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            found.append(place)
    elif one != other:
        found.append(place)
