"""Damaged files give an error or what is sound of them: no crash, no hang, and at most 1 GB of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def fuzz(folder: Path, count: int, seed: int, bombs: int, seconds: int) -> dict[str, Any]:
    """What `fuzzing.py` says; it fails on anything unexpected, and where it takes more memory than it may."""
    command = [sys.executable, "-m", "tests.tokens.fuzzing", str(count), str(seed), str(folder), str(bombs)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert sum(result["outcomes"].values()) == count
    # All of these happen often, so that what is tested is not only how the first bytes are refused.
    assert min(result["outcomes"][kind] for kind in ("refused", "damaged", "read", "damaged+read")) > count / 30
    return result


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_few_thousand_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 3000, 1, 0, 250)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 100_000, 2, 3, 2900)
