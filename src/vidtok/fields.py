"""The one validator of configurations: frozen dataclasses from plain values, checked as their type hints say.

A field's hint names its type, and `Annotated` adds bounds or a condition beside it:

    @dataclass(frozen=True, kw_only=True)
    class BlockConfig:
        ch: Annotated[int, Within(1, 4096)] = 128
        kind: Literal["plain", "wide"] = "plain"
        share: Annotated[float, Within(0, below=1)] = 0.5
        place: InitVar[str] = ""

        def __post_init__(self, place: str) -> None:
            rule = check(self, place)
            rule("ch", self.kind == "plain" or self.ch % 2 == 0, "an even number for kind wide")

`build(BlockConfig, {"ch": 0}, "model")` raises `ConfigError`: "model.ch is 0; expected a whole number of at least 1".
`place` is the dotted path of a section, which `build` hands to a class that has a field or an `InitVar` of this name.
Known hints: bool, int, float (finite; whole numbers become floats), str, Literal, Fraction (as two whole numbers),
tuples (from lists), mappings, dataclasses (from mappings), and unions of them; values of any other hint stay unchecked.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vidtok.errors import ConfigError, VidTokError
from vidtok.text import near, shortened

_COUNTS = {2: "two", 3: "three", 4: "four"}
_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}

T = TypeVar("T")
Error = type[VidTokError]
Rule = Callable[[str, bool, str], None]
"""Called with a field's name, True if the rule holds, and the words for the expected value."""


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_AMOUNT = re.compile(r"\s*(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})\s*([kmgt]i?)?b?\s*", re.IGNORECASE)

_MOST_BYTES = 1 << 60
"""Largest amount accepted: more than any machine has, so that a larger one must be a slip."""


