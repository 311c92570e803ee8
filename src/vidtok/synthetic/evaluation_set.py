"""A small, varied set of procedural clips as video files, to evaluate on where nothing may be downloaded."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vidtok.errors import ConfigError, VideoError
from vidtok.files import aside
from vidtok.metrics.consistency import LEVELS
from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.render import synthetic_batch
from vidtok.video import VideoWriter, as_rate, to_uint8

META_FILE = "meta.csv"
_CRF = 4
_CANDIDATES = 8
_PREVIEW_FRAMES = 9
_MOST_PIXELS = 1 << 30
_CONTRAST = 40
"""Standard deviation in 8-bit levels below which a picture counts as flat."""
_PLAIN = {"cut_share": 0.0, "light_share": 0.0, "warp_share": 0.0, "overlay_share": 0.0, "letterbox_share": 0.0}


@dataclass(frozen=True)
class Kind:
    """One kind of clip."""

    fields: Mapping[str, Any]
    """Differences from a plain scene, as fields of `SyntheticConfig`."""
    change: float
    """Movement to aim for: mean difference between successive frames, in 8-bit levels."""


KINDS: Mapping[str, Kind] = {
    "still": Kind({"static_share": 0.5, "max_objects": 3}, 1.0),
    "pan": Kind({"static_share": 0.0, "max_speed": 24.0, "saturation": 1.4}, 12.0),
    "text": Kind({"text_share": 1.0, "overlay_share": 1.0, "max_defocus": 0.0}, 2.0),
    "water": Kind({"warp_share": 1.0, "static_share": 0.5}, 4.0),
    "light": Kind({"light_share": 1.0, "static_share": 0.4}, 3.0),
    "fast": Kind({"static_share": 0.0, "max_speed": 100.0, "motion_blur": 1.0}, 24.0),
    "crowd": Kind({"clutter": 0.9, "max_objects": 6, "saturation": 1.6}, 8.0),
    "cut": Kind({"cut_share": 1.0}, 4.0),
}
"""The kinds of clips, in the order in which they take turns."""


@dataclass(frozen=True)
class EvaluationSet:
    """The clips that `write_evaluation_set` makes.

    Attributes:
        clips: number of files, from 1 up; the kinds of `KINDS` take turns.
        height, width: size of a frame in pixels, from 16 up.
        frames: number of frames of a clip, from 1 up; a clip has at most 2^30 pixels over all its frames.
        fps: frames per second.
        seed: another one gives other clips.

    Raises:
        ConfigError: a value is out of its range.
        VideoError: `fps` is a rate that no video can have.
    """

    clips: int = 8
    height: int = 256
    width: int = 256
    frames: int = 34
    fps: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ConfigError(f"synthetic clips: {self.clips} clips were asked for; expected at least 1")
        as_rate(self.fps)
        self.config(0)
        pixels = self.frames * self.height * self.width
        if pixels > _MOST_PIXELS:
            raise ConfigError(
                f"synthetic clips: {self.frames} frames of {self.width} x {self.height} are {pixels:,} pixels; "
                f"expected at most {_MOST_PIXELS:,} a clip, since one is made in memory"
            )

    def kind(self, index: int) -> str:
        """Kind of clip `index`, a key of `KINDS`."""
        return list(KINDS)[index % len(KINDS)]

    def config(self, index: int) -> SyntheticConfig:
        """Options of clip `index`."""
        shape = {"frames": self.frames, "height": self.height, "width": self.width}
        return SyntheticConfig(**{**shape, **_PLAIN, **KINDS[self.kind(index)].fields})

    def clip(self, index: int) -> Tensor:
        """Clip `index`, (3, T, H, W) float32 in -1..1: of eight candidates, the one that shows its kind best."""
        config = self.config(index)
        candidates = range(index * _CANDIDATES, (index + 1) * _CANDIDATES)
        # Few frames, without a cut, tell the speed and the light of a clip.
        preview = replace(config, frames=min(self.frames, _PREVIEW_FRAMES), cut_share=0.0)
        change = KINDS[self.kind(index)].change
        faults = [_fault(synthetic_batch(preview, self.seed, [number])[0], change) for number in candidates]
        return synthetic_batch(config, self.seed, [candidates[faults.index(min(faults))]])[0]

    def file(self, index: int) -> str:
        """The name of clip `index`."""
        return f"{index:03d}_{self.kind(index)}.mp4"


def write_evaluation_set(
    folder: str | os.PathLike[str], spec: EvaluationSet, progress: Callable[[int], None] | None = None
) -> list[Path]:
    """Write the clips of `spec` to `folder` as H.264 of high quality, and `meta.csv` beside them.

    The CSV file has the columns `videos`, as the published evaluation reads it, `kind` and `seed`. Frames depend on
    `spec` alone (up to rounding, on any machine), files also on the encoder's version. The folder appears when it is
    whole; `progress` is called with the number of frames that are done.

    Returns the paths of the clips. Raises `VideoError` if the folder holds files already, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    problem, advice = f"clips cannot be written to {folder}", "choose another folder"
    _check_new(folder)
    with aside(folder, VideoError, folder=True, problem=problem, advice=advice) as new:
        for index in range(spec.clips):
            with VideoWriter(new / spec.file(index), spec.fps, crf=_CRF, preset="slow") as writer:
                writer.write(to_uint8(spec.clip(index)))
            if progress is not None:
                progress((index + 1) * spec.frames)
        with open(new / META_FILE, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["videos", "kind", "seed"])
            rows.writerows([spec.file(index), spec.kind(index), spec.seed] for index in range(spec.clips))
    return [folder / spec.file(index) for index in range(spec.clips)]


def _fault(video: Tensor, change: float) -> float:
    """Distance of a clip from the wanted change, in octaves, and from good light and contrast."""
    levels = (video + 1) * LEVELS
    light = levels.mean(0)
    moved = (levels[:, 1:] - levels[:, :-1]).abs().mean().item() if levels.shape[1] > 1 else change
    too_dark, too_bright = (light < 16).float().mean().item(), (light > 240).float().mean().item()
    flat = max(0.0, 1 - light[0].std().item() / _CONTRAST)
    return abs(math.log2((moved + 0.1) / change)) + 4 * (too_dark + too_bright + flat)


def _check_new(folder: Path) -> None:
    """Raise `VideoError` if `folder` holds anything already, or is a file."""
    if folder.exists() and not folder.is_dir():
        raise VideoError(f"{folder} is a file; give a new folder for the clips")
    if folder.is_dir() and any(folder.iterdir()):
        raise VideoError(f"{folder} is not empty; give a new folder for the clips, so that nothing else is evaluated")
