"""Bits per pixel.

A pixel is one position in one frame of the video that was encoded, before any padding. Its three colours count as one
pixel, so uncompressed video has 24 bits per pixel.
"""

from __future__ import annotations

import math

RGB_BITS = 24
LATENT_BITS = 16
"""Bits that a value of a continuous latent counts as, since no storage is given for it: a 16-bit float."""


def nominal_bits(positions: int, channels: int, codebook_size: int | None) -> float:
    """The bits of a latent before entropy coding.

    Args:
        positions: T' x H' x W' of the latent.
        channels: values at a position.
        codebook_size: of a quantized latent, which is one token at a position; None for a continuous one.

    Returns:
        log2 of the codebook's size for each token, or `LATENT_BITS` for each value.
    """
    return positions * (LATENT_BITS * channels if codebook_size is None else math.log2(codebook_size))


def bits_per_pixel(bits: float, pixels: int) -> float:
    """Bits per pixel of video of `pixels`: frames x height x width, summed over videos. Needs at least one pixel."""
    return bits / pixels


def compression(bits_per_pixel: float) -> float:
    """The ratio of RGB's 24 bits a pixel to `bits_per_pixel`, which is above 0."""
    return RGB_BITS / bits_per_pixel