@dataclass(frozen=True)
class Within:
    """Bounds of a number: `least` and `most` belong to the range, `above` and `below` do not."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    expected: str = ""
    """Words for the range in place of those made from the bounds."""

    def words(self, value: Any, kind: object) -> str:
        """The range in words, for a message about `value`.

        For whole numbers they name only the bound that `value` breaks, or both if `value` is None.
        """
        if self.expected:
            return self.expected
        if kind is int and value is None and self.least > -math.inf and self.most < math.inf:
            return f"a whole number from {self.least} to {self.most}"
        if kind is int:
            beyond = _is_whole(value) and value > self.most
            least = "" if self.least == -math.inf else f" of at least {self.least}"
            return f"at most {self.most}" if beyond else f"a whole number{least}"
        ends = [f"less than {self.below}"] * (self.below < math.inf) + [str(self.most)] * (self.most < math.inf)
        if self.above > -math.inf:
            return f"a number above {self.above}" + "".join(f", up to {end}" for end in ends)
        return f"a number from {self.least} to {ends[0]}" if ends else f"a number of at least {self.least}"

    def holds(self, value: Any) -> bool:
        return bool(self.least <= value <= self.most and self.above < value < self.below)


@dataclass(frozen=True)
class Check:
    """A condition on a value of the right type, and the words for it."""

    expected: str
    condition: Callable[[Any], bool] = lambda value: True
    """By default any value will do: a check that only brings words for its type."""

    def words(self, value: Any, kind: object) -> str:
        return self.expected

    def holds(self, value: Any) -> bool:
        return self.condition(value)


class _How(NamedTuple):
    error: Error
    ignore_unknown: bool = False


class _UnfitError(Exception):
    """A value does not fit its hint; the argument says what was expected."""


def build(
    cls: type[T], values: object, place: str = "", *, error: Error = ConfigError, ignore_unknown: bool = False
) -> T:
    """An instance of the dataclass `cls` from plain `values`, a mapping found at the dotted path `place`.

    Raises `error`, which names the value at fault by its dotted path, for a missing key, a value that does not fit its
    field, and an unknown key (with the nearest known ones), unless `ignore_unknown`.
    """
    if not isinstance(values, Mapping):
        raise error(f"{place or cls.__name__} is {shown(values)}; expected a mapping")
    make: Any = cls
    hints, fields = _hints(make), dataclasses.fields(make)
    own = [f.name for f in fields if f.init and f.name != "place"]
    if not ignore_unknown:
        refuse_unknown(values, own, place, error)
    for f in fields:
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values:
            raise error(f"{join(place, f.name)} is missing; expected {_words(hints[f.name])}")
    given = {key: values[key] for key in own if key in values}
    if "place" in hints:  # the class checks itself
        return cast(T, make(**given, place=place))
    how = _How(error, ignore_unknown)
    return cast(T, make(**{key: _fitted(value, hints[key], join(place, key), how) for key, value in given.items()}))


def read(
    values: Mapping[str, Any], hints: Mapping[str, Any], place: str = "", error: Error = ConfigError
) -> dict[str, Any]:
    """`values`, each as the type that the hint of its key says. Raises `error` for an unknown key or an unfit value."""
    refuse_unknown(values, hints, place, error)
    return {key: fit(value, hints[key], join(place, key), error) for key, value in values.items()}


def check(config: Any, place: str = "", *, names: Mapping[str, str] | None = None, error: Error = ConfigError) -> Rule:
    """Check each field of the frozen dataclass `config` by its hint, and set it to the fitting value.

    A class calls this in its `__post_init__`. Returns a function for rules between fields: `rule(name, holds,
    expected)`. Errors call a field by its name at `place`, or by the whole path that `names` has for it.
    """
    paths = {f.name: join(place, f.name) for f in dataclasses.fields(config)} | dict(names or {})
    hints = _hints(config.__class__)
    given = {name: getattr(config, name) for name in paths}
    for name, path in paths.items():
        object.__setattr__(config, name, fit(given[name], hints[name], path, error))

    def rule(name: str, holds: bool, expected: str) -> None:
        value = getattr(config, name)  # shown as it was given, 4 and not 4.0
        require(holds, paths[name], given[name] if given[name] == value else value, expected, error)

    return rule


def fit(value: Any, hint: Any, place: str, error: Error = ConfigError) -> Any:
    """`value`, which stands at `place`, as the type `hint`. Raises `error` if it does not fit."""
    return _fitted(value, hint, place, _How(error))


def from_text(text: str, hint: Any) -> Any:
    """The number in `text`, a word of a command line, within the bounds of `hint`, an annotated int or float.

    Raises `ValueError` for anything else; its message is to follow the option's name, such as "is 0; expected a whole
    number from 1 to 16".
    """
    try:
        value = get_args(hint)[0](text)
    except ValueError:
        raise ValueError(f"is {shown(text)}; expected {_words(hint)}") from None
    try:
        return _fit(value, hint, "", _How(ConfigError))
    except _UnfitError:
        raise ValueError(f"is {shortened(text.strip())}; expected {_words(hint)}") from None


def require(holds: bool, name: str, value: object, expected: str, error: Error = ConfigError) -> None:
    """Raise `error` unless `holds`: "NAME is VALUE; expected EXPECTED"."""
    if not holds:
        raise error(f"{name} is {shown(value)}; expected {expected}")


def refuse_unknown(
    values: Mapping[str, Any], known: Iterable[str], place: str = "", error: Error = ConfigError
) -> None:
    """Raise `error` for a key of `values`, a mapping at `place`, that is not in `known`."""
    known = tuple(known)
    for key in values:
        if key not in known:
            hint = near(key, known) or (f"; expected some of {', '.join(known)}" if known else "; expected none")
            raise error(f"{join(place, shortened(str(key)))} is not known{hint}")


def mapping_at(parent: Mapping[str, Any], key: str, place: str = "", *, optional: bool = False) -> Mapping[str, Any]:
    """The mapping `parent[key]`, where `parent` stands at `place`; empty if it is `optional` and absent or null.

    Raises `ConfigError` for anything else.
    """
    value: Any = parent.get(key)
    if value is None and optional:
        return {}
    require(isinstance(value, Mapping), join(place, key), value, "a mapping")
    found: Mapping[str, Any] = value
    return found


def join(place: str, key: str) -> str:
    """The dotted path of `key` at `place`."""
    return f"{place}.{key}" if place else key


def plain(value: Any) -> Any:
    """`value` as mappings, lists and plain values, for JSON and YAML; `build` makes an equal one of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def shown(value: object) -> str:
    """`value` in a message: as Python writes it, shortened."""
    try:
        return shortened(repr(list(value) if isinstance(value, tuple) else value))
    except (ValueError, RecursionError):  # Python writes no number of more than 4,300 digits.
        return "a number of thousands of digits" if _is_whole(value) else "too long to show"


