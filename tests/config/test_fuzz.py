"""Odd configurations give an error of one line or a model, quickly and in little memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fuzz as fuzzer


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_thousands_of_configurations(tmp_path: Path) -> None:
    result = fuzzer.run("tests.config.fuzzing", 5_000, 1, tmp_path, seconds=1700)
    assert min(result["outcomes"][kind] for kind in ("refused", "read", "built")) > 20
