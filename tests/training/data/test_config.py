"""The `data` section: published keys understood, anything else refused with what to do."""

import copy
import logging
import subprocess
import sys
from typing import Any

import pytest

from support import ALL_MODELS
from vidtok.config.read import read_config
from vidtok.errors import ConfigError
from vidtok.synthetic import SyntheticConfig
from vidtok.training.data import DataConfig, SyntheticClipsConfig, VideosConfig, build_data

VIDEOS = "vidtok.data.vidtok.VidTokDataset"
SYNTHETIC = "vidtok.data.synthetic.SyntheticClips"
SHAPE = {"input_height": 64, "input_width": 96, "sample_num_frames": 9, "sample_fps": 3}


def section(**train: Any) -> dict[str, Any]:
    part = {"target": VIDEOS, "params": {"data_dir": "v", "meta_path": "m.csv", "video_params": dict(SHAPE), **train}}
    return {
        "target": "vidtok.data.datamodule.DataModuleFromConfig",
        "params": {"batch_size": 4, "num_workers": 3, "train": part},
    }


def with_value(path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(section())
    *above, key = path.split(".")
    parent = changed
    for name in above:
        parent = parent.setdefault(name, {})
    parent[key] = value
    return changed


def test_the_published_section_is_understood(caplog):
    raw = section(data_frac=0.5, last_frames_handle="repeat", read_long_video=False, chunk_size=16, is_causal=True)
    raw["params"]["wrap"] = False
    raw["params"]["validation"] = copy.deepcopy(raw["params"]["train"])
    raw["params"]["validation"]["params"] |= {"start_index": 2, "is_inference": False, "pre_load_frames": False}
    with caplog.at_level(logging.WARNING):
        config = DataConfig.from_section(raw)
    place = "data.params.train.params"
    train = VideosConfig(
        data_dir="v", meta_path="m.csv", height=64, width=96, frames=9, fps=3, data_frac=0.5, place=place
    )
    assert (config.train, config.batch_size, config.num_workers, config.test) == (train, 4, 3, None)
    assert train.max_unreadable == 0.05
    assert isinstance(config.validation, VideosConfig)
    assert (config.validation.start_index, config.validation.place) == (2, "data.params.validation.params")
    # Both belong to evaluation: whoever set them wants to know that they change nothing.
    assert [record.getMessage() for record in caplog.records] == [
        f"data.params.{part}.params.{key} has no effect in training"
        for part in ("train", "validation")
        for key in ("chunk_size", "is_causal")
    ]


@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_configuration_of_the_family_has_such_a_section(name):
    folders = [f"data.params.{part}.params.data_dir=videos" for part in ("train", "validation")]
    raw = read_config(name, folders).raw["data"]
    config = DataConfig.from_section(raw)
    assert isinstance(config.train, VideosConfig)
    assert isinstance(config.validation, VideosConfig)
    assert (config.train.start_index, config.validation.start_index) == (None, 0)
    assert (config.train.fps, config.validation.fps, config.train.meta_path) == (3, 8, None)


def test_what_is_not_given_is_asked_for():
    raw = read_config("vidtok_kl_causal_488_4chn").raw["data"]
    with pytest.raises(
        ConfigError, match=r"train\.params\.data_dir is not given; set data\.params\.train\.params\.data_dir="
    ):
        DataConfig.from_section(raw)
    raw["params"]["train"]["params"]["data_dir"] = "v"
    message = (
        r"set data\.params\.validation\.params\.data_dir=.*, and data\.params\.validation=null does without validation"
    )
    with pytest.raises(ConfigError, match=message):
        DataConfig.from_section(raw)
    raw["params"]["validation"] = None
    assert DataConfig.from_section(raw).validation is None


def test_one_override_turns_any_configuration_synthetic():
    overrides = [f"data.params.{part}.target={SYNTHETIC}" for part in ("train", "validation")]
    overrides += ["data.params.train.params.clips_per_epoch=500", "data.params.train.params.max_speed=4"]
    config = DataConfig.from_section(read_config("vidtok_kl_noncausal_488_4chn", overrides).raw["data"])
    clips = SyntheticConfig(frames=16, height=256, width=256)
    assert config.validation == SyntheticClipsConfig(clips=clips, count=64, place="data.params.validation.params")
    assert isinstance(config.train, SyntheticClipsConfig)
    assert (config.train.count, config.train.clips.max_speed, config.train.device) == (500, 4, "auto")


def test_null_takes_back_what_a_base_gives():
    raw = section(data_frac=None, clips_per_epoch=None, max_speed=None, start_index=None)
    assert DataConfig.from_section(raw) == DataConfig.from_section(section())
    raw["params"]["train"] = {"target": SYNTHETIC, "params": {"data_frac": None, "data_dir": None, "max_speed": None}}
    train = DataConfig.from_section(raw).train
    assert isinstance(train, SyntheticClipsConfig)
    assert train.clips == SyntheticConfig()
    with pytest.raises(ConfigError, match=r"params\.data_dirs is not known"):
        DataConfig.from_section(section(data_dirs=None))


def test_start_index_may_stand_in_either_place():
    for raw in (section(start_index=5), with_value("params.train.params.video_params.start_index", 5)):
        train = DataConfig.from_section(raw).train
        assert isinstance(train, VideosConfig)
        assert train.start_index == 5


T = "params.train.params"
MISTAKES = [
    ("sampling", 1, r"data\.sampling is not known; expected some of target, params"),
    ("target", "mine.Data", r"data\.target is 'mine\.Data', which is not known"),
    ("params", 3, r"data\.params is 3; expected a mapping"),
    ("params.batchsize", 3, r"data\.params\.batchsize is not known \(did you mean batch_size\?\)"),
    (
        "params.batch_size",
        "???",
        r"data\.params\.batch_size is missing; set it, for example data\.params\.batch_size=2",
    ),
    ("params.batch_size", 0, r"data\.params\.batch_size is 0; expected a whole number of at least 1"),
    ("params.num_workers", -1, r"data\.params\.num_workers is -1; expected a whole number of at least 0"),
    ("params.train", None, r"data\.params\.train is missing; expected a data set to train on"),
    ("params.train.target", "vidtok.VidTok", r"data\.params\.train\.target is 'vidtok\.VidTok', which is not known"),
    ("params.train.extra", 1, r"data\.params\.train\.extra is not known"),
    (f"{T}.data_dirs", "v", r"train\.params\.data_dirs is not known \(did you mean data_dir or data_frac\?\)"),
    (f"{T}.data_dir", 7, r"train\.params\.data_dir is 7; expected a path"),
    (f"{T}.last_frames_handle", "black", r"last_frames_handle is 'black'; expected repeat: short videos repeat"),
    (f"{T}.start_index", -1, r"start_index is -1; expected a whole number of at least 0"),
    (f"{T}.data_frac", 0, r"data_frac is 0, which leaves no videos; expected a share up to 1"),
    (f"{T}.data_frac", 1.5, r"data_frac is 1\.5; expected a number from 0 to 1"),
    (f"{T}.enlarge", 1, r"enlarge is 1; expected true or false"),
    (f"{T}.max_unreadable", "5%", r"max_unreadable is '5%'; expected a number from 0 to 1"),
    (f"{T}.video_params", 3, r"train\.params\.video_params is 3; expected a mapping"),
    (f"{T}.video_params.fps", 3, r"video_params\.fps is not known; expected some of .*sample_fps"),
    (f"{T}.video_params.sample_fps", "???", r"video_params\.sample_fps is missing; set it, for example to 8"),
    (f"{T}.video_params.sample_fps", 0, r"video_params\.sample_fps: frame rate is 0.*; expected a positive number"),
    (f"{T}.video_params.sample_fps", True, r"video_params\.sample_fps is True; expected a number of at least 0"),
    (f"{T}.video_params.input_height", 1.5, r"input_height is 1\.5; expected a whole number of at least 1"),
    (f"{T}.video_params.sample_num_frames", 0, r"sample_num_frames is 0; expected a whole number of at least 1"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_mistakes_are_told(path, value, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig.from_section(with_value(path, value))


def test_two_start_indices_must_agree():
    raw = section(start_index=5)
    raw["params"]["train"]["params"]["video_params"]["start_index"] = 6
    with pytest.raises(ConfigError, match=r"start_index is 5 and .*video_params\.start_index 6; expected one of them"):
        DataConfig.from_section(raw)


SYNTHETIC_MISTAKES = [
    ({"frames": 5}, r"train\.params\.frames is not known; a clip's frames is .*\.video_params\.sample_num_frames"),
    ({"max_sped": 5}, r"train\.params\.max_sped is not known \(did you mean max_speed or max_noise\?\)"),
    ({"data_dir": "v"}, r"train\.params\.data_dir is 'v', but synthetic clips come from no file; leave it out, or set"),
    ({"max_speed": -5}, r"data\.params\.train\.params: synthetic clips: max_speed is -5; expected"),
    ({"clips_per_epoch": 0}, r"clips_per_epoch is 0; expected a whole number of at least 1"),
    ({"seed": -1}, r"train\.params\.seed is -1; expected a whole number of at least 0"),
    ({"device": "tpu"}, r"train\.params\.device is 'tpu'; expected auto, cpu or cuda"),
]


@pytest.mark.parametrize(("params", "message"), SYNTHETIC_MISTAKES)
def test_mistakes_about_synthetic_clips_are_told(params, message):
    raw = section()
    raw["params"]["train"] = {"target": SYNTHETIC, "params": params}
    with pytest.raises(ConfigError, match=message):
        DataConfig.from_section(raw)


def test_a_section_and_a_seed_are_needed():
    with pytest.raises(ConfigError, match=r"data is None; expected a mapping with target and params"):
        DataConfig.from_section(None)  # type: ignore[arg-type]
    for seed in (-1, 1.5, True):
        with pytest.raises(ConfigError, match=rf"the seed is {seed}; expected a whole number of at least 0"):
            build_data(section(), seed=seed)  # type: ignore[arg-type]


def test_reading_a_section_needs_no_lightning():
    code = "import sys, vidtok.training.data; sys.exit(any(m in sys.modules for m in ('lightning', 'av')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
