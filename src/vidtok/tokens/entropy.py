"""Entropy coding of tokens: a range coder (the package `constriction`) with tables of whole numbers.

A token is coded as the digits that it has in the codebook's levels, channel by channel, so that tables stay small
however large the codebook is. A digit of more than 256 values is split into bytes.

`static`: the frequencies of every digit over the chunk are stored in front. `adaptive`: frequencies start equal, and
encoder and decoder count them alike, row by row of the latent. There is a table for each value of a neighbouring digit:
the same digit at the same place of the latent frame before or, in the first latent frame of a chunk, of the row above.

Frequencies are whole numbers, whose sums are exact, so that encoder and decoder have the same tables on any machine. A
stored CRC-32 of the digits shows any difference.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtok.tokens.packing import Tokens

_LARGEST_DIGIT = 256
_LARGEST_FREQUENCY = 65535
_STEP = 24
"""Amount that an occurrence adds to a frequency; all start at 1."""
_LIMIT = 1 << 16
"""Frequencies of a table are halved when their sum exceeds this."""
_CRC = struct.Struct("<I")

Digits = npt.NDArray[np.uint8]
Frequencies = npt.NDArray[np.int64]
Contexts = npt.NDArray[np.int64]


class EntropyError(ValueError):
    """Bytes do not hold coded tokens."""


def radices(levels: Sequence[int]) -> tuple[int, ...]:
    """Number of values of each digit of a token, least significant first; all at most 256."""
    result: list[int] = []
    for level in levels:
        while level > _LARGEST_DIGIT:
            result.append(_LARGEST_DIGIT)
            level = -(-level // _LARGEST_DIGIT)
        result.append(level)
    return tuple(result)


def encode(tokens: Tokens, levels: Sequence[int], *, adaptive: bool) -> bytes:
    """Bytes of `tokens` (T', H', W'), whole numbers in 0..prod(levels) - 1."""
    digits = _split(tokens, levels)
    coder = _encode_adaptive(digits, levels) if adaptive else _encode_static(digits, levels)
    return _CRC.pack(zlib.crc32(digits.tobytes())) + coder


def decode(content: bytes, shape: tuple[int, int, int], levels: Sequence[int], *, adaptive: bool) -> Tokens:
    """The tokens in `content`, of `shape` (T', H', W'), int32; undoes `encode`.

    Raises `EntropyError` if `content` does not hold them.
    """
    if len(content) < _CRC.size:
        raise EntropyError("it is too short")
    try:
        digits = (_decode_adaptive if adaptive else _decode_static)(content[_CRC.size :], shape, levels)
    except (ValueError, AssertionError) as error:
        # The coder raises an AssertionError for bytes that no encoder makes.
        raise EntropyError(str(error).partition("\n")[0][:100]) from error
    if zlib.crc32(digits.tobytes()) != _CRC.unpack_from(content)[0]:
        raise EntropyError("the decoded tokens are not those that were encoded")
    return _join(digits, levels)


def _split(tokens: Tokens, levels: Sequence[int]) -> Digits:
    """The digits (S, T', H', W') of `tokens`, S digits each."""
    digits = np.empty((len(radices(levels)), *tokens.shape), np.uint8)
    rest = tokens.astype(np.int64)
    place = 0
    for level in levels:
        rest, digit = np.divmod(rest, level)
        for radix in radices([level]):
            digit, part = np.divmod(digit, radix)
            digits[place] = part
            place += 1
    return digits


def _join(digits: Digits, levels: Sequence[int]) -> Tokens:
    tokens = np.zeros(digits.shape[1:], np.int64)
    place, basis = 0, 1
    for level in levels:
        digit, unit = np.zeros(digits.shape[1:], np.int64), 1
        for radix in radices([level]):
            digit += digits[place].astype(np.int64) * unit
            unit *= radix
            place += 1
        if digit.size and digit.max() >= level:
            raise EntropyError("a token lies beyond the codebook")
        tokens += digit * basis
        basis *= level
    return tokens.astype(np.int32)


def _words(content: bytes) -> npt.NDArray[np.uint32]:
    if len(content) % 4:
        raise EntropyError("its length is not a multiple of 4")
    return np.frombuffer(content, "<u4").astype(np.uint32)


def _compressed(coder: Any) -> bytes:
    return bytes(coder.get_compressed().astype("<u4").tobytes())


def _categorical(frequencies: npt.NDArray[np.float64] | None = None) -> Any:
    import constriction

    model = constriction.stream.model.Categorical
    return model(perfect=False) if frequencies is None else model(frequencies, perfect=False)


def _encode_static(digits: Digits, levels: Sequence[int]) -> bytes:
    import constriction

    coder = constriction.stream.queue.RangeEncoder()
    tables = b""
    for plane, radix in zip(digits, radices(levels), strict=True):
        counts = np.bincount(plane.reshape(-1), minlength=radix)
        if counts.max() > _LARGEST_FREQUENCY:
            counts = -(-counts * _LARGEST_FREQUENCY // counts.max())  # rounded up, to keep values that occur
        tables += counts.astype("<u2").tobytes()
        coder.encode(plane.reshape(-1).astype(np.int32), _categorical(counts.astype(np.float64)))
    return tables + _compressed(coder)


def _decode_static(content: bytes, shape: tuple[int, int, int], levels: Sequence[int]) -> Digits:
    import constriction

    sizes = radices(levels)
    if len(content) < 2 * sum(sizes):
        raise EntropyError("its tables are cut off")
    frequencies = np.frombuffer(content, "<u2", sum(sizes)).astype(np.float64)
    coder = constriction.stream.queue.RangeDecoder(_words(content[2 * sum(sizes) :]))
    digits = np.empty((len(sizes), *shape), np.uint8)
    place = 0
    for plane, radix in zip(digits, sizes, strict=True):
        table = frequencies[place : place + radix]
        place += radix
        if not table.any():
            raise EntropyError("one of its tables is empty")
        plane[:] = coder.decode(_categorical(table), plane.size).reshape(shape)
    return digits


class _Counts:
    """The adaptive tables of one digit: a row of frequencies for each context."""

    def __init__(self, radix: int) -> None:
        self._table: Frequencies = np.ones((1 + 2 * radix, radix), np.int64)
        self._radix = radix

    def contexts(self, plane: Digits, frame: int, row: int) -> Contexts:
        """The contexts (W',) of a row, each a row of the table.

        0 in the first row, 1 + the digit above in the first frame, else 1 + radix + the digit in the frame before.
        """
        if frame:
            before, offset = plane[frame - 1, row], 1 + self._radix
        elif row:
            before, offset = plane[0, row - 1], 1
        else:
            before, offset = np.zeros_like(plane[0, 0]), 0
        contexts: Contexts = before.astype(np.int64) + offset
        return contexts

    def frequencies(self, contexts: Contexts) -> npt.NDArray[np.float64]:
        return self._table[contexts].astype(np.float64)

    def update(self, contexts: Contexts, row: Digits) -> None:
        np.add.at(self._table, (contexts, row), _STEP)
        full = self._table.sum(axis=1) > _LIMIT
        if full.any():
            self._table[full] = (self._table[full] + 1) // 2


def _encode_adaptive(digits: Digits, levels: Sequence[int]) -> bytes:
    import constriction

    coder = constriction.stream.queue.RangeEncoder()
    family = _categorical()
    tables = [_Counts(radix) for radix in radices(levels)]
    for frame in range(digits.shape[1]):
        for row in range(digits.shape[2]):
            for plane, counts in zip(digits, tables, strict=True):
                contexts = counts.contexts(plane, frame, row)
                coder.encode(plane[frame, row].astype(np.int32), family, counts.frequencies(contexts))
                counts.update(contexts, plane[frame, row])
    return _compressed(coder)


def _decode_adaptive(content: bytes, shape: tuple[int, int, int], levels: Sequence[int]) -> Digits:
    import constriction

    coder = constriction.stream.queue.RangeDecoder(_words(content))
    family = _categorical()
    sizes = radices(levels)
    tables = [_Counts(radix) for radix in sizes]
    digits = np.empty((len(sizes), *shape), np.uint8)
    for frame in range(shape[0]):
        for row in range(shape[1]):
            for plane, counts in zip(digits, tables, strict=True):
                contexts = counts.contexts(plane, frame, row)
                plane[frame, row] = coder.decode(family, counts.frequencies(contexts))
                counts.update(contexts, plane[frame, row])
    return digits
