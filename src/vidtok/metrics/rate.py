"""How many bits a pixel costs.

A pixel is one position in one frame; its three colours count as one pixel, so that uncompressed video has 24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidtok.tokens import TokenFile

RGB_BITS = 24
LATENT_BITS = 16
"""What one value of a continuous latent counts, where nobody says how it is stored: a 16-bit float."""


def token_bits(tokens: int, codebook_size: int) -> float:
    """What tokens cost nominally: log2 of the codebook's size each."""
    return tokens * math.log2(codebook_size)


@dataclass
class Rate:
    """Bits and pixels of any number of videos.

    `update` adds one video or piece of one, `merge` what another process counted.
    """

    pixels: int = 0
    """Frames x height x width of the video that was encoded, before any padding."""
    nominal_bits: float = 0.0
    """For tokens `token_bits`, for latents `LATENT_BITS` a value."""
    stored_bits: int = 0
    """Of files or streams, where there are any."""

    def update(
        self, pixels: int, *, tokens: int = 0, codebook_size: int = 1, values: int = 0, stored_bytes: int = 0
    ) -> None:
        """Add `tokens` of a codebook, or `values` of a latent, and the bytes of a file, if there is one."""
        self.pixels += pixels
        self.nominal_bits += token_bits(tokens, codebook_size) + LATENT_BITS * values
        self.stored_bits += 8 * stored_bytes

    def update_file(self, file: TokenFile) -> None:
        """Add a token file, with the bytes that it has on disk, header and checksums included."""
        latent = file.header.latent
        count = latent.values_per_frame * file.latent_frames
        frames, height, width = file.size
        if latent.codebook_size is not None:
            self.update(
                frames * height * width, tokens=count, codebook_size=latent.codebook_size, stored_bytes=file.bytes
            )
        else:
            self.update(frames * height * width, values=count, stored_bytes=file.bytes)

    def merge(self, other: Rate) -> None:
        """Add what `other` counted."""
        self.pixels += other.pixels
        self.nominal_bits += other.nominal_bits
        self.stored_bits += other.stored_bits

    def state(self) -> dict[str, Any]:
        """Plain values for `from_state`."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Rate:
        """What `state` was taken of."""
        return cls(**state)

    def result(self) -> RateFigures:
        """The figures. `ValueError` if there are no pixels."""
        if not self.pixels:
            raise ValueError("no pixels were counted")
        nominal = self.nominal_bits / self.pixels if self.nominal_bits else None
        stored = self.stored_bits / self.pixels if self.stored_bits else None
        return RateFigures(self.pixels, nominal, stored)


@dataclass(frozen=True)
class RateFigures:
    """Bits per pixel."""

    pixels: int
    nominal: float | None
    """By the number of tokens or values; None where there are none, as for a classical codec."""
    stored: float | None
    """By the size of files or streams; None where nothing was stored."""
