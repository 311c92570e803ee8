"""The table of metrics: how each one is shown, which network it needs, and which code measures it.

Results, report, `vidtok compare`, `vidtok models` and the parts that an evaluation keeps look metrics up here, so a new
metric is one entry of `METRICS`. PyTorch is imported when something is measured, not before: lists and help stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from vidtok.metrics.fvd import ClipDistance, Floats
    from vidtok.metrics.unavailable import Unavailable

NetworkName = Literal["lpips", "i3d"]
Features = tuple["Floats", "Floats"]
"""Features of the clips of a source and of its reconstruction, (N, D) float64 each."""


class FrameMeasure(NamedTuple):
    """A frame metric at work on one video."""

    figures: Callable[[Tensor, Tensor], Tensor]
    """Called with the next frames, reconstruction and source, (1, 3, T, H, W) float32 in -1..1. Returns a figure for
    each, (1, T); for pairs of frames (1, T - 1) the first time."""
    smallest_side: int = 1
    """Pixels. Smaller frames have no figure."""


class ClipMeasure(Protocol):
    """A clip metric at work on one video."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take the next frames: reconstruction and source, (1, 3, T, H, W) float32 in -1..1."""

    def result(self) -> Features:
        """The features of all clips, after the last frame."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: its name, and how figures are shown and compared."""

    name: str
    """Its key in results and kept parts."""
    label: str
    unit: str = ""
    higher_is_better: bool
    digits: int
    """Decimal places that carry meaning."""
    needs: NetworkName | None = None
    """The network that it measures with."""
    network: str = ""
    """Name and version of that network, as headings show it."""
    version: int = 1
    """Raise it when figures change: then this metric alone is measured again where figures were kept."""
    published: int | None = None
    """Decimal places of the published figures of models (`ModelEntry`); None: none are published."""

    @property
    def title(self) -> str:
        """Label and unit: `PSNR (dB)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def better(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    def text(self, value: float, sign: str = "") -> str:
        """`value` with `digits` decimal places; `sign` "+" shows the sign of positive values too."""
        return f"{value:{sign}.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class FrameMetric(Metric):
    """A metric with a figure for each frame, or each pair of successive frames. A video's figure is their mean."""

    per: Literal["frame", "pair"] = "frame"
    """A pair's figure counts as its later frame's."""
    start: Callable[[Any], FrameMeasure]
    """Begins a video; called with the network, or None where none is needed."""


@dataclass(frozen=True, kw_only=True)
class ClipMetric(Metric):
    """A metric of two sets of clips, by a network's features: one figure for all videos together."""

    start: Callable[[Any], ClipMeasure]
    """Begins a video; called with the network, or None where none is needed."""
    distance: Callable[[Iterable[Features]], ClipDistance | Unavailable]
    """The figure over the features of all videos."""


def _psnr(network: None) -> FrameMeasure:
    from vidtok.metrics.image import psnr

    return FrameMeasure(psnr)


def _ssim(network: None) -> FrameMeasure:
    from vidtok.metrics.image import SSIM_SMALLEST_SIDE, ssim

    return FrameMeasure(ssim, SSIM_SMALLEST_SIDE)


def _lpips(network: Any) -> FrameMeasure:
    from vidtok.metrics.lpips import SMALLEST_SIDE

    return FrameMeasure(network, SMALLEST_SIDE)


def _flicker(network: None) -> FrameMeasure:
    from vidtok.metrics.consistency import Flicker

    return FrameMeasure(Flicker().update)


def _fvd(network: Any) -> ClipMeasure:
    from vidtok.metrics.fvd import PairFeatures

    return PairFeatures(network)


def _fvd_of_all(features: Iterable[Features]) -> ClipDistance | Unavailable:
    from vidtok.metrics.fvd import fvd_of_videos

    return fvd_of_videos(features)


METRICS: dict[str, FrameMetric | ClipMetric] = {
    metric.name: metric
    for metric in (
        FrameMetric(
            name="psnr", label="PSNR", unit="dB", higher_is_better=True, digits=2, published=2, start=_psnr
        ),
        FrameMetric(name="ssim", label="SSIM", higher_is_better=True, digits=4, published=3, start=_ssim),
        FrameMetric(
            name="lpips", label="LPIPS", higher_is_better=False, digits=4, published=3, needs="lpips",
            network="VGG16, v0.1", start=_lpips,
        ),
        ClipMetric(
            name="fvd", label="FVD", higher_is_better=False, digits=1, published=1, needs="i3d",
            network="I3D, RGB, Kinetics-400", start=_fvd, distance=_fvd_of_all,
        ),
        FrameMetric(
            name="flicker", label="flicker", unit="levels of 255", higher_is_better=False, digits=2, per="pair",
            start=_flicker,
        ),
    )
}  # fmt: skip
"""Metrics by name, in the order of all tables."""

PUBLISHED = tuple(metric for metric in METRICS.values() if metric.published is not None)
"""The metrics that models have published figures of."""
