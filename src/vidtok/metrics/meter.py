"""All metrics of frames, over a video that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidtok.metrics.accumulate import CURVE_POINTS, VideoScores
from vidtok.metrics.consistency import Flicker
from vidtok.metrics.image import check_pair, psnr, ssim
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.metrics.unavailable import Unavailable

BATCH = 16
"""Frames that are measured at a time."""
_SSIM_SIDE, _LPIPS_SIDE = 11, 16


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    name: str
    """Under which `VideoScores` and `Scores` hold it."""
    label: str
    unit: str
    higher_is_better: bool
    digits: int
    """Decimal places that mean something."""


METRICS: tuple[Metric, ...] = (
    Metric("psnr", "PSNR", "dB", True, 2),
    Metric("ssim", "SSIM", "", True, 4),
    Metric("lpips", "LPIPS", "", False, 4),
    Metric("flicker", "flicker", "levels of 255", False, 2),
)
"""The metrics that have a figure for each frame."""


def load_lpips(
    source: str | Path | Sequence[str | Path] | None = None, device: torch.device | str = "cpu"
) -> LPIPS | Unavailable:
    """LPIPS from `source` or the usual places, as `LPIPS.from_weights` finds it; where that fails, why."""
    try:
        return LPIPS.from_weights(source).to(device)
    except LPIPSWeightsError as error:
        return Unavailable(str(error))


class VideoMeter:
    """PSNR, SSIM, LPIPS and flicker of one video, frame by frame. How it is cut into pieces makes no difference.

    Attributes:
        scores: the figures so far, by the names in `METRICS`.
        unavailable: the metrics that are not measured, by name, and why.
    """

    def __init__(self, lpips: LPIPS | Unavailable, *, points: int = CURVE_POINTS) -> None:
        self.scores = VideoScores(points)
        self.unavailable: dict[str, Unavailable] = {}
        self.frames = 0
        self._flicker = Flicker()
        self._lpips: LPIPS | None = None
        if isinstance(lpips, Unavailable):
            self.unavailable["lpips"] = lpips
        else:
            self._lpips = lpips

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Measure the next frames: both (1, 3, T, H, W), float, -1..1, T of any size.

        LPIPS's weights are expected on the frames' device. Raises `VidTokError` if the shapes differ, or a figure is
        not finite.
        """
        check_pair(prediction, target, "the evaluation", channels=3)
        self._check_size(min(target.shape[-2:]))
        with torch.autocast(target.device.type, enabled=False):
            for start in range(0, target.shape[2], BATCH):
                piece = slice(start, start + BATCH)
                self._measure(prediction[:, :, piece].float(), target[:, :, piece].float())

    def _measure(self, x: Tensor, y: Tensor) -> None:
        flicker = self._flicker.update(x, y)[0]
        figures = {"psnr": psnr(x, y)[0]}
        if "ssim" not in self.unavailable:
            figures["ssim"] = ssim(x, y)[0]
        if self._lpips is not None and "lpips" not in self.unavailable:
            figures["lpips"] = self._lpips(x, y)[0]
        self.scores.update(self.frames, figures)
        # The flicker of a video's first frame does not exist.
        self.scores.update(self.frames + y.shape[2] - len(flicker), {"flicker": flicker})
        self.frames += y.shape[2]

    def _check_size(self, side: int) -> None:
        for metric, smallest in (("ssim", _SSIM_SIDE), ("lpips", _LPIPS_SIDE)):
            if side < smallest and metric not in self.unavailable:
                label = metric.upper()
                self.unavailable[metric] = Unavailable(
                    f"{label} expects frames of at least {smallest} pixels a side, and a side has {side}"
                )
