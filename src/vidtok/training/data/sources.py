"""What clips are made from, behind one interface: videos, or the procedural generator."""

from __future__ import annotations

import math

import torch

from vidtok.training.data.loader import Loaded, as_batch
from vidtok.training.data.order import Place
from vidtok.training.synthetic import SyntheticConfig, synthetic_batch


class SyntheticSource:
    """Clips of `vidtok.training.synthetic` by their index; `fps` and `start` are NaN, since they have no clock."""

    def __init__(self, config: SyntheticConfig, seed: int, device: torch.device) -> None:
        self.config = config
        self.seed = seed
        self.device = device

    def load(self, places: list[Place]) -> Loaded:
        indices = [place.item for place in places]
        unknown = [math.nan] * len(indices)
        clips = synthetic_batch(self.config, self.seed, indices, self.device)
        names = [f"synthetic clip {index} of seed {self.seed}" for index in indices]
        return Loaded(as_batch(clips, names, unknown, unknown), [], [])
