"""Random numbers as a function of (seed, index, purpose): the same on every device and for every batch.

`torch.Generator` yields other numbers on a GPU than on a CPU and draws for a whole batch at once, so that a clip would
depend on its neighbours. Here every number is an integer hash of a key and a counter (a counter-based generator, after
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the mixing function has the form of Ettinger's
lowbias32).
"""

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B1
# Both multipliers stay below 2**31, so that a product with a 32-bit number fits a signed 64-bit one.
_MULTIPLIERS = (0x7FEB352D, 0x2C1B3C6D)
_BLOCK = 192


def mix(x: Tensor) -> Tensor:
    """A bijective hash of 32-bit numbers held in int64, any shape; returns a new tensor."""
    x = x ^ (x >> 16)
    x.mul_(_MULTIPLIERS[0]).bitwise_and_(_MASK)
    x.bitwise_xor_(x >> 15)
    x.mul_(_MULTIPLIERS[1]).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 16)


class Draws:
    """A stream of random numbers for each row of a batch, independent of the other rows.

    Args:
        keys: (B, 2) int64 on the CPU, 32 bits each.
        device: holds the numbers.
    """

    def __init__(self, keys: Tensor, device: torch.device) -> None:
        self.keys = keys
        self.device = device
        self._used = 0
        self._block = torch.empty(len(keys), 0, device=device)
        self._left = 0

    @classmethod
    def of(cls, seed: int, indices: Sequence[int], device: torch.device) -> "Draws":
        """The streams of these clips or scenes; seed and indices may be any integers below 2**64 in size."""
        rows = []
        for index in indices:
            digest = 0
            words = [seed & _MASK, (seed >> 32) & _MASK, index & _MASK, (index >> 32) & _MASK]
            for word in words:
                digest = _mix64((digest ^ word) + _GOLDEN)
            rows.append([digest & _MASK, digest >> 32])
        return cls(torch.tensor(rows, dtype=torch.int64).reshape(-1, 2), device)

    def __len__(self) -> int:
        return len(self.keys)

    def fork(self, purpose: str) -> "Draws":
        """A fresh stream for a named purpose: a change in one part of a scene leaves the others as they were."""
        return Draws(mix(self.keys ^ zlib.crc32(purpose.encode())), self.device)

    def select(self, rows: Tensor) -> "Draws":
        """The streams of some rows (indices on the CPU), from their start."""
        return Draws(self.keys[rows], self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) float32, uniform in low..high."""
        count = math.prod(shape)
        if count > _BLOCK:
            values = self._hash(count, self.device)
        else:
            if count > self._left:
                # A whole block at once: many small hashes, or copies to a GPU, would cost more than the numbers
                # themselves.
                self._block, self._left = self._hash(_BLOCK, torch.device("cpu")).to(self.device), _BLOCK
            start = _BLOCK - self._left
            values = self._block[:, start : start + count]
            self._left -= count
        if (low, high) != (0.0, 1.0):
            values = values * (high - low) + low
        return values.reshape(len(self), *shape)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """(B, *shape) float32 in low..high, uniform in the logarithm."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def happens(self, share: float | Tensor, *shape: int) -> Tensor:
        """(B, *shape) float32, 1 with the given probability, else 0."""
        return (self.uniform(*shape) < share).float()

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32, standard normal."""
        return torch.erfinv(self.uniform(*shape).clamp(1e-6, 1 - 1e-6) * 2 - 1) * math.sqrt(2)

    def pairs(self, *shape: int) -> Tensor:
        """(B, *shape, 2) float32, uniform in -1..1 with 16 bits each: half the hashing, for fields of noise."""
        bits = self._bits(math.prod(shape), self.device)
        halves = torch.stack([bits & 0xFFFF, bits >> 16], -1).float()
        return halves.mul_(2 / 0xFFFF).sub_(1).reshape(len(self), *shape, 2)

    def _hash(self, count: int, device: torch.device) -> Tensor:
        return (self._bits(count, device) >> 8).float().mul_(2.0**-24)

    def _bits(self, count: int, device: torch.device) -> Tensor:
        keys = self.keys.to(device)
        counter = torch.arange(self._used, self._used + count, device=device)
        self._used += count
        return mix(mix((counter + keys[:, :1]) & _MASK) ^ keys[:, 1:])


def _mix64(x: int) -> int:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    full = (1 << 64) - 1
    x &= full
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & full
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & full
    return x ^ (x >> 31)
