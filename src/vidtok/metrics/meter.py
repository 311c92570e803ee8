"""Metrics over one video that comes in pieces."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from vidtok.metrics.accumulate import CURVE_POINTS, VideoScores
from vidtok.metrics.image import check_pair
from vidtok.metrics.networks import Networks
from vidtok.metrics.table import METRICS, ClipMeasure, Features, FrameMeasure, FrameMetric
from vidtok.metrics.unavailable import Unavailable

BATCH = 16
"""Frames that are measured at a time."""


class VideoMeter:
    """Measures one video, piece by piece. The figures do not depend on the cut.

    Args:
        networks: the networks that some metrics need.
        metrics: names of `METRICS`; None: all.
        points: of each curve, see `Curve`.

    Attributes:
        scores: the figures of frames so far, by the metric's name.
        versions: the metrics that are measured, each with the version of its definition, including metrics that turn
            out to be undefined for frames of this size.
        unavailable: the metrics that have no figures, by name, and why.
        frames: frames measured so far.
    """

    def __init__(
        self, networks: Networks, metrics: Collection[str] | None = None, *, points: int = CURVE_POINTS
    ) -> None:
        self.scores = VideoScores(points)
        self.versions: dict[str, int] = {}
        self.unavailable: dict[str, Unavailable] = {}
        self.frames = 0
        self._of_frames: list[tuple[FrameMetric, FrameMeasure]] = []
        self._of_clips: dict[str, ClipMeasure] = {}
        for name, metric in METRICS.items():
            if metrics is not None and name not in metrics:
                continue
            network = networks.of(metric)
            if isinstance(network, Unavailable):
                self.unavailable[name] = network
                continue
            self.versions[name] = metric.version
            if isinstance(metric, FrameMetric):
                self._of_frames.append((metric, metric.start(network)))
            else:
                self._of_clips[name] = metric.start(network)

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Measure the next frames: both (1, 3, T, H, W), float, -1..1, T of any size.

        The networks are expected on the frames' device. Raises `VidTokError` if the shapes differ, or a figure is not
        finite.
        """
        check_pair(prediction, target, "the evaluation", channels=3)
        self._check_size(min(target.shape[-2:]))
        with torch.autocast(target.device.type, enabled=False):
            for start in range(0, target.shape[2], BATCH):
                piece = slice(start, start + BATCH)
                self._measure(prediction[:, :, piece].float(), target[:, :, piece].float())

    def features(self) -> dict[str, Features]:
        """This video's features for each metric of clips, by the metric's name; to be called after the last frame."""
        return {name: measure.result() for name, measure in self._of_clips.items()}

    def _measure(self, x: Tensor, y: Tensor) -> None:
        length = y.shape[2]
        for metric, measure in self._of_frames:
            if metric.name in self.unavailable:
                continue
            figures = measure.figures(x, y)[0]
            # A pair's figure belongs to its later frame, so that the first frame of a video has none.
            assert len(figures) == length - (metric.per == "pair" and self.frames == 0), metric.name
            self.scores.update(self.frames + length - len(figures), {metric.name: figures})
        for clips in self._of_clips.values():
            clips.update(x, y)
        self.frames += length

    def _check_size(self, side: int) -> None:
        for metric, measure in self._of_frames:
            if side < measure.smallest_side and metric.name not in self.unavailable:
                self.unavailable[metric.name] = Unavailable(
                    f"{metric.label} expects frames of at least {measure.smallest_side} pixels a side, and a side has "
                    f"{side}"
                )
