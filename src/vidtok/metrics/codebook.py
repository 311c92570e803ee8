"""Codebook use of a quantizer, from counts of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtok.errors import VidTokError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CodebookFigures:
    """Figures of codebook use."""

    size: int
    """Entries of the codebook."""
    tokens: int
    """Tokens that were counted."""
    used: int
    """Entries that occur."""
    use: float
    """`used` over `size`: 0 to 1. It cannot exceed `tokens` over `size`."""
    expected_use: float
    """`use` of the same number of tokens drawn evenly from the codebook: the yardstick where tokens are few."""
    entropy: float
    """Entropy of the distribution of tokens, in bits: the cost of a token for an ideal coder without memory."""
    perplexity: float
    """2 to the power of `entropy`: this many entries, evenly used, are as hard to guess. 1 to `size`."""


class CodebookUse:
    """Counts of tokens: constant memory (8 bytes an entry), any number of videos, mergeable across processes."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a codebook has {size} entries; expected at least 1")
        self.size = size
        self.counts: Counts = np.zeros(size, np.int64)
        """Tokens of each entry, (size,)."""

    def update(self, indices: Tensor | npt.ArrayLike) -> None:
        """Count tokens of any shape, whole numbers from 0 to size - 1. Raises `VidTokError` for others."""
        tensor = indices.detach() if isinstance(indices, Tensor) else torch.as_tensor(np.asarray(indices))
        tensor = tensor.reshape(-1)
        if tensor.is_floating_point():
            raise VidTokError(
                f"tokens are {tensor.dtype}; expected whole numbers, such as log['indices'] of an encoding"
            )
        if not tensor.numel():
            return
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= self.size:
            raise VidTokError(
                f"tokens range from {low} to {high}; expected 0 to {self.size - 1}: give the codebook size of the "
                "model that made them"
            )
        self.counts += torch.bincount(tensor.long().cpu(), minlength=self.size).numpy()

    def merge(self, other: CodebookUse) -> None:
        """Add the counts of `other`. Raises `ValueError` if its codebook is of another size."""
        if other.size != self.size:
            raise ValueError(f"codebooks of {self.size} and {other.size} entries do not merge")
        self.counts += other.counts

    def state(self) -> dict[str, Any]:
        """Plain values for `from_state`: the entries that occur, and the tokens of each."""
        codes = np.flatnonzero(self.counts)
        return {"size": self.size, "codes": codes.tolist(), "counts": self.counts[codes].tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CodebookUse:
        """An object equal to the one that gave `state`."""
        use = cls(state["size"])
        use.counts[np.asarray(state["codes"], np.int64)] = state["counts"]
        return use

    def result(self) -> CodebookFigures:
        """The figures. Raises `ValueError` if nothing was counted."""
        tokens = int(self.counts.sum())
        if not tokens:
            raise ValueError("no tokens were counted")
        share = self.counts[self.counts > 0] / tokens
        entropy = max(0.0, float(-(share * np.log2(share)).sum()))
        missed = np.exp(tokens * np.log1p(-1 / self.size)) if self.size > 1 else 0.0
        return CodebookFigures(
            size=self.size,
            tokens=tokens,
            used=len(share),
            use=len(share) / self.size,
            expected_use=float(1 - missed),
            entropy=entropy,
            perplexity=2.0**entropy,
        )

    def ranked(self) -> Counts:
        """Tokens of each entry that occurs, the commonest first."""
        return -np.sort(-self.counts[self.counts > 0])

    def histogram(self, bins: int = 64) -> Counts:
        """Tokens in each of `bins` ranges of successive entries: at most `size` ranges, of nearly the same size."""
        edges = np.linspace(0, self.size, min(bins, self.size) + 1).astype(np.int64)
        return np.add.reduceat(self.counts, edges[:-1])
