"""The stand-in for a figure or network that is not to be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """Stands in place of a figure, or of a network that measures it, and holds the reason.

    A missing file of weights or a picture too small for a metric costs one column of a table, not the table: functions
    return this instead of raising, and figures computed from it are `Unavailable` too.
    """

    reason: str
    """A sentence or more for the user: the thing that is missing, and the remedy."""

    def __str__(self) -> str:
        return self.reason
