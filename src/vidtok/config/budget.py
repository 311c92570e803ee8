"""Budget of a configuration: files, bytes and values that it comes to, counted before memory is taken for them.

Bases that name several files each, and interpolations of interpolated values, multiply: a file of 1 kB can stand for
more than any memory holds. All that is read for one configuration draws on one `Budget`; interpolations are
counted by `check_filled` and `cost_of_merging`, without being filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from vidtok.errors import ConfigError

MAX_FILES = 64
"""Files that are read for one configuration, bases of bases included."""
MAX_BYTES = 1 << 18
"""Bytes of all these files."""
MAX_VALUES = 10_000
"""Values, mappings and lists in a configuration, filled in."""
MAX_MERGED = 50_000
"""The same in all mappings that are merged on the way."""
MAX_TEXT = 1 << 20
"""Characters of its texts, filled in."""
MAX_DEPTH = 32
"""Mappings and lists within one another."""

INTERPOLATION = re.compile(r"\$\{([\w.\[\]]+)\}")
"""The interpolations that are read: `${path.to.value}`, `${list[0]}`, `${.beside}`."""
_INTERPOLATED = 10
"""Values that an interpolation counts as, for the time that it takes."""
_LONGEST_WAY = 150
"""Mappings, lists and interpolations one after another that are followed."""
_STEP = re.compile(r"[^.\[\]]+")

Path = tuple[str, ...]


class Cost(NamedTuple):
    """The size of a value that is filled in."""

    values: int
    """Values and interpolations on the way."""
    text: int
    """Characters."""

    def plus(self, other: Cost) -> Cost:
        return Cost(self.values + other.values, self.text + other.text)


@dataclass
class Budget:
    """The remaining budget of one configuration."""

    files: int = MAX_FILES
    bytes: int = MAX_BYTES
    values: int = MAX_MERGED
    text: int = MAX_TEXT

    def take_file(self, size: int, source: str) -> None:
        """Count a file of `size` bytes. Raises `ConfigError` if the configuration has too many files or bytes."""
        self.files -= 1
        self.bytes -= size
        if self.files < 0:
            raise ConfigError(
                f"{source}: the bases of one configuration lead to more than {MAX_FILES} files; expected a few"
            )
        if self.bytes < 0:
            raise ConfigError(
                f"{source}: the bases of one configuration hold more than {MAX_BYTES:,} bytes; expected a few"
            )

    def take_merged(self, cost: Cost, source: str) -> None:
        """Count merged values. Raises `ConfigError` if there are too many."""
        self.values -= cost.values
        self.text -= cost.text
        _check(Cost(self.values, self.text), Cost(MAX_MERGED, MAX_TEXT), f"{source}: its bases come")


def check_filled(values: Any, source: str) -> None:
    """Raise `ConfigError` if plain `values` are too large once their interpolations, free of circles, are filled in."""
    cost = cost_of(values, source)
    _check(Cost(MAX_VALUES - cost.values, MAX_TEXT - cost.text), Cost(MAX_VALUES, MAX_TEXT),
           f"{source}: its interpolations come")  # fmt: skip


def _check(left: Cost, most: Cost, what: str) -> None:
    if min(left) < 0:
        beyond = f"{most.values:,} values" if left.values < 0 else f"{most.text:,} characters"
        raise ConfigError(f"{what} to more than {beyond}; expected a short configuration")


def check_depth(values: Any, source: str) -> None:
    """Raise `ConfigError` if mappings and lists are nested too deep."""
    if max((depth for _, depth in _walk(values)), default=0) > MAX_DEPTH:
        raise ConfigError(f"{source} has mappings and lists more than {MAX_DEPTH} deep; expected fewer")


def cost_of(values: Any, source: str) -> Cost:
    """The size of plain `values` once their interpolations are filled in; those that lead nowhere count as one value.

    Raises `ConfigError`, which begins with `source`, for interpolations that lead to one another too often.
    """
    costs = _Costs(values, source)
    return costs.of((), costs.root)


def cost_of_merging(below: Any, above: Any, source: str) -> Cost:
    """The size of plain `below` and `above`, and of values filled in where one comes over an interpolation."""
    costs = _Costs(below, source)
    return costs.of_merging((), costs.root, _named(above)).plus(Cost(sum(1 for _ in _walk(below)), 0))


def _walk(values: Any) -> Iterator[tuple[Any, int]]:
    """All values, mappings and lists, each with its depth."""
    waiting = [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Mapping | list):
            depth += 1
            items = value.values() if isinstance(value, Mapping) else value
            waiting += [(item, depth) for item in items]
        yield value, depth


class _Costs:
    """The costs of the values below a root, each computed once."""

    def __init__(self, root: Any, source: str) -> None:
        self.root = _named(root)
        self._source = source
        self._known: dict[Path, Cost] = {}
        self._depth = 0

    def of(self, path: Path, value: Any) -> Cost:
        """The cost of `value`, which stands at `path`."""
        if isinstance(value, str) and "${" not in value:
            return Cost(1, len(value))
        if not isinstance(value, dict | str):
            return Cost(1, value.bit_length() // 3 if isinstance(value, int) else 8)
        known = self._known.get(path)
        if known is None:
            with self._deeper():
                if isinstance(value, str):
                    known = self._of_text(path, value)
                else:
                    known = Cost(1, 0)
                    for key, item in value.items():
                        known = known.plus(self.of((*path, key), item))
            self._known[path] = known
        return known

    def of_merging(self, path: Path, below: Any, above: Any) -> Cost:
        """The cost of `above` over `below`, which stands at `path`."""
        total = Cost(1, 0)
        if isinstance(below, str) and "${" in below:
            total = total.plus(self.of(path, below))
            path, below = self._target(path, below) or (path, None)
        if isinstance(above, dict):
            lower = below if isinstance(below, dict) else {}
            with self._deeper():
                for key, value in above.items():
                    total = total.plus(self.of_merging((*path, key), lower.get(key), value))
        return total

    def _of_text(self, path: Path, text: str) -> Cost:
        total = Cost(1, len(text))
        for match in INTERPOLATION.finditer(text):
            total = total.plus(Cost(_INTERPOLATED, 0))
            found = self._find(path, match[1])
            if found is not None:
                cost = self.of(*found)
                # A mapping in the midst of a text is written out.
                total = total.plus(cost if match[0] == text else Cost(cost.values, cost.text + 8 * cost.values))
        return total

    def _target(self, path: Path, text: str) -> tuple[Path, Any] | None:
        """The place and value that a text of one interpolation, which stands at `path`, stands for."""
        match = INTERPOLATION.fullmatch(text)
        found = None if match is None else self._find(path, match[1])
        if found is not None and isinstance(found[1], str):
            with self._deeper():
                return self._target(*found) or found
        return found

    def _find(self, path: Path, key: str) -> tuple[Path, Any] | None:
        """The place and value that the interpolation `key`, which stands at `path`, leads to."""
        name = key.lstrip(".")
        up = len(key) - len(name)
        steps = [*(path[:-up] if up else ()), *_STEP.findall(name)]
        place: Path = ()
        value = self.root
        for step in steps:
            if isinstance(value, str):
                with self._deeper():
                    place, value = self._target(place, value) or (place, None)
            if not isinstance(value, dict) or step not in value:
                return None
            place, value = (*place, step), value[step]
        return place, value

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _LONGEST_WAY:
            raise ConfigError(
                f"{self._source}: interpolations lead to one another in a circle, or too often; expected a few"
            )
        yield
        self._depth -= 1


def _named(value: Any) -> Any:
    """`value` with texts as the keys of mappings, and lists as mappings of numbers."""
    if isinstance(value, Mapping):
        return {str(key): _named(item) for key, item in value.items()}
    return {str(i): _named(item) for i, item in enumerate(value)} if isinstance(value, list) else value
