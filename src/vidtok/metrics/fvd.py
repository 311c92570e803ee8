"""Fréchet video distance (Unterthiner et al., arXiv 1812.01717): a distance between two sets of videos.

    video -> clips of 16 frames -> 224 x 224 -> I3D -> 400 logits -> mean and covariance -> Fréchet distance

Both sets are described by a Gaussian over I3D's logits. The distance depends strongly on the number of clips, and is
only comparable between runs on the same clips; `docs/metrics.md` tells this variant from other published ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.metrics.i3d import I3D, LOGITS, SHORTEST, SIDE
from vidtok.metrics.unavailable import Unavailable

Floats = npt.NDArray[np.float64]

CLIP_FRAMES = 16


class ClipFeatures:
    """I3D's logits of successive clips of a video that comes in pieces, however it is cut.

    Holds fewer frames than one clip. Frames that do not fill a last clip are left out, as is usual for FVD; so are
    videos shorter than a clip.
    """

    def __init__(self, network: I3D, clip_frames: int = CLIP_FRAMES) -> None:
        if clip_frames < SHORTEST:
            raise VidTokError(f"FVD was asked for on clips of {clip_frames} frames; I3D expects at least {SHORTEST}")
        self.network = network
        self.clip_frames = clip_frames
        self._frames: list[Tensor] = []

    def update(self, video: Tensor) -> Floats:
        """The features (N, 400), float64, of the clips that these frames, (1, 3, T, H, W) in -1..1, complete.

        Raises `VidTokError` for another shape.
        """
        if video.ndim != 5 or video.shape[:2] != (1, 3):
            raise VidTokError(f"video is {tuple(video.shape)}; FVD expects (1, 3, T, H, W), one video at a time")
        features = [np.empty((0, LOGITS))]
        for frame in video.unbind(2):
            self._frames.append(resized(frame))
            if len(self._frames) == self.clip_frames:
                clip = torch.stack(self._frames, 2)
                device = next(self.network.parameters()).device
                logits = self.network(clip.to(device))
                features.append(logits.to("cpu", torch.float64).numpy())
                self._frames.clear()
        return np.concatenate(features)

    def end_video(self) -> int:
        """Begin another video; returns the number of frames of this one that were left over."""
        left = len(self._frames)
        self._frames.clear()
        return left


class PairFeatures:
    """The features of one video and of its reconstruction, which come side by side in pieces."""

    def __init__(self, network: I3D) -> None:
        self._clips = ClipFeatures(network), ClipFeatures(network)
        self._found: tuple[list[Floats], list[Floats]] = ([], [])

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take the next frames of reconstruction and source, (1, 3, T, H, W) in -1..1."""
        for clips, video, found in zip(self._clips, (target, prediction), self._found, strict=True):
            found.append(clips.update(video))

    def result(self) -> tuple[Floats, Floats]:
        """The features (N, 400) of all whole clips so far: the source's, the reconstruction's."""
        source, reconstruction = (np.concatenate([np.empty((0, LOGITS)), *found]) for found in self._found)
        return source, reconstruction


