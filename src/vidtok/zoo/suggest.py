"""Near matches for a name that is not known, so that an error can say what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: object, known: Iterable[str], count: int = 3) -> str:
    """`" (did you mean A or B?)"` with the entries of `known` nearest to `name`, or nothing if none is near."""
    matches = get_close_matches(str(name), list(known), n=count, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
