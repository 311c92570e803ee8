"""Counts of unreadable videos: a few do not stop a run, many do not spoil it unseen."""

from __future__ import annotations

import logging

from vidtok.errors import DataError
from vidtok.text import counted
from vidtok.training.data.batches import Batch, Failure, Loaded

log = logging.getLogger(__name__)

_ENOUGH_TO_JUDGE = 200
_SHOWN = 5


class Unreadable:
    """Warns of each unreadable video once, and refuses to go on when their share is too large.

    The share is of all videos while fewer than 200 have been opened, and from then on of those opened. Each rank counts
    the videos of its own workers.

    Args:
        count: number of videos.
        max_share: largest share of unreadable videos.
        place: path of the section, for error messages.
    """

    def __init__(self, count: int, max_share: float, place: str) -> None:
        self.count = count
        self.max_share = max_share
        self.failures: dict[int, Failure] = {}
        """The unreadable videos so far."""
        self._place = place
        self._tried: set[int] = set()

    def check(self, loaded: Loaded) -> Batch:
        """The batch of `loaded`, whose failures are counted. Raises `DataError` if there are too many in all."""
        self._tried.update(loaded.tried)
        for failure in loaded.failures:
            if failure.item not in self.failures:
                self.failures[failure.item] = failure
                log.warning("another video is taken, since one cannot be read: %s", failure.reason)
        base = min(self.count, max(len(self._tried), _ENOUGH_TO_JUDGE))
        if loaded.batch is None or len(self.failures) > self.max_share * base:
            raise DataError(self._message())
        return loaded.batch

    def _message(self) -> str:
        listed = list(self.failures.values())
        lines = [f"  {failure.reason}" for failure in listed[:_SHOWN]]
        if len(listed) > _SHOWN:
            lines.append(f"  and {len(listed) - _SHOWN} more, named in the log")
        tried = counted(len(self._tried), "video")
        return (
            f"{len(listed)} of {tried} opened so far, of {self.count} in all, cannot be read; at most "
            f"a share of {self.max_share:g} may be ({self._place}.max_unreadable). Mend them, take them off the "
            "list, or allow a larger share:\n" + "\n".join(lines)
        )
