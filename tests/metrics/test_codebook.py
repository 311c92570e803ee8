"""Use and perplexity of codebooks: closed forms, SciPy, parts and states."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import VidTokError
from vidtok.metrics.codebook import CodebookUse


def used(size: int, *tokens: torch.Tensor) -> CodebookUse:
    use = CodebookUse(size)
    for part in tokens:
        use.update(part)
    return use


@pytest.mark.parametrize("size", [1, 8, 262_144])
def test_even_use_has_the_perplexity_of_the_codebook(size: int) -> None:
    figures = used(size, torch.arange(size).repeat(3)).result()
    assert (figures.tokens, figures.used, figures.use) == (3 * size, size, 1)
    assert figures.perplexity == pytest.approx(size)
    assert figures.entropy == pytest.approx(np.log2(size))


def test_one_entry_alone_has_perplexity_one() -> None:
    figures = used(4096, torch.full((1, 5, 4, 4), 7, dtype=torch.int32)).result()
    assert (figures.tokens, figures.used, figures.perplexity) == (80, 1, 1)
    assert figures.entropy == 0


def test_entropy_agrees_with_scipy() -> None:
    tokens = np.random.default_rng(0).geometric(0.01, 5000) % 1000
    figures = used(1000, torch.from_numpy(tokens)).result()
    assert figures.entropy == pytest.approx(scipy.stats.entropy(np.bincount(tokens), base=2))
    assert figures.used == len(set(tokens.tolist()))


def test_few_tokens_are_judged_by_what_is_possible() -> None:
    generator = torch.Generator().manual_seed(0)
    figures = used(4096, torch.randint(4096, (5000,), generator=generator)).result()
    assert figures.use == pytest.approx(figures.expected_use, rel=0.02)
    assert figures.expected_use == pytest.approx(1 - (4095 / 4096) ** 5000)
    assert used(1, torch.zeros(3, dtype=torch.long)).result().expected_use == 1


@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.lists(st.integers(0, 19), max_size=30), min_size=1, max_size=4).filter(any))
def test_parts_merge_to_the_whole(parts: list[list[int]]) -> None:
    whole = used(20, torch.tensor(list(itertools.chain(*parts))))
    together = CodebookUse(20)
    for part in parts:
        state = used(20, torch.tensor(part, dtype=torch.int32)).state()
        together.merge(CodebookUse.from_state(json.loads(json.dumps(state))))
    assert np.array_equal(together.counts, whole.counts)
    assert together.result() == whole.result()


def test_histograms_hold_every_token() -> None:
    tokens = torch.tensor([0, 0, 0, 1, 5, 9, 9])
    use = used(10, tokens)
    assert use.ranked().tolist() == [3, 2, 1, 1]
    assert use.histogram(5).tolist() == [4, 0, 1, 0, 2]
    assert use.histogram(3).tolist() == [4, 1, 2]
    assert use.histogram(64).tolist() == use.counts.tolist()


def test_what_cannot_be_counted() -> None:
    use = CodebookUse(8)
    for tokens in ([0, 8], [-1, 3]):
        with pytest.raises(VidTokError, match=r"tokens range from -?\d to \d; expected 0 to 7: give the codebook size"):
            use.update(torch.tensor(tokens))
    with pytest.raises(VidTokError, match=r"tokens are torch.float32; expected whole numbers"):
        use.update(torch.zeros(3))
    assert use.counts.sum() == 0
    use.update(torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="no tokens were counted"):
        use.result()
    with pytest.raises(ValueError, match="codebooks of 8 and 9 entries do not merge"):
        use.merge(CodebookUse(9))
    with pytest.raises(ValueError, match="a codebook has 0 entries; expected at least 1"):
        CodebookUse(0)
