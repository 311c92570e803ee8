"""Counts in messages."""

from __future__ import annotations

import pytest

from vidtok.text import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 videos"), (1, "1 video"), (2, "2 videos"), (12345, "12,345 videos")]
)
def test_counts_are_said_in_singular_and_plural(count: int, text: str) -> None:
    assert counted(count, "video") == text
