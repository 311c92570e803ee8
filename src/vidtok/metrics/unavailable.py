"""The answer where a figure cannot be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """Stands where a figure would, or a network that measures it, and says why there is none.

    A missing file of weights or a picture too small for a metric costs one column of a table, not the table: what
    finds the reason returns this in place of raising, and what is computed from it is `Unavailable` too.
    """

    reason: str
    """A sentence or more for the user: what is missing and what to do."""

    def __str__(self) -> str:
        return self.reason