def memory_bytes(amount: int | str) -> int:
    """Number of bytes in `amount`, such as 6_000_000_000, "6GB" (10^9 each), "6GiB" (2^30 each) or "500M".

    Raises `VidTokError` if it is no amount of memory.
    """
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 < amount <= _MOST_BYTES:
        return amount
    match = _AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    count = round(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if not 0 < count <= _MOST_BYTES:
        raise VidTokError(f"max_memory is {shown(amount)}; expected an amount of memory such as 6GB, 500MB or 6GiB")
    return count


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fitted(value: Any, hint: Any, place: str, how: _How) -> Any:
    try:
        return _fit(value, hint, place, how)
    except _UnfitError as unfit:
        raise how.error(f"{place} is {shown(value)}; expected {unfit}") from None


def _fit(value: Any, hint: Any, place: str, how: _How) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(value, arguments[0], arguments[1:], place, how)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, place, how)
    if origin is tuple:
        return _tuple(value, hint, place, how)
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            with _in_words(hint):
                key, item = arguments
                return {_fit(k, key, place, how): _fit(v, item, place, how) for k, v in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return build(hint, value, place, error=how.error, ignore_unknown=how.ignore_unknown)
        if isinstance(value, hint):
            return value
    elif hint not in _SIMPLE:
        return value
    else:
        fitting = _SIMPLE[hint][0](value)
        if fitting is not None:
            return fitting
    raise _UnfitError(_words(hint))


def _annotated(value: Any, hint: Any, notes: tuple[Any, ...], place: str, how: _How) -> Any:
    conditions = [note for note in notes if isinstance(note, Within | Check)]
    try:
        fitting = _fit(value, hint, place, how)
    except _UnfitError as unfit:
        raise _UnfitError(conditions[0].words(value, hint) if conditions else str(unfit)) from None
    for condition in conditions:
        if not condition.holds(fitting):
            raise _UnfitError(condition.words(value, hint))
    return fitting


def _one_of(value: Any, kinds: tuple[Any, ...], place: str, how: _How) -> Any:
    if value is None and type(None) in kinds:
        return None
    words = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _fit(value, kind, place, how)
            except _UnfitError as unfit:
                words.append(str(unfit))
    raise _UnfitError(" or ".join(words) + ", or null" * (type(None) in kinds))


def _tuple(value: Any, hint: Any, place: str, how: _How) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if isinstance(value, tuple | list) and kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if not isinstance(value, tuple | list) or len(value) != len(kinds):
        raise _UnfitError(_words(hint))
    with _in_words(hint):
        return tuple(_fit(item, kind, place, how) for item, kind in zip(value, kinds, strict=True))


@contextmanager
def _in_words(hint: Any) -> Iterator[None]:
    """Say that `hint` was expected where part of it does not fit."""
    try:
        yield
    except _UnfitError:
        raise _UnfitError(_words(hint)) from None


def _words(hint: Any) -> str:
    """The values of the type `hint` in words, for a message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        conditions = [note for note in arguments[1:] if isinstance(note, Within | Check)]
        return conditions[0].words(None, arguments[0]) if conditions else _words(arguments[0])
    if origin in (Union, types.UnionType):
        words = [_words(kind) for kind in arguments if kind is not type(None)]
        return " or ".join(words) + ", or null" * (type(None) in arguments)
    if origin is Literal:
        *others, last = map(str, arguments)
        return f"one of {', '.join((*others, last))}" if len(others) > 2 else f"{', '.join(others)} or {last}"
    if origin is tuple:
        several = "a list of" if arguments[-1] is Ellipsis else _COUNTS[len(arguments)]
        kind = arguments[0]
        if get_origin(kind) is Annotated and get_args(kind)[0] in _PLURALS:
            return f"{several} {_PLURALS[get_args(kind)[0]]}, each {_words(kind)}"
        return f"{several} {_PLURALS.get(kind, 'values')}"
    if origin is not None and arguments and arguments[-1] in _PLURALS:
        return f"a mapping of names to {_PLURALS[arguments[-1]]}"
    return _SIMPLE[hint][1] if hint in _SIMPLE else "a mapping"


def _float(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, float) or _is_whole(value) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _fraction(value: Any) -> Fraction | None:
    if isinstance(value, Fraction):
        return value
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_whole, value)) and value[1] > 0
    return Fraction(*value) if pair else None


_SIMPLE: dict[Any, tuple[Callable[[Any], Any], str]] = {
    bool: (lambda value: value if isinstance(value, bool) else None, "true or false"),
    int: (lambda value: value if _is_whole(value) else None, "a whole number"),
    float: (_float, "a number"),
    str: (lambda value: value if isinstance(value, str) else None, "text"),
    Fraction: (_fraction, "[numerator, denominator]"),
}
