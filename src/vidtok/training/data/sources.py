"""Sources of clips, behind one interface: videos, or the procedural generator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from vidtok.errors import VideoError, without_truncation
from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.text import reason, unforeseen
from vidtok.training.data.batches import Failure, Loaded, as_batch
from vidtok.training.data.config import LateClips, VideosConfig
from vidtok.training.data.order import Place
from vidtok.video import Clip, MediaSlice, read_clip, to_float

_ATTEMPTS = 20


class VideoSource:
    """Clips of videos, from `start_index` on, or from a place drawn by (seed, epoch, position).

    The same numbers draw the video that is taken in place of one that cannot be read.
    """

    def __init__(self, videos: Sequence[str | MediaSlice], config: VideosConfig, seed: int) -> None:
        self.videos = videos
        self.config = config
        self.seed = seed

    def load(self, places: list[Place]) -> Loaded:
        clips: list[Clip] = []
        names: list[str] = []
        tried: list[int] = []
        failures: list[Failure] = []
        for place in places:
            found = self._clip(place, tried, failures)
            if found is None:
                return Loaded(None, tried, failures)
            names.append(str(self.videos[tried[-1]]))
            clips.append(found)
        video = torch.cat([to_float(clip.pixels) for clip in clips])
        rates, starts = [float(clip.fps) for clip in clips], [clip.start for clip in clips]
        return Loaded(as_batch(video, names, rates, starts), tried, failures)

    def _clip(self, place: Place, tried: list[int], failures: list[Failure]) -> Clip | None:
        """The clip of `place`, from the video that is now last in `tried`; None if none could be read."""
        draws = np.random.default_rng([self.seed, place.epoch, place.position])
        config = self.config
        unreadable: set[int] = set()
        item = place.item
        while True:
            position = draws.random()
            tried.append(item)
            try:
                return read_clip(
                    self.videos[item],
                    config.frames,
                    sample_fps=config.fps,
                    height=config.height,
                    width=config.width,
                    enlarge=config.enlarge,
                    position=position,
                    start_frame=config.start_index,
                    published=True,
                    threads=1,
                )
            except VideoError as error:
                failures.append(Failure(item, without_truncation(str(error))))
            except OSError as error:  # the file system's, such as a network drive that does not answer
                failures.append(Failure(item, f"{self.videos[item]}: {reason(error)}"))
            except Exception as error:  # no single video of a million may end the run
                failures.append(Failure(item, f"{self.videos[item]}: {unforeseen(error)}"))
            unreadable.add(item)
            if len(unreadable) == min(_ATTEMPTS, len(self.videos)):
                return None
            while item in unreadable:
                item = int(draws.integers(len(self.videos)))


class SyntheticSource:
    """Clips of `vidtok.synthetic` by their index; `fps` and `start` are NaN, since they have no clock."""

    def __init__(self, config: SyntheticConfig, seed: int, device: torch.device, late: LateClips | None = None) -> None:
        self.config = config
        self.seed = seed
        self.device = device
        self.late = late

    def load(self, places: list[Place]) -> Loaded:
        config, indices = self.config, [place.item for place in places]
        if self.late is not None and indices[0] >= self.late.from_clip:
            late = self.late
            config = dataclasses.replace(config, frames=late.frames, height=late.height, width=late.width)
            indices = indices[: late.batch_size]
        unknown = [math.nan] * len(indices)
        clips = synthetic_batch(config, self.seed, indices, self.device)
        names = [f"synthetic clip {index} of seed {self.seed}" for index in indices]
        return Loaded(as_batch(clips, names, unknown, unknown), [], [])
