"""Token files made from drawn values, for the tests of `vidtok.tokens`."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import torch

from vidtok.tokens import LatentLayout, ModelIdentity, TokenHeader, TokenWriter, VideoLayout

HASH = "0123456789abcdef" * 4
LEVELS = (8, 5, 3)


def make_header(
    coding: str = "packed",
    *,
    levels: tuple[int, ...] = LEVELS,
    grid: tuple[int, int] = (3, 5),
    chunk: int = 4,
    factor: int = 4,
    causal: bool = True,
    channels: int = 4,
    fps: Fraction = Fraction(25),
) -> TokenHeader:
    """A header of frames 8 times as large as `grid`, less a rest."""
    discrete = coding in ("packed", "static", "adaptive")
    return TokenHeader(
        model=ModelIdentity(name="some model", config=HASH, weights=HASH, weights_dtype="float32", signs=HASH),
        latent=LatentLayout(
            coding=coding, channels=len(levels) if discrete else channels, height=grid[0], width=grid[1],
            temporal_factor=factor, spatial_factor=8, causal=causal, chunk=chunk, levels=levels if discrete else None,
        ),
        video=VideoLayout(height=8 * grid[0] - 3, width=8 * grid[1] - 1, fps=fps),
    )  # fmt: skip


def draw_values(header: TokenHeader, frames: int, seed: int = 0) -> torch.Tensor:
    """Tokens, or a latent, of `frames` latent frames."""
    latent = header.latent
    generator = torch.Generator().manual_seed(seed)
    if latent.codebook_size is not None:
        shape = (1, frames, latent.height, latent.width)
        return torch.randint(latent.codebook_size, shape, generator=generator, dtype=torch.int32)
    return torch.randn(1, latent.channels, frames, latent.height, latent.width, generator=generator)


def write_file(path: Path, header: TokenHeader, frames: int = 11, *, seed: int = 0) -> torch.Tensor:
    """Write a file of `frames` latent frames, and return its values."""
    values = draw_values(header, frames, seed)
    with TokenWriter(path, header) as writer:
        writer.write(values)
    return values


def resealed(content: bytes) -> bytes:
    """`content` with the checksums of the preamble, the header and all chunks made right again, as far as found."""
    data = bytearray(content)
    length = struct.unpack_from("<I", data, 12)[0] if len(data) >= 24 else 1 << 32
    if 24 + length <= len(data):
        struct.pack_into("<I", data, 16, zlib.crc32(bytes(data[24 : 24 + length])))
        struct.pack_into("<I", data, 20, zlib.crc32(bytes(data[:20])))
    at = data.find(b"CHNK")
    while at >= 0 and at + 36 <= len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        struct.pack_into("<I", data, at + 28, zlib.crc32(bytes(data[at + 36 : at + 36 + size])))
        struct.pack_into("<I", data, at + 32, zlib.crc32(bytes(data[at : at + 32])))
        at = data.find(b"CHNK", at + 4)
    at = data.rfind(b"INDX")
    if at >= 0 and at + 12 <= len(data):
        count = struct.unpack_from("<I", data, at + 4)[0]
        struct.pack_into("<I", data, at + 8, zlib.crc32(bytes(data[at + 12 : at + 12 + 24 * count])))
    return bytes(data)
