"""The `data` section of a configuration, read: published keys, a few of our own, anything else refused."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vidtok.config.dialect import NOT_GIVEN, look_up
from vidtok.errors import ConfigError, VidTokError
from vidtok.synthetic import SyntheticConfig
from vidtok.text import near
from vidtok.video.frames import as_rate

log = logging.getLogger(__name__)

Part = Literal["train", "validation", "test"]
Device = Literal["auto", "cpu", "cuda"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_VIDEO_KEYS = ("input_height", "input_width", "sample_num_frames", "sample_fps", "start_index")
# Of the published data set, for evaluation with it; training reads clips in one way only.
_WITHOUT_EFFECT = ("is_inference", "pre_load_frames", "read_long_video", "chunk_size", "is_causal")
_VIDEOS_KEYS = (
    "data_dir", "meta_path", "video_params", "start_index", "data_frac", "last_frames_handle", "max_unreadable",
    *_WITHOUT_EFFECT,
)  # fmt: skip
_SYNTHETIC_SHAPE = {"frames": "sample_num_frames", "height": "input_height", "width": "input_width"}
_SYNTHETIC_KNOBS = tuple(f.name for f in dataclasses.fields(SyntheticConfig) if f.name not in _SYNTHETIC_SHAPE)
_SYNTHETIC_KEYS = ("video_params", "clips_per_epoch", "seed", "device", *_SYNTHETIC_KNOBS, "data_dir", "meta_path")


@dataclass(frozen=True, kw_only=True)
class VideosConfig:
    """Clips of videos. Values out of range raise `ConfigError`."""

    data_dir: str | None
    """Folder of the videos, a .tar of videos, or a pattern of such; None: the folder of `meta_path`."""
    meta_path: str | None
    """CSV with a column `videos`, or a text file with a path a line; None: every video below `data_dir`."""
    height: int
    width: int
    frames: int
    fps: float
    start_index: int | None = None
    """The stored frame that clips start at; None: anywhere, at random."""
    data_frac: float = 1.0
    """Share of the list, from its start, that is used."""
    max_unreadable: float = 0.05
    """Share of unreadable videos above which training stops."""
    place: str = "data"
    """Where the section stands, for error messages."""

    def __post_init__(self) -> None:
        video = f"{self.place}.video_params"
        for name, key in (("height", "input_height"), ("width", "input_width"), ("frames", "sample_num_frames")):
            _require_whole(getattr(self, name), 1, f"{video}.{key}")
        try:
            as_rate(_require_number(self.fps, 0, math.inf, f"{video}.sample_fps"))
        except VidTokError as error:
            raise ConfigError(f"{video}.sample_fps: {error}") from error
        if self.start_index is not None:
            _require_whole(self.start_index, 0, f"{video}.start_index")
        _require_number(self.data_frac, 0, 1, f"{self.place}.data_frac")
        if self.data_frac == 0:
            raise ConfigError(f"{self.place}.data_frac is 0, which leaves no videos; expected a share up to 1")
        _require_number(self.max_unreadable, 0, 1, f"{self.place}.max_unreadable")


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig:
    """Procedural clips. Values out of range raise `ConfigError`."""

    clips: SyntheticConfig
    count: int
    """Clips that count as an epoch in training; clips of the set in validation."""
    seed: int | None = None
    """Which sequence of clips; None: in training that of the run's seed, in validation a fixed one."""
    device: Device = "auto"
    """Where clips are made; "auto": on the training device if it is a GPU, else in the workers."""
    place: str = "data"

    def __post_init__(self) -> None:
        _require_whole(self.count, 1, f"{self.place}.clips_per_epoch")
        if self.seed is not None:
            _require_whole(self.seed, 0, f"{self.place}.seed")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"{self.place}.device is {self.device!r}; expected auto, cpu or cuda")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The whole section. Values out of range raise `ConfigError`."""

    batch_size: int
    """Clips a rank and step."""
    train: VideosConfig | SyntheticClipsConfig
    validation: VideosConfig | SyntheticClipsConfig | None = None
    test: VideosConfig | SyntheticClipsConfig | None = None
    num_workers: int = 0
    """Worker processes a rank; 0 makes clips in the training process."""

    def __post_init__(self) -> None:
        _require_whole(self.batch_size, 1, "data.params.batch_size")
        _require_whole(self.num_workers, 0, "data.params.num_workers")

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> DataConfig:
        """The `data` section of a configuration of the published schema, as plain values.

        Raises `ConfigError`, naming the key by its whole path, for unknown keys and targets, values out of range, and
        what must be given and is not (`"???"` and null count as not given).
        """
        if not isinstance(section, Mapping):
            raise ConfigError(f"data is {section!r}; expected a mapping with target and params")
        _refuse_unknown(section, ("target", "params"), "data")
        look_up(section, "data module", "data")
        params = _mapping(section, "params", "data")
        _refuse_unknown(params, ("batch_size", "num_workers", "wrap", *PARTS), "data.params")
        if params.get("wrap"):
            log.warning("data.params.wrap has no effect here")
        if params.get("train") is None:
            raise ConfigError("data.params.train is missing; expected a data set to train on, with target and params")
        if params.get("batch_size", NOT_GIVEN) == NOT_GIVEN:
            raise ConfigError("data.params.batch_size is missing; set it, for example data.params.batch_size=2")
        parts = {part: _part(params, part) for part in PARTS if params.get(part) is not None}
        workers = params.get("num_workers")
        return cls(batch_size=params["batch_size"], num_workers=0 if workers is None else workers, **parts)


def _part(params: Mapping[str, Any], part: Part) -> VideosConfig | SyntheticClipsConfig:
    section = _mapping(params, part, "data.params")
    place = f"data.params.{part}"
    _refuse_unknown(section, ("target", "params"), place)
    kind = look_up(section, "dataset", place).kind
    # A null takes back what a base gives, even one that is meant for a data set of the other kind.
    known = {*_VIDEOS_KEYS, *_SYNTHETIC_KEYS}
    values = {
        key: value
        for key, value in _mapping(section, "params", place).items()
        if value != NOT_GIVEN and not (value is None and key in known)
    }
    if kind == "synthetic":
        return _synthetic(values, part, f"{place}.params")
    return _videos(values, part, f"{place}.params")


def _videos(values: Mapping[str, Any], part: Part, place: str) -> VideosConfig:
    _refuse_unknown(values, _VIDEOS_KEYS, place)
    for key in ("data_dir", "meta_path"):
        if values.get(key) is not None and (not isinstance(values[key], str) or not values[key]):
            raise ConfigError(f"{place}.{key} is {values[key]!r}; expected a path")
    if values.get("data_dir") is None and values.get("meta_path") is None:
        whole = place.removesuffix(".params")
        without = "" if part == "train" else f", and {whole}=null does without {part}"
        raise ConfigError(
            f"{place}.data_dir is not given; set {place}.data_dir=FOLDER for every video below FOLDER, and "
            f"{place}.meta_path=LIST.csv too for those that a list names; with no videos at hand, "
            f"{whole}.target=vidtok.data.synthetic.SyntheticClips takes procedural clips{without}"
        )
    if values.get("last_frames_handle", "repeat") != "repeat":
        raise ConfigError(
            f"{place}.last_frames_handle is {values['last_frames_handle']!r}; expected repeat: short videos repeat "
            "their last frame"
        )
    for key in _WITHOUT_EFFECT:
        if values.get(key):
            log.warning("%s.%s has no effect in training", place, key)
    video = _video_params(values, place)
    for key in ("input_height", "input_width", "sample_num_frames", "sample_fps"):
        if video.get(key) is None:
            raise ConfigError(f"{place}.video_params.{key} is missing; set it, for example to {_EXAMPLES[key]}")
    return VideosConfig(
        data_dir=values.get("data_dir"),
        meta_path=values.get("meta_path"),
        height=video["input_height"],
        width=video["input_width"],
        frames=video["sample_num_frames"],
        fps=video["sample_fps"],
        start_index=_start_index(values, video, part, place),
        place=place,
        **{key: values[key] for key in ("data_frac", "max_unreadable") if values.get(key) is not None},
    )


_EXAMPLES = {"input_height": 256, "input_width": 256, "sample_num_frames": 17, "sample_fps": 8}


def _start_index(values: Mapping[str, Any], video: Mapping[str, Any], part: Part, place: str) -> int | None:
    """`start_index`, which may stand in either of two places; validation starts at the first frame without it."""
    given = [mapping["start_index"] for mapping in (values, video) if mapping.get("start_index") is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise ConfigError(
            f"{place}.start_index is {given[0]!r} and {place}.video_params.start_index {given[1]!r}; expected one of "
            "them, or both alike"
        )
    if given:
        index: int = given[0]
        return index
    return None if part == "train" else 0


def _synthetic(values: Mapping[str, Any], part: Part, place: str) -> SyntheticClipsConfig:
    for key, name in _SYNTHETIC_SHAPE.items():
        if key in values:
            raise ConfigError(f"{place}.{key} is not known; a clip's {key} is {place}.video_params.{name}")
    _refuse_unknown(values, _SYNTHETIC_KEYS, place)
    for key in ("data_dir", "meta_path"):
        if values.get(key) is not None:
            raise ConfigError(
                f"{place}.{key} is {values[key]!r}, but synthetic clips come from no file; leave it out, or set "
                f"{place.removesuffix('.params')}.target=vidtok.data.vidtok.VidTokDataset to train on videos"
            )
    video = _video_params(values, place)
    shape = {key: video[name] for key, name in _SYNTHETIC_SHAPE.items() if video.get(name) is not None}
    knobs = {key: values[key] for key in _SYNTHETIC_KNOBS if key in values}
    try:
        clips = SyntheticConfig(**shape, **knobs)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return SyntheticClipsConfig(
        clips=clips,
        count=values.get("clips_per_epoch", 10_000 if part == "train" else 64),
        seed=values.get("seed"),
        device=values.get("device", "auto"),
        place=place,
    )


def _video_params(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    if values.get("video_params") is None:
        return {}
    video = _mapping(values, "video_params", place)
    _refuse_unknown(video, _VIDEO_KEYS, f"{place}.video_params")
    return {key: value for key, value in video.items() if value != NOT_GIVEN}


def _mapping(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place}.{key} is {value!r}; expected a mapping")
    return value


def _refuse_unknown(section: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    known = tuple(known)
    for key in section:
        if key not in known:
            hint = near(key, known) or "; expected some of " + ", ".join(known)
            raise ConfigError(f"{place}.{key} is not known{hint}")


def _require_whole(value: object, least: int, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{place} is {value!r}; expected a whole number of at least {least}")


def _require_number(value: Any, least: float, most: float, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        upper = "" if most == math.inf else f" to {most:g}"
        raise ConfigError(f"{place} is {value!r}; expected a number from {least:g}{upper or ' up'}")
    return float(value)
