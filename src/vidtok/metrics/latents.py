"""Statistics of latents by channel, over any number of videos in constant memory, mergeable across processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtok.metrics.codebook import CodebookFigures, CodebookUse

MOST_COVARIANCES = 256
"""Channels up to which covariances between channels are kept; above, the channels' variances alone."""

MOST_CODES = 1 << 24
"""Entries of a codebook up to which tokens are counted."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LatentFigures:
    """Statistics over all positions, one value a channel unless said otherwise."""

    positions: int
    """Latent positions (T' x H' x W') that were counted."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Standard deviation; 1 for a channel that never changes, so that it divides."""
    low: tuple[float, ...]
    """Smallest value."""
    high: tuple[float, ...]
    """Largest value."""
    covariance: tuple[tuple[float, ...], ...] | None
    """Covariances, z rows of z values; None above `MOST_COVARIANCES` channels."""
    posterior_std: tuple[float, ...] | None
    """KL: root mean square of the posterior's standard deviation; None where no posterior was seen."""
    codebook: CodebookFigures | None
    """Use of the codebook; None for a continuous latent, and above `MOST_CODES` entries."""


class LatentStatistics:
    """Moments, range and codebook use of latents, collected one piece at a time.

    Means and covariances are merged by Chan, Golub and LeVeque's update (1979) in float64, so that the result depends
    on the order of pieces only by rounding.

    Args:
        channels: values per latent position, z.
        codebook_size: of a quantized latent; None for a continuous one.
    """

    def __init__(self, channels: int, codebook_size: int | None = None) -> None:
        self.channels = channels
        self.positions = 0
        self.mean: _Floats = np.zeros(channels)
        crossed = channels <= MOST_COVARIANCES
        self.squares: _Floats = np.zeros((channels, channels) if crossed else channels)
        """Sums of products of deviations from the mean, (z, z), or of squares alone, (z,)."""
        self.low: _Floats = np.full(channels, np.inf)
        self.high: _Floats = np.full(channels, -np.inf)
        self.posteriors = 0
        self.variance: _Floats = np.zeros(channels)
        """Mean of the posterior's variance over `posteriors` positions."""
        counted = codebook_size is not None and codebook_size <= MOST_CODES
        self.codes = CodebookUse(codebook_size or 1) if counted else None

    def update(self, latent: Tensor, variance: Tensor | None = None, indices: Tensor | None = None) -> None:
        """Count a latent (B, z, T', H', W'), and the posterior's variance of that shape or its tokens (B, T', H', W').

        Values must be finite. Raises `ValueError` for another number of channels.
        """
        values = self._by_channel(latent)
        if not len(values):
            return
        if indices is not None and self.codes is not None:
            self.codes.update(indices)
        mean = values.mean(0)
        deviations = values - mean
        squares = deviations.T @ deviations if self.squares.ndim == 2 else np.square(deviations).sum(0)
        self._join(len(values), mean, squares)
        self.low = np.minimum(self.low, values.min(0))
        self.high = np.maximum(self.high, values.max(0))
        if variance is not None:
            variances = self._by_channel(variance)
            self._join_variance(len(variances), variances.mean(0))

    def merge(self, other: LatentStatistics) -> None:
        """Add what `other` has counted. Raises `ValueError` if its latents are of another form."""
        sizes = [None if each.codes is None else each.codes.size for each in (self, other)]
        if other.channels != self.channels or sizes[0] != sizes[1]:
            raise ValueError(
                f"statistics of {self.channels} channels (codebook {sizes[0]}) and of {other.channels} (codebook "
                f"{sizes[1]}) do not merge"
            )
        if other.positions:
            self._join(other.positions, other.mean, other.squares)
        if other.posteriors:
            self._join_variance(other.posteriors, other.variance)
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        if self.codes is not None and other.codes is not None:
            self.codes.merge(other.codes)

    def result(self) -> LatentFigures:
        """The figures. Raises `ValueError` if nothing was counted."""
        if not self.positions:
            raise ValueError("no latents were counted")
        crossed = self.squares.ndim == 2
        variance = (np.diag(self.squares) if crossed else self.squares) / self.positions
        constant = self.low == self.high
        covariance = tuple(_plain(row) for row in self.squares / self.positions) if crossed else None
        return LatentFigures(
            positions=self.positions,
            mean=_plain(self.mean),
            std=_plain(np.where(constant, 1.0, np.sqrt(variance))),
            low=_plain(self.low),
            high=_plain(self.high),
            covariance=covariance,
            posterior_std=_plain(np.sqrt(self.variance)) if self.posteriors else None,
            codebook=None if self.codes is None else self.codes.result(),
        )

    def state(self) -> dict[str, Any]:
        """Plain values for `from_state`."""
        return {
            "channels": self.channels,
            "positions": self.positions,
            "mean": self.mean.tolist(),
            "squares": self.squares.tolist(),
            "range": [self.low.tolist(), self.high.tolist()] if self.positions else None,
            "posteriors": self.posteriors,
            "variance": self.variance.tolist(),
            "codes": None if self.codes is None else self.codes.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LatentStatistics:
        """An object equal to the one that gave `state`. Raises `ValueError` if `state` is of no such object."""
        try:
            codes = state["codes"]
            # Sizes that no statistics have would be gigabytes of zeros.
            if len(state["mean"]) != int(state["channels"]) or not (codes is None or 0 < codes["size"] <= MOST_CODES):
                raise ValueError(f"no statistics of latents: their sizes do not fit, or are above {MOST_CODES:,} codes")
            made = cls(int(state["channels"]), None if codes is None else int(codes["size"]))
            made.positions, made.posteriors = int(state["positions"]), int(state["posteriors"])
            made.mean, made.squares, made.variance = (
                _like(state[name], getattr(made, name)) for name in ("mean", "squares", "variance")
            )
            if state["range"] is not None:
                made.low, made.high = (_like(state["range"][i], made.low) for i in (0, 1))
            if codes is not None:
                made.codes = CodebookUse.from_state(codes)
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"no statistics of latents: {type(error).__name__} {error}") from error
        return made

    def _by_channel(self, latent: Tensor) -> _Floats:
        """The positions of `latent` (B, z, …) as rows of channels, (N, z) float64."""
        if latent.dim() < 2 or latent.shape[1] != self.channels:
            raise ValueError(f"the latent has shape {tuple(latent.shape)}; expected (B, {self.channels}, T', H', W')")
        rows = latent.detach().movedim(1, -1).reshape(-1, self.channels)
        found: _Floats = rows.to("cpu", torch.float64).numpy()
        return found

    def _join(self, positions: int, mean: _Floats, squares: _Floats) -> None:
        total = self.positions + positions
        shift = mean - self.mean
        between = np.outer(shift, shift) if self.squares.ndim == 2 else np.square(shift)
        self.squares = self.squares + squares + between * (self.positions * positions / total)
        self.mean = self.mean + shift * (positions / total)
        self.positions = total

    def _join_variance(self, positions: int, variance: _Floats) -> None:
        self.posteriors += positions
        self.variance = self.variance + (variance - self.variance) * (positions / self.posteriors)


def _plain(values: _Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _like(values: Any, like: _Floats) -> _Floats:
    """`values` as an array of the shape of `like`. Raises `ValueError` if they are of another or not finite."""
    found = np.asarray(values, np.float64)
    if found.shape != like.shape or not np.isfinite(found).all():
        raise ValueError(
            f"no statistics of latents: an array of shape {found.shape}, expected {like.shape}, all finite"
        )
    return found
