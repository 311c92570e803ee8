"""Packed and entropy-coded tokens come back exactly, whatever the codebook."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.tokens import entropy
from vidtok.tokens.packing import bits_of, pack, packed_size, unpack

LEVEL_SETS = [(8,) * 4, (8,) * 5, (8,) * 6, (7, 5, 5, 5, 5), (8, 6, 5), (2,), (2, 3), (1000, 2), (70000, 3), (256, 257)]


@pytest.mark.parametrize(("codes", "bits"), [(2, 1), (3, 2), (4096, 12), (32768, 15), (262144, 18), (4375, 13),
                                             (2**31 - 1, 31)])  # fmt: skip
def test_a_token_takes_as_many_bits_as_it_needs(codes: int, bits: int) -> None:
    assert bits_of(codes) == bits
    tokens = np.random.default_rng(0).integers(0, codes, 1001).astype(np.int32)
    tokens[:2] = 0, codes - 1
    content = pack(tokens, bits)
    assert len(content) == packed_size(1001, bits) == math.ceil(1001 * bits / 8)
    assert (unpack(content, 1001, bits) == tokens).all()


def test_packed_tokens_are_as_documented() -> None:
    # 5, 0 and 7 in three bits each, least significant first: 101 000 11|1 0000000
    assert pack(np.array([5, 0, 7], np.int32), 3) == bytes([0b11000101, 0b00000001])


def test_many_tokens_are_packed_in_one_row() -> None:
    tokens = np.random.default_rng(1).integers(0, 32768, 200_003).astype(np.int32)
    whole = int.from_bytes(pack(tokens, 15), "little")
    for place in (0, 65535, 65536, 131072, 200_002):
        assert whole >> 15 * place & 32767 == tokens[place]
    assert (unpack(pack(tokens, 15), len(tokens), 15) == tokens).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_tokens_come_back(data: st.DataObject) -> None:
    levels = data.draw(st.one_of(st.sampled_from(LEVEL_SETS), st.lists(st.integers(2, 12), min_size=1, max_size=7)))
    shape = tuple(data.draw(st.integers(1, most)) for most in (6, 7, 9))
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # From one token over and over to all of them alike.
    used = max(1, round(math.prod(levels) ** data.draw(st.floats(0, 1))))
    tokens = draws.integers(0, used, shape).astype(np.int32)
    bits = bits_of(math.prod(levels))
    assert (unpack(pack(tokens.reshape(-1), bits), tokens.size, bits).reshape(shape) == tokens).all()
    for adaptive in (False, True):
        content = entropy.encode(tokens, levels, adaptive=adaptive)
        assert (entropy.decode(content, shape, levels, adaptive=adaptive) == tokens).all()


def test_coding_comes_near_to_the_entropy() -> None:
    draws = np.random.default_rng(0)
    share = np.array([0.6, 0.2, 0.1, 0.04, 0.03, 0.01, 0.01, 0.01])
    digits = draws.choice(8, (5, 16, 32, 32), p=share)
    tokens = sum(digits[i] * 8**i for i in range(5)).astype(np.int32)
    ideal = -(share * np.log2(share)).sum() * digits.size / 8
    for adaptive, excess in ((False, 0.01), (True, 0.04)):
        size = len(entropy.encode(tokens, (8,) * 5, adaptive=adaptive))
        assert ideal * 0.98 < size < ideal * (1 + excess) + 100
        assert size < packed_size(tokens.size, 15) * 0.7


def test_adaptive_coding_uses_what_stays_from_frame_to_frame() -> None:
    draws = np.random.default_rng(0)
    still = draws.integers(0, 4096, (1, 16, 16))
    tokens = np.where(draws.random((16, 16, 16)) < 0.9, still, draws.integers(0, 4096, (16, 16, 16))).astype(np.int32)
    static, adaptive = (len(entropy.encode(tokens, (8,) * 4, adaptive=adaptive)) for adaptive in (False, True))
    assert adaptive < static / 2


def test_digits_of_many_values_are_split() -> None:
    assert entropy.radices((8, 6, 5)) == (8, 6, 5)
    assert entropy.radices((256, 257)) == (256, 256, 2)
    assert entropy.radices((70000, 3)) == (256, 256, 2, 3)


@pytest.mark.parametrize("adaptive", [False, True])
def test_what_is_no_coded_tokens_is_told(adaptive: bool) -> None:
    tokens = np.random.default_rng(0).integers(0, 120, (4, 3, 5)).astype(np.int32)
    levels = (8, 5, 3)
    content = entropy.encode(tokens, levels, adaptive=adaptive)
    bad = [content[:3], content[:-1], content[:-4], content[:4], content[4:], content[:40] + bytes(len(content) - 40)]
    bad += [content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :] for i in range(len(content))]
    told = 0
    for damaged in bad:
        try:
            # Some bits of the last word decide nothing.
            assert (entropy.decode(damaged, tokens.shape, levels, adaptive=adaptive) == tokens).all()
        except entropy.EntropyError:
            told += 1
    assert told >= len(bad) - 4


def test_an_empty_table_is_told() -> None:
    with pytest.raises(entropy.EntropyError, match="one of its tables is empty"):
        entropy.decode(struct.pack("<I", 0) + bytes(2 * 16 + 8), (4, 3, 5), (8, 5, 3), adaptive=False)


def test_a_token_beyond_the_codebook_is_told() -> None:
    # 257 values are coded as two digits of 256 and 2, which reach up to 511.
    content = entropy.encode(np.full((2, 2, 2), 300, np.int32), (512,), adaptive=False)
    assert entropy.radices((512,)) == entropy.radices((257,))
    with pytest.raises(entropy.EntropyError, match="beyond the codebook"):
        entropy.decode(content, (2, 2, 2), (257,), adaptive=False)
