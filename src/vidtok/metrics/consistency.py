"""Temporal consistency: the flicker of a reconstruction that does not change from frame to frame as its video does.

The measure is the error of frame differences. With x the video and y the reconstruction,

    flicker(t) = mean over pixels and channels of |(y[t] - y[t-1]) - (x[t] - x[t-1])|

in 8-bit levels (0 to 255), for every frame but the first. It is the mean absolute form of dtSSD (Erofeev et al.,
Perceptually Motivated Benchmark for Video Matting, BMVC 2015), which takes the root mean square. An error that stays
where it is costs nothing, however large; an error that comes and goes costs its size twice; noise that is independent
in every frame costs the square root of 2 times its size. Motion is not compensated for, so an error that travels with a
moving object counts too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidtok.metrics.image import check_pair

LEVELS = 127.5
"""8-bit levels in a step of 1, for pictures in -1..1."""


def flicker(prediction: Tensor, target: Tensor) -> Tensor:
    """The flicker of each frame but the first of video (B, C, T, H, W) in -1..1: (B, T - 1) in 8-bit levels.

    Raises `VidTokError` if the shapes differ.
    """
    check_pair(prediction, target, "flicker")
    return _changes(prediction.float() - target.float())


class Flicker:
    """`flicker` of a video that comes in pieces, however it is cut; keeps the error of one frame."""

    def __init__(self) -> None:
        self._last: Tensor | None = None

    def update(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The flicker (B, N) of the frames in this piece, (B, C, T, H, W) in -1..1: N is T; T - 1 for the first piece.

        Raises `VidTokError` if the shapes differ.
        """
        check_pair(prediction, target, "flicker")
        error = prediction.float() - target.float()
        joined = error if self._last is None else torch.cat([self._last, error], 2)
        if error.shape[2]:
            self._last = error[:, :, -1:].clone()
        return _changes(joined)


def _changes(error: Tensor) -> Tensor:
    return (error[:, :, 1:] - error[:, :, :-1]).abs().mean(dim=(1, 3, 4)) * LEVELS
