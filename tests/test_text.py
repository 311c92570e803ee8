"""Counts, near names and causes in messages."""

from __future__ import annotations

import pytest

from vidtok.text import counted, near, one_line, reason


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 videos"), (1, "1 video"), (2, "2 videos"), (12345, "12,345 videos")]
)
def test_counts_are_said_in_singular_and_plural(count: int, text: str) -> None:
    assert counted(count, "video") == text


def test_near_names_are_offered() -> None:
    known = ("encoder", "decoder", "bottleneck")
    assert near("botleneck", known) == " (did you mean bottleneck?)"
    assert near("coder", known, 1) in (" (did you mean encoder?)", " (did you mean decoder?)")
    assert near(7, known) == ""


def test_causes_are_one_line() -> None:
    assert one_line(" a\n  b ") == "a b"
    assert reason(OSError(28, "No space left on device", "/a")) == "No space left on device"
    assert reason(OSError("many\nwords")) == "many words"
    assert reason(ValueError()) == "ValueError"
