from __future__ import annotations

import pytest
import torch

from vidtok import sequence


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_there_and_back(begin: bool, frames: bool, count: int) -> None:
    tokens = torch.randint(0, 64, (2, count, 3, 4), dtype=torch.int32)
    flat = sequence.flatten(tokens, codebook_size=64, begin=begin, frames=frames)
    assert flat.shape == (2, count * 12 + begin + frames * (count - 1))
    assert flat.dtype == torch.int64
    back = sequence.unflatten(flat, (3, 4), codebook_size=64, begin=begin, frames=frames)
    assert torch.equal(back, tokens.long())


def test_the_order_is_raster_by_frame() -> None:
    tokens = torch.arange(8).view(1, 2, 2, 2)
    assert sequence.flatten(tokens).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    marked = sequence.flatten(tokens, codebook_size=8, begin=True, frames=True)
    assert marked.tolist() == [[8, 0, 1, 2, 3, 9, 4, 5, 6, 7]]
    assert (sequence.begin_token(8), sequence.frame_token(8), sequence.vocabulary_size(8)) == (8, 9, 10)


def test_a_prefix_is_the_video_s_prefix() -> None:
    tokens = torch.randint(0, 64, (1, 4, 2, 3))
    options = {"codebook_size": 64, "begin": True, "frames": True}
    whole, part = sequence.flatten(tokens, **options), sequence.flatten(tokens[:, :2], **options)
    assert torch.equal(whole[:, : part.shape[1]], part)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0, 1, 2], {}, "whole latent frames"),
        ([], {}, "whole latent frames"),
        ([9, 1, 2], {"codebook_size": 8, "begin": True}, "begin marker"),
        ([0, 1, 0, 2, 3], {"codebook_size": 8, "frames": True}, "frame marker"),
        ([0, 8], {"codebook_size": 8}, "no marker between"),
        ([8, 1, 2], {"begin": True}, "codebook_size"),
    ],
)
def test_other_sequences_are_refused(values: list[int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence.unflatten(torch.tensor([values], dtype=torch.int64), (1, 2), **options)


def test_other_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        sequence.flatten(torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="expected"):
        sequence.flatten(torch.zeros(2, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="codebook_size"):
        sequence.flatten(torch.zeros(1, 2, 2, 2, dtype=torch.int64), begin=True)


def test_digits_are_the_quantizer_s() -> None:
    from vidtok.models.fsq import indices_to_codes

    levels = (8, 5, 4)
    tokens = torch.arange(160).view(2, 80)
    split = sequence.digits(tokens, levels)
    assert split.shape == (2, 80, 3)
    assert torch.equal(sequence.from_digits(split, levels), tokens)
    halves = torch.tensor([4, 2, 2])
    torch.testing.assert_close((split - halves) / halves, indices_to_codes(tokens, levels))
    with pytest.raises(ValueError, match="0 to 159"):
        sequence.digits(torch.tensor([160]), levels)
    with pytest.raises(ValueError, match="expected 3"):
        sequence.from_digits(torch.tensor([1, 2]), levels)
