"""Tokens in as many bits as they need: 15 for a codebook of 32,768, 18 for 262,144."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16  # a multiple of 8, so that every block ends on a whole byte

Tokens = npt.NDArray[np.int32]


def bits_of(codebook_size: int) -> int:
    """Number of bits of one token, at least 1."""
    return max(1, (codebook_size - 1).bit_length())


def packed_size(count: int, bits: int) -> int:
    """Number of bytes of `count` tokens of `bits` bits."""
    return -(-count * bits // 8)


def pack(tokens: Tokens, bits: int) -> bytes:
    """Bytes of `tokens` (N,), each in 0..2^bits - 1, without gaps, least significant bit first; zeros fill the last."""
    parts = []
    for start in range(0, len(tokens), _BLOCK):
        block = np.ascontiguousarray(tokens[start : start + _BLOCK], dtype="<u4")
        each = np.unpackbits(block.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")[:, :bits]
        parts.append(np.packbits(each.reshape(-1), bitorder="little").tobytes())
    return b"".join(parts)


def unpack(content: bytes, count: int, bits: int) -> Tokens:
    """The tokens (count,) int32 in `content`, of `packed_size(count, bits)` bytes; undoes `pack`."""
    packed = np.frombuffer(content, np.uint8)
    tokens = np.empty(count, np.int32)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        part = packed[start * bits // 8 : start * bits // 8 + packed_size(size, bits)]
        each = np.unpackbits(part, count=size * bits, bitorder="little").reshape(size, bits)
        whole = np.zeros((size, 32), np.uint8)
        whole[:, :bits] = each
        tokens[start : start + size] = np.packbits(whole, axis=1, bitorder="little").view("<u4")[:, 0]
    return tokens
