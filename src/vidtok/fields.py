"""What configurations share: building frozen dataclasses from plain values, and errors that name the value at fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vidtok.errors import ConfigError


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """`ConfigError` unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} is {plain(value)}; expected {expected}")


def plain(value: Any) -> Any:
    """`value` with lists for tuples, as JSON and YAML hold it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """The dataclass `cls` of `values`; unknown, missing and mistyped ones raise `ConfigError`."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise ConfigError(f"unknown key {', '.join(map(repr, unknown))}; expected some of {', '.join(fields)}")
    missing = [f.name for f in fields.values() if _required(f) and f.name not in values]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing: a {cls.__name__} cannot do without")
    try:
        return cls(**{key: _checked(fields[key], value) for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _checked(f: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the type that the field declares, or an error that names the field."""
    kind = str(f.type)
    if kind.startswith("tuple[int"):
        if value is None and "None" in kind:
            return None
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__") or not all(type(i) is int for i in value):
            raise ConfigError(f"{f.name} is {value!r}; expected a list of whole numbers")
        return tuple(value)
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
    expected = kinds.get(kind)
    if expected and (not isinstance(value, expected) or (kind != "bool" and isinstance(value, bool))):
        raise ConfigError(f"{f.name} is {value!r}; expected {'a number' if kind == 'float' else f'{kind}'}")
    return value
