"""The best linear block transform (principal components): a yardstick without a network and with hardly any training.

Video is cut into blocks of t x s x s pixels of three colours, and each block becomes the k numbers with the least
squared error: its projections on the k leading eigenvectors of the covariance of blocks (Karhunen-Loève transform;
Hotelling 1933). With a tokenizer's factors as the block and its channels as k, it shows the gain of the model over
linear algebra at the same number of values. The k numbers are not quantized.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.runtime.passes import Pair
from vidtok.video import Pixels, to_float

_COLOURS = 3
FITTING_CLIPS = 60
FITTING_SEED = 241_213_061
"""No clips to measure on are made with this seed."""
LARGEST_BLOCK = 6144
"""Numbers in a block; the eigenvectors of larger ones take many minutes."""


@dataclass(frozen=True)
class BlockShape:
    """The block that video is cut into, and the numbers kept of each."""

    frames: int
    """t: frames of a block."""
    side: int
    """s: rows and columns of a block."""
    components: int
    """k: numbers kept of a block."""
    first_alone: bool = True
    """Code the first frame by itself, in blocks of 1 x s x s, as causal models do."""

    def __post_init__(self) -> None:
        if min(self.frames, self.side, self.components) < 1 or self.numbers > LARGEST_BLOCK:
            raise VidTokError(
                f"blocks of {self.frames} x {self.side} x {self.side} in {self.components} numbers were asked for; "
                f"expected at least 1 of each, and at most {LARGEST_BLOCK} numbers ({_COLOURS} a pixel) in a block"
            )

    @property
    def numbers(self) -> int:
        """Numbers in a block: three a pixel."""
        return self.numbers_of(self.frames, self.side)

    @staticmethod
    def numbers_of(frames: int, side: int) -> int:
        return _COLOURS * frames * side**2

    @property
    def name(self) -> str:
        return f"pca-{self.frames}x{self.side}x{self.side}-{self.components}{'' if self.first_alone else '-noncausal'}"

    def values(self, frames: int, height: int, width: int) -> int:
        """The count of numbers that a video of this size becomes."""
        alone = int(self.first_alone and frames > 0)
        groups = alone + -(-(frames - alone) // self.frames)
        return groups * -(-height // self.side) * -(-width // self.side) * self.components


@dataclass(frozen=True)
class _Basis:
    """Mean block (N,), the leading directions around it, (N, k), orthonormal, and the deviations along them, (k,)."""

    mean: Tensor
    directions: Tensor
    deviations: Tensor

    def coefficients(self, blocks: Tensor) -> Tensor:
        """The k numbers of each of `blocks` (..., N)."""
        return (blocks - self.mean.to(blocks.device)) @ self.directions.to(blocks.device)

    def project(self, blocks: Tensor) -> Tensor:
        """`blocks` (..., N) rebuilt from their k numbers."""
        return self.mean + self.coefficients(blocks) @ self.directions.T


class BlockTransform:
    """A transform fitted to clips by `fit`."""

    def __init__(self, shape: BlockShape, inner: _Basis, first: _Basis) -> None:
        self.shape = shape
        self._inner, self._first = inner, first

    @classmethod
    def fit(cls, shape: BlockShape, clips: Iterable[Tensor]) -> BlockTransform:
        """The transform with the least squared error on `clips`, each (B, 3, T, H, W) in -1..1.

        Fit it to other clips than those it is measured on. Raises `VidTokError` if they hold no whole block.
        """
        inner, first = _Sums(shape.numbers), _Sums(_COLOURS * shape.side**2)
        for clip in clips:
            first.add(cut_blocks(clip, 1, shape.side))
            whole = clip[:, :, : clip.shape[2] // shape.frames * shape.frames]
            if whole.shape[2]:
                inner.add(cut_blocks(whole, shape.frames, shape.side))
        return cls(shape, inner.basis(shape.components), first.basis(shape.components))

    @classmethod
    def fit_synthetic(cls, shape: BlockShape, clips: int = FITTING_CLIPS, seed: int = FITTING_SEED) -> BlockTransform:
        """`fit` on procedural clips, which are the same on every machine; see `docs/synthetic-clips.md`."""
        from vidtok.synthetic import SyntheticConfig, synthetic_batch

        config = SyntheticConfig(frames=max(17, 2 * shape.frames))
        return cls.fit(shape, (synthetic_batch(config, seed, [index]) for index in range(clips)))

    @property
    def deviations(self) -> Tensor:
        """Standard deviations (k,) of the numbers of a block, over the clips that were fitted; the first is largest."""
        return self._inner.deviations

    def coefficients(self, video: Tensor) -> Tensor:
        """The numbers (B, k, T', H', W') of all blocks of `video` (B, 3, T, H, W); no frame is coded alone."""
        blocks = cut_blocks(video, self.shape.frames, self.shape.side)
        return self._inner.coefficients(blocks).movedim(-1, 1)

    def __call__(self, video: Tensor, *, start: bool = True) -> Tensor:
        """The reconstruction of `video` (B, 3, T, H, W) in -1..1, of the same shape; any T, H and W.

        With `start`, the first frame is the first of the video. Blocks that are not full are filled by repeating the
        last frame, row and column.
        """
        if not (start and self.shape.first_alone):
            return _rebuilt(video, self.shape.frames, self.shape.side, self._inner)
        first = _rebuilt(video[:, :, :1], 1, self.shape.side, self._first)
        rest = video[:, :, 1:]
        return torch.cat([first, self(rest, start=False)], 2) if rest.shape[2] else first

    def pairs(self, chunks: Iterable[Pixels]) -> Iterator[Pair]:
        """A video, (T, H, W, 3) uint8 in pieces of any length, with its reconstruction."""
        groups = 0
        for piece, start in self._whole_groups(chunks):
            groups += 1 if start and self.shape.first_alone else -(-len(piece) // self.shape.frames)
            yield Pair(piece, self(to_float(piece), start=start).clamp(-1, 1), groups)

    def _whole_groups(self, chunks: Iterable[Pixels]) -> Iterator[tuple[Pixels, bool]]:
        """The video cut at the ends of groups, each piece with True if it is the start."""
        held: Pixels | None = None
        start = True
        for chunk in chunks:
            held = chunk if held is None else _joined(held, chunk)
            if start and self.shape.first_alone:
                yield held[:1], True
                held = held[1:]
            start = False
            whole = len(held) // self.shape.frames * self.shape.frames
            if whole:
                yield held[:whole], False
            held = held[whole:]
        if held is not None and len(held):
            yield held, False


class _Sums:
    """Sums over blocks and their products, in float64."""

    def __init__(self, numbers: int) -> None:
        self._count = 0
        self._sum = torch.zeros(numbers, dtype=torch.float64)
        self._products = torch.zeros(numbers, numbers, dtype=torch.float64)

    def add(self, blocks: Tensor) -> None:
        flat = blocks.flatten(0, -2)
        self._count += len(flat)
        self._sum += flat.double().sum(0)
        self._products += (flat.T @ flat).double()

    def basis(self, components: int) -> _Basis:
        if not self._count:
            raise VidTokError("the linear transform has no blocks to fit; give clips of at least one block's frames")
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        variances, directions = (part.flip(-1)[..., :components] for part in torch.linalg.eigh(covariance))
        return _Basis(mean.float(), directions.float(), variances.clamp(min=0).sqrt().float())


def cut_blocks(video: Tensor, frames: int, side: int) -> Tensor:
    """`video` as blocks (B, T', H', W', N), filled up at the end of every axis by repetition."""
    batch, colours, length, height, width = video.shape
    down, right = -height % side, -width % side
    if down or right:
        edge = F.pad(video.flatten(1, 2), (0, right, 0, down), mode="replicate")
        video = edge.view(batch, colours, length, height + down, width + right)
    if length % frames:
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, -length % frames, -1, -1)], 2)
    t, h, w = (size // cut for size, cut in zip(video.shape[2:], (frames, side, side), strict=True))
    cut = video.reshape(batch, colours, t, frames, h, side, w, side)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def _rebuilt(video: Tensor, frames: int, side: int, basis: _Basis) -> Tensor:
    """`video` with each block rebuilt by `basis`."""
    blocks = cut_blocks(video, frames, side)
    batch, t, h, w = blocks.shape[:4]
    kept = basis.project(blocks).view(batch, t, h, w, _COLOURS, frames, side, side)
    whole: Tensor = kept.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, _COLOURS, t * frames, h * side, w * side)
    return whole[:, :, : video.shape[2], : video.shape[3], : video.shape[4]]


def _joined(before: Pixels, after: Pixels) -> Pixels:
    return np.concatenate([before, after]) if len(before) else after
