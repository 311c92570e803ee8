"""The `data` section of a configuration: published keys and a few of our own; any other is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from vidtok.config.dialect import NOT_GIVEN, given, look_up, params_of, warn_without_effect
from vidtok.errors import ConfigError, VidTokError
from vidtok.fields import Check, Within, check, mapping_at, refuse_unknown, require, shown
from vidtok.synthetic import SyntheticConfig
from vidtok.video.frames import as_rate

log = logging.getLogger(__name__)

Part = Literal["train", "validation", "test"]
Device = Literal["auto", "cpu", "cuda"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_PLACE = "data.params"
_VIDEO_KEYS = ("input_height", "input_width", "sample_num_frames", "sample_fps", "start_index")
# Options of the published data set that choose how evaluation reads; training reads clips in one way only.
_WITHOUT_EFFECT = ("is_inference", "pre_load_frames", "read_long_video", "chunk_size", "is_causal")
_VIDEOS_KEYS = (
    "data_dir", "meta_path", "video_params", "start_index", "data_frac", "last_frames_handle", "max_unreadable",
    "enlarge",
    *_WITHOUT_EFFECT,
)  # fmt: skip
_SHAPE = {"frames": "sample_num_frames", "height": "input_height", "width": "input_width"}
_SYNTHETIC_KNOBS = tuple(f.name for f in dataclasses.fields(SyntheticConfig) if f.name not in _SHAPE)
_SYNTHETIC_KEYS = (
    "video_params", "clips_per_epoch", "seed", "device", "late", *_SYNTHETIC_KNOBS, "data_dir", "meta_path",
)  # fmt: skip
_LATE_KEYS = ("from_clip", *_SHAPE.values(), "batch_size")
_EXAMPLES = {"input_height": 256, "input_width": 256, "sample_num_frames": 17, "sample_fps": 8}

_Count = Annotated[int, Within(1, 1 << 31)]
_Side = Annotated[int, Within(1, 1 << 14)]
_Index = Annotated[int, Within(0, (1 << 63) - 1)]
_Path = Annotated[str, Check("a path", bool)]


@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """Clips of token files. Values out of range raise `ConfigError`."""

    data_dir: Annotated[str, Check("a folder of token files, or one of them", bool)]
    height: Annotated[int, Within(1, 1 << 14)]
    width: Annotated[int, Within(1, 1 << 14)]
    frames: Annotated[int, Within(1, 1 << 31)]
    max_unreadable: Annotated[float, Within(0, 1)] = 0.05
    place: str = "data"

    def __post_init__(self) -> None:
        keys = {"frames": "sample_num_frames", "height": "input_height", "width": "input_width"}
        check(self, self.place, names={name: f"{self.place}.video_params.{key}" for name, key in keys.items()})


@dataclass(frozen=True, kw_only=True)
class VideosConfig:
    """Clips of videos. Values out of range raise `ConfigError`."""

    data_dir: _Path | None
    """Folder of the videos, a .tar of videos, or a pattern of such; None: the folder of `meta_path`."""
    meta_path: _Path | None
    """CSV with a column `videos`, or a text file with one path a line; None: every video below `data_dir`."""
    height: _Side
    width: _Side
    frames: _Count
    fps: Annotated[float, Within(0)]
    start_index: _Index | None = None
    """The stored frame that clips start at; None: anywhere, at random."""
    data_frac: Annotated[float, Within(0, 1)] = 1.0
    """Share of the list, from its start, that is used."""
    max_unreadable: Annotated[float, Within(0, 1)] = 0.05
    """Share of unreadable videos above which training stops."""
    enlarge: bool = False
    """Enlarge frames narrower than the crop until they fill it; otherwise they have black at their sides."""
    place: str = "data"
    """Path of the section, for error messages."""

    def __post_init__(self) -> None:
        video = f"{self.place}.video_params"
        keys = {**_SHAPE, "fps": "sample_fps", "start_index": "start_index"}
        check(self, self.place, names={name: f"{video}.{key}" for name, key in keys.items()})
        try:
            as_rate(self.fps)
        except VidTokError as error:
            raise ConfigError(f"{video}.sample_fps: {error}") from error
        if self.data_frac == 0:
            raise ConfigError(f"{self.place}.data_frac is 0, which leaves no videos; expected a share up to 1")


@dataclass(frozen=True, kw_only=True)
class LateClips:
    """Fewer, larger and longer clips from some clip of a run on, so that learning ends on the sizes that are evaluated.

    Values out of range raise `ConfigError`.
    """

    from_clip: _Index
    """First clip of the sequence, over all ranks, of the new kind."""
    frames: _Count
    height: Annotated[int, Within(16, 1 << 14)]
    width: Annotated[int, Within(16, 1 << 14)]
    batch_size: _Count
    """Clips of each rank in a step from there on, at most as many as before; the rest of a batch is skipped."""
    place: str = "data"

    def __post_init__(self) -> None:
        check(self, self.place, names={name: f"{self.place}.{key}" for name, key in _SHAPE.items()})


@dataclass(frozen=True, kw_only=True)
class SyntheticClipsConfig:
    """Procedural clips. Values out of range raise `ConfigError`."""

    clips: SyntheticConfig
    count: _Count
    """Clips that count as an epoch in training; clips of the set in validation."""
    seed: _Index | None = None
    """Seed of the sequence of clips; None: the run's in training, a fixed one in validation."""
    device: Device = "auto"
    """Device that makes the clips; "auto": on the training device if it is a GPU, else in the workers."""
    late: LateClips | None = None
    place: str = "data"

    def __post_init__(self) -> None:
        check(self, self.place, names={"count": f"{self.place}.clips_per_epoch"})


