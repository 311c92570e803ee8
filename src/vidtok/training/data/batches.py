"""Batches of clips, as loader workers hand them over."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Batch = dict[str, Any]
"""`video` (B, 3, T, H, W) float32 in -1..1; `name`, a list of B strings; `fps` and `start` (seconds into the video),
(B,) float64."""


class Failure(NamedTuple):
    """A video that cannot be read."""

    item: int
    reason: str
    """The message, which begins with the video's path."""


class Loaded(NamedTuple):
    """One batch and the fate of the videos opened for it."""

    batch: Batch | None
    """None if too many videos in a row were unreadable."""
    tried: list[int]
    """The videos that were opened."""
    failures: list[Failure]


def as_batch(video: Tensor, names: list[str], fps: list[float], start: list[float]) -> Batch:
    """The batch of these clips; `video` is (B, 3, T, H, W)."""
    return {
        "video": video,
        "name": names,
        "fps": torch.tensor(fps, dtype=torch.float64),
        "start": torch.tensor(start, dtype=torch.float64),
    }
