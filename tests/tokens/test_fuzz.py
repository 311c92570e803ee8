"""Damaged files give an error or what is sound of them: no crash, no hang, and at most 1 GB of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fuzz as fuzzer


def fuzz(folder: Path, count: int, seed: int, bombs: int, seconds: int) -> None:
    """Read damaged files; fails on anything unexpected, and where it takes more memory than it may."""
    result = fuzzer.run("tests.tokens.fuzzing", count, seed, folder, bombs, seconds=seconds)
    # All of these happen often, so that what is tested is not only how the first bytes are refused.
    assert min(result["outcomes"][kind] for kind in ("refused", "damaged", "read", "damaged+read")) > count / 30


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_few_thousand_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 3000, 1, 0, 250)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 100_000, 2, 3, 2900)
