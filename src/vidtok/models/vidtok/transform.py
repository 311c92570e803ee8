"""Blocks of pixels as channels, and a fixed linear transform of blocks beside the network.

`to_patches` and `from_patches` move p x p pixels into channels and back (space to depth; Shi et al., arXiv 1609.05158),
so that a network works on fewer and richer positions.

A `BlockTransform` codes each block of f x s x s pixels, f and s being the model's factors, as the z coefficients of a
three-dimensional cosine transform (Ahmed, Natarajan and Rao 1974) with the largest variances in ordinary video. The
encoder adds them to its network's output, and the decoder adds their video to its network's, so that the networks learn
the remainder of a linear transform, and an untrained model is that transform:

    video ----+--> encoder's network ---> + ---> latent ----+--> decoder's network ---> + ---> video
              |                           |                 |                           |
              +--> cosine transform ------+                 +--> inverse transform -----+

Everything follows from the configuration; there are no weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vidtok.models.config import FSQConfig
from vidtok.models.state import StreamState
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtok.temporal import TimeLayer

_COLOURS = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
"""Directions of colour: brightness, orange against blue, green against magenta."""
_COLOUR_DEVIATIONS = (1.0, 0.25, 0.14)
"""Standard deviations of ordinary video along these directions, relative to brightness."""
_DEVIATION = 0.45
"""Standard deviation of brightness, for pixels in -1..1."""
_CORRELATION = 0.95
"""Correlation of neighbouring pixels: video as a first-order process along each axis, in time as in space."""
_TAIL = (0.9, 1.15)
"""a and b. A code of FSQ at x in -1..1 stands for the value b atanh(a x): nearly the mean of a normal distribution
within the code's interval, also for the open outer intervals."""
LOG_VARIANCE = -10.0
"""The posterior's log-variance that an untrained KL model starts from: noise far below the coefficients."""


def to_patches(x: Tensor, size: int) -> Tensor:
    """Pixels (B, T, H, W, C) as patches (B, T, H / size, W / size, C size size): channel by channel, row by row."""
    if size == 1:
        return x
    batch, frames, height, width, channels = x.shape
    cut = x.view(batch, frames, height // size, size, width // size, size, channels)
    return cut.permute(0, 1, 2, 4, 6, 3, 5).flatten(4)


def from_patches(x: Tensor, size: int) -> Tensor:
    """Patches as pixels (B, T, H, W, C); undoes `to_patches`."""
    if size == 1:
        return x
    batch, frames, rows, columns, channels = x.shape
    cut = x.view(batch, frames, rows, columns, channels // size**2, size, size)
    return cut.permute(0, 1, 2, 5, 3, 6, 4).reshape(batch, frames, rows * size, columns * size, -1)


class BlockTransform(TimeLayer):
    """The coefficients of an encoder's video, or the video of a decoder's latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.frames, self.side = config.temporal_factor, config.spatial_factor
        self.lead = self.frames - 1 if config.is_causal else 0
        directions, deviations = _basis(config)
        # Not tensors: they follow from the configuration, no checkpoint holds them, and a dry run takes no real ones.
        self._analysis = (directions / deviations[:, None]).T
        self._synthesis = directions * deviations[:, None]
        self._levels = config.bottleneck.levels if isinstance(config.bottleneck, FSQConfig) else None

    def coefficients(self, video: Tensor, *, start: bool) -> Tensor:
        """Coefficients (B, z, T', H', W') of `video` (B, 3, T, H, W), each over its standard deviation.

        With `start`, the video starts here, and a causal model's first frame stands for a group of f.
        """
        if start and self.lead:
            video = torch.cat([video[:, :, :1].expand(-1, -1, self.lead, -1, -1), video], 2)
        batch, colours, frames, height, width = video.shape
        t, rows, columns = frames // self.frames, height // self.side, width // self.side
        cut = video.reshape(batch, colours, t, self.frames, rows, self.side, columns, self.side)
        blocks = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        with torch.autocast(video.device.type, enabled=False):
            return (blocks @ _tensor(self._analysis, blocks)).permute(0, 4, 1, 2, 3)

    def video(self, z: Tensor, state: StreamState, wanted: int, *, start: bool) -> Tensor:
        """The next `wanted` frames (B, 3, wanted, H, W) of a stream, given its next latent frames (B, z, T', H', W').

        Frames beyond `wanted`, which the delayed network has not made yet, are kept in `state`. With `start`, the
        stream starts here.
        """
        batch, _, t, rows, columns = z.shape
        values = self._dequantized(z.permute(0, 2, 3, 4, 1))
        with torch.autocast(z.device.type, enabled=False):
            blocks = values @ _tensor(self._synthesis, values)
        cut = blocks.view(batch, t, rows, columns, 3, self.frames, self.side, self.side)
        video = cut.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, 3, -1, rows * self.side, columns * self.side)
        if start and self.lead:
            video = video[:, :, self.lead :]
        held = state.past.get(self.slot)
        if held is not None and held.shape[2]:
            video = torch.cat([held, video], 2)
        state.keep(self.slot, video[:, :, wanted:].clone())
        return video[:, :, :wanted]

    def _dequantized(self, values: Tensor) -> Tensor:
        """The coefficients, over their standard deviations, that latent values (..., z) stand for."""
        if self._levels is None:
            return values
        levels = _tensor(np.array(self._levels, np.float64), values)
        share, factor = _TAIL
        # A code of L levels is a whole number, -(L // 2) to (L - 1) // 2, over L // 2.
        place = (values * (levels // 2) + (1 - levels % 2) / 2) * 2 / (levels - 1)
        return factor * torch.atanh(share * place.clamp(-1, 1))


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _basis(config: AutoencoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions (z, 3 f s s) in a block, and the standard deviations (z,) of pixels along them."""
    f, s = config.temporal_factor, config.spatial_factor
    colours = _COLOURS / np.linalg.norm(_COLOURS, axis=1, keepdims=True)
    of_colours = np.square(_COLOUR_DEVIATIONS) * 3 / np.square(_COLOUR_DEVIATIONS).sum()
    in_time, in_space = _variances(f), _variances(s)
    variances = np.einsum("c,t,y,x->ctyx", of_colours, in_time, in_space, in_space).ravel()
    # Equal variances, as of rows and columns, are ordered alike on every machine.
    chosen = np.lexsort((np.arange(len(variances)), -variances.round(12)))[: config.z_channels]
    c, t, y, x = np.unravel_index(chosen, (3, f, s, s))
    rows, columns, frames = _cosines(s)[y], _cosines(s)[x], _cosines(f)[t]
    directions = np.einsum("kc,kt,ky,kx->kctyx", colours[c], frames, rows, columns).reshape(len(chosen), -1)
    return directions, _DEVIATION * np.sqrt(variances[chosen])


def _cosines(size: int) -> np.ndarray:
    """The orthonormal cosine basis (size, size), a row for each frequency."""
    angles = np.pi / size * np.outer(np.arange(size), np.arange(size) + 0.5)
    basis: np.ndarray = np.cos(angles) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def _variances(size: int) -> np.ndarray:
    """Variances (size,) of the cosine coefficients of a first-order process of variance 1."""
    distances = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    covariance = _CORRELATION ** distances.astype(float)
    basis = _cosines(size)
    variances: np.ndarray = np.einsum("ki,ij,kj->k", basis, covariance, basis)
    return variances