def resized(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) at 224 x 224, float32: bilinear, pixels as areas, not antialiased, whatever their shape."""
    return F.interpolate(pictures.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False)


class FeatureStatistics:
    """Mean and covariance of features, from running sums in float64 (Chan et al., The American Statistician 1983)."""

    def __init__(self, size: int = LOGITS) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(size)
        self._scatter: Floats = np.zeros((size, size))

    def update(self, features: npt.ArrayLike) -> None:
        """Add features (N, size). Raises `VidTokError` if one is not finite."""
        array = np.asarray(features, np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.mean):
            raise ValueError(f"features are {array.shape}; expected (N, {len(self.mean)})")
        if not np.isfinite(array).all():
            raise VidTokError("features are not finite; expected finite video. Check the checkpoint")
        if len(array):
            mean = array.mean(0)
            self._add(len(array), mean, (array - mean).T @ (array - mean))

    def merge(self, other: FeatureStatistics) -> None:
        """Add the features that `other` has seen. Raises `ValueError` if they are of another size."""
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"features of {len(self.mean)} and {len(other.mean)} values do not merge")
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def _add(self, count: int, mean: Floats, scatter: Floats) -> None:
        total = self.count + count
        step = mean - self.mean
        self._scatter = self._scatter + scatter + np.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def covariance(self) -> Floats:
        """Covariance (size, size), with the divisor count - 1. Raises `ValueError` for fewer than two features."""
        if self.count < 2:
            raise ValueError(f"{self.count} features have no covariance; expected at least 2")
        return self._scatter / (self.count - 1)

    def state(self) -> dict[str, Any]:
        """Arrays for `from_state`, fit for `numpy.savez`."""
        return {"count": np.int64(self.count), "mean": self.mean, "scatter": self._scatter}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FeatureStatistics:
        """An object equal to the one that gave `state`, which may come from `numpy.load`."""
        mean = np.asarray(state["mean"], np.float64)
        statistics = cls(len(mean))
        statistics.count = int(state["count"])
        statistics.mean = mean
        statistics._scatter = np.asarray(state["scatter"], np.float64)
        return statistics


@dataclass(frozen=True)
class ClipDistance:
    """A distance between two sets of clips, such as the Fréchet video distance."""

    distance: float
    """0 for equal sets; lower is better."""
    clips: int
    """Clips of the reference; only distances over the same number of clips compare."""


def fvd(reference: FeatureStatistics, generated: FeatureStatistics) -> ClipDistance | Unavailable:
    """The distance between two sets of clips. Returns `Unavailable` if either has fewer than two."""
    fewest = min(reference.count, generated.count)
    if fewest < 2:
        return Unavailable(
            f"FVD expects at least 2 clips of {CLIP_FRAMES} frames, and there "
            f"{'is 1' if fewest == 1 else 'are none'}; give more videos or longer ones"
        )
    distance = frechet_distance(reference.mean, reference.covariance, generated.mean, generated.covariance)
    return ClipDistance(distance, reference.count)


def fvd_of_videos(features: Iterable[tuple[Floats, Floats]]) -> ClipDistance | Unavailable:
    """The distance between all sources and all reconstructions, from the features of each video and its
    reconstruction."""
    sources, reconstructions = FeatureStatistics(), FeatureStatistics()
    for source, reconstruction in features:
        sources.update(source)
        reconstructions.update(reconstruction)
    return fvd(sources, reconstructions)


def frechet_distance(
    mean_a: npt.ArrayLike, covariance_a: npt.ArrayLike, mean_b: npt.ArrayLike, covariance_b: npt.ArrayLike
) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson and Landau, 1982), in float64.

        |mean_a - mean_b|^2 + tr A + tr B - 2 tr (A^(1/2) B A^(1/2))^(1/2)

    The last trace is the sum of the singular values of A^(1/2) B^(1/2), with roots from the eigenvalues of the
    symmetric A and B. So nothing is lost where they are singular, as with fewer clips than features: there, the root of
    the product A B, as `scipy.linalg.sqrtm` takes it, is complex or needs a multiple of the identity added.

    `mean_a` and `mean_b` are (D,), the covariances (D, D), symmetric up to rounding. Raises `ValueError` for other
    shapes.
    """
    means = [np.asarray(mean, np.float64) for mean in (mean_a, mean_b)]
    covariances = [np.asarray(covariance, np.float64) for covariance in (covariance_a, covariance_b)]
    size = means[0].size
    if any(mean.shape != (size,) for mean in means) or any(matrix.shape != (size, size) for matrix in covariances):
        shapes = ", ".join(str(array.shape) for array in (*means, *covariances))
        raise ValueError(f"means and covariances are {shapes}; expected two of (D,) and two of (D, D)")
    root_a, root_b = (_root(matrix) for matrix in covariances)
    shared = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    between = float(((means[0] - means[1]) ** 2).sum())
    within = float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared)
    return max(0.0, between + within)


def _root(covariance: Floats) -> Floats:
    """R with R R^T = `covariance`: eigenvectors times the roots of the eigenvalues, (D, D)."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    # Rounding leaves eigenvalues of 0 tiny, and their roots would not be small.
    noise = len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    values = np.where(values > noise, values, 0.0)
    root: Floats = vectors * np.sqrt(values)
    return root
