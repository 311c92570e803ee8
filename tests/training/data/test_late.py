"""Fewer and larger synthetic clips from some clip of a run on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidtok.errors import ConfigError
from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.training.data import DataConfig, build_data

LATE = {"from_clip": 6, "sample_num_frames": 5, "input_height": 32, "input_width": 48, "batch_size": 1}


def section(part: str = "train", **late: Any) -> dict[str, Any]:
    video = {"input_height": 16, "input_width": 16, "sample_num_frames": 3}
    synthetic = {"target": "vidtok.data.synthetic.SyntheticClips", "params": {"video_params": video}}
    params: dict[str, Any] = {"batch_size": 3, "train": synthetic}
    params[part] = {**synthetic, "params": {"video_params": video, "late": {**LATE, **late}}}
    return {"target": "vidtok.data.datamodule.DataModuleFromConfig", "params": params}


def test_clips_change_where_they_are_told_to_and_stay_those_of_their_index() -> None:
    batches = iter(build_data(section(), seed=5).train_dataloader())
    shapes = [tuple(next(batches)["video"].shape) for _ in range(2)]
    assert shapes == [(3, 3, 3, 16, 16)] * 2
    batch = next(batches)
    expected = synthetic_batch(SyntheticConfig(frames=5, height=32, width=48), 5, [6])
    torch.testing.assert_close(batch["video"], expected)
    assert batch["name"] == ["synthetic clip 6 of seed 5"]


def test_a_resumed_run_goes_on_with_the_same_clips() -> None:
    whole = build_data(section(), seed=5)
    batches = iter(whole.train_dataloader())
    for _ in range(3):
        next(batches)
        whole.mark_batch_done()
    again = build_data(section(), seed=5)
    again.load_state_dict(whole.state_dict())
    resumed, expected = next(iter(again.train_dataloader())), next(batches)
    assert resumed["name"] == expected["name"]
    assert torch.equal(resumed["video"], expected["video"])


@pytest.mark.parametrize(
    ("part", "late", "said"),
    [
        ("train", {"batch_size": 0}, r"train.params.late.batch_size is 0; expected a whole number of at least 1"),
        ("train", {"batch_size": "???"}, r"train.params.late.batch_size is missing; expected all of from_clip,"),
        ("train", {"input_height": 8}, r"train.params.late.input_height is 8; expected a whole number of at least 16"),
        ("train", {"side": 8}, r"train.params.late.side is not known"),
        ("validation", {}, r"validation.params.late is given, which is for training; leave it out of validation"),
    ],
)
def test_what_does_not_fit_is_refused(part: str, late: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DataConfig.from_section(section(part, **late))