PartConfig = VideosConfig | SyntheticClipsConfig | StoredConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The whole section. Values out of range raise `ConfigError`."""

    batch_size: _Count
    """Clips of each rank in a step."""
    train: PartConfig
    validation: PartConfig | None = None
    test: PartConfig | None = None
    num_workers: Annotated[int, Within(0, 4096)] = 0
    """Worker processes of each rank; 0 makes clips in the training process."""

    def __post_init__(self) -> None:
        check(self, _PLACE)

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> DataConfig:
        """The `data` section of a configuration of the published schema, as plain values.

        Raises `ConfigError`, naming the key by its whole path, for unknown keys and targets, values out of range, and
        required values that are missing (`"???"` and null count as missing).
        """
        require(isinstance(section, Mapping), "data", section, "a mapping with target and params")
        params = params_of(section, "data")
        look_up(section, "data module", "data")
        refuse_unknown(params, ("batch_size", "num_workers", "wrap", *PARTS), _PLACE)
        if params.get("wrap"):
            warn_without_effect(params, ("wrap",), _PLACE)
        if params.get("train") is None:
            raise ConfigError("data.params.train is missing; expected a data set to train on, with target and params")
        if params.get("batch_size", NOT_GIVEN) == NOT_GIVEN:
            raise ConfigError("data.params.batch_size is missing; set it, for example data.params.batch_size=2")
        parts = {part: _part(params, part) for part in PARTS if params.get(part) is not None}
        workers = params.get("num_workers")
        return cls(batch_size=params["batch_size"], num_workers=0 if workers is None else workers, **parts)


def _part(params: Mapping[str, Any], part: Part) -> PartConfig:
    place = f"{_PLACE}.{part}"
    section = mapping_at(params, part, _PLACE)
    # A null takes back what a base gives, even one that is meant for a data set of the other kind.
    known = {*_VIDEOS_KEYS, *_SYNTHETIC_KEYS}
    values = {
        key: value for key, value in given(params_of(section, place)).items() if not (value is None and key in known)
    }
    makers: dict[str, Callable[[Mapping[str, Any], Part, str], PartConfig]] = {
        "synthetic": _synthetic,
        "tokens": _stored,
    }
    make = makers.get(look_up(section, "dataset", place).kind, _videos)
    return make(values, part, f"{place}.params")


def _stored(values: Mapping[str, Any], part: Part, place: str) -> StoredConfig:
    refuse_unknown(values, ("data_dir", "video_params", "max_unreadable"), place)
    video = _video_params(values, place)
    for key in ("data_dir", *(() if values.get("data_dir") is None else _SHAPE.values())):
        if (values if key == "data_dir" else video).get(key) is None:
            path = place if key == "data_dir" else f"{place}.video_params"
            raise ConfigError(f"{path}.{key} is missing; expected a folder of token files, and the size of a clip")
    shape = {name: video[key] for name, key in _SHAPE.items()}
    return StoredConfig(
        data_dir=values["data_dir"], place=place, **shape,
        **({"max_unreadable": values["max_unreadable"]} if "max_unreadable" in values else {}),
    )  # fmt: skip


def _videos(values: Mapping[str, Any], part: Part, place: str) -> VideosConfig:
    refuse_unknown(values, _VIDEOS_KEYS, place)
    if values.get("data_dir") is None and values.get("meta_path") is None:
        whole = place.removesuffix(".params")
        without = "" if part == "train" else f", and {whole}=null does without {part}"
        raise ConfigError(
            f"{place}.data_dir is not given; set {place}.data_dir=FOLDER for every video below FOLDER, and "
            f"{place}.meta_path=LIST.csv too for those that a list names; with no videos at hand, "
            f"{whole}.target=vidtok.data.synthetic.SyntheticClips takes procedural clips{without}"
        )
    handle = values.get("last_frames_handle", "repeat")
    require(handle == "repeat", f"{place}.last_frames_handle", handle, "repeat: short videos repeat their last frame")
    set_there = [key for key in _WITHOUT_EFFECT if values.get(key)]
    warn_without_effect(values, set_there, place, "in training")
    video = _video_params(values, place)
    for key, example in _EXAMPLES.items():
        if video.get(key) is None:
            raise ConfigError(f"{place}.video_params.{key} is missing; set it, for example to {example}")
    return VideosConfig(
        data_dir=values.get("data_dir"),
        meta_path=values.get("meta_path"),
        fps=video["sample_fps"],
        start_index=_start_index(values, video, part, place),
        place=place,
        **{name: video[key] for name, key in _SHAPE.items()},
        **{key: values[key] for key in ("data_frac", "max_unreadable", "enlarge") if key in values},
    )


def _start_index(values: Mapping[str, Any], video: Mapping[str, Any], part: Part, place: str) -> int | None:
    """`start_index`, which may stand in either of two places; validation starts at the first frame without it."""
    found = [mapping["start_index"] for mapping in (values, video) if mapping.get("start_index") is not None]
    if len(found) == 2 and found[0] != found[1]:
        raise ConfigError(
            f"{place}.start_index is {shown(found[0])} and {place}.video_params.start_index {shown(found[1])}; "
            "expected one of them, or both alike"
        )
    if found:
        index: int = found[0]
        return index
    return None if part == "train" else 0


def _synthetic(values: Mapping[str, Any], part: Part, place: str) -> SyntheticClipsConfig:
    for key, name in _SHAPE.items():
        if key in values:
            raise ConfigError(f"{place}.{key} is not known; a clip's {key} is {place}.video_params.{name}")
    refuse_unknown(values, _SYNTHETIC_KEYS, place)
    for key in ("data_dir", "meta_path"):
        if values.get(key) is not None:
            raise ConfigError(
                f"{place}.{key} is {shown(values[key])}, but synthetic clips come from no file; leave it out, or set "
                f"{place.removesuffix('.params')}.target=vidtok.data.vidtok.VidTokDataset to train on videos"
            )
    video = _video_params(values, place)
    shape = {key: video[name] for key, name in _SHAPE.items() if video.get(name) is not None}
    knobs = {key: values[key] for key in _SYNTHETIC_KNOBS if key in values}
    try:
        clips = SyntheticConfig(**shape, **knobs)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return SyntheticClipsConfig(
        clips=clips,
        count=values.get("clips_per_epoch", 10_000 if part == "train" else 64),
        late=_late(values, part, place),
        place=place,
        **{key: values[key] for key in ("seed", "device") if key in values},
    )


def _late(values: Mapping[str, Any], part: Part, place: str) -> LateClips | None:
    if values.get("late") is None:
        return None
    if part != "train":
        raise ConfigError(f"{place}.late is given, which is for training; leave it out of {part}")
    late, place = given(mapping_at(values, "late", place)), f"{place}.late"
    refuse_unknown(late, _LATE_KEYS, place)
    missing = [key for key in _LATE_KEYS if key not in late]
    if missing:
        raise ConfigError(f"{place}.{missing[0]} is missing; expected all of {', '.join(_LATE_KEYS)}")
    return LateClips(
        from_clip=late["from_clip"],
        batch_size=late["batch_size"],
        place=place,
        **{name: late[key] for name, key in _SHAPE.items()},
    )


def _video_params(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    video = mapping_at(values, "video_params", place, optional=True)
    refuse_unknown(video, _VIDEO_KEYS, f"{place}.video_params")
    return given(video)
