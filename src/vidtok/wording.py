"""How counts are said."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`, `1,024 frames`: `noun` in its singular, and takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
