"""Reading YAML in layers: a file over its `base:` files, overrides over both. Files are data: nothing in them runs.

Interpolations `${path.to.value}` are kept until `resolve`; resolvers such as `${oc.env:NAME}` are refused, so that a
file from a stranger cannot read the environment. Nor can it read other files: a base is a model's name or lies below
the folder of the file that names it, unless `allowing_bases` permits another place, and errors quote no text of a file
that is not YAML. The size of a whole configuration is bounded (`budget.py`).
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidtok.config import registry
from vidtok.config.budget import (
    INTERPOLATION,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Budget,
    check_depth,
    check_filled,
    cost_of_merging,
)
from vidtok.errors import ConfigError
from vidtok.fields import shown
from vidtok.text import near, shortened

_LONG = 256
_SUFFIXES = (".yaml", ".yml")
_FAULTS = {
    "duplicate key": "found a duplicate key",
    "node expansion": "it has more values than any configuration",
    "alias": "found an alias that leads nowhere, back, or to too much",
    "tag": "found a tag that configurations do not have",
}
"""Words for faults of YAML whose own messages quote the file, by a part of these messages."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# Errors of YAML and OmegaConf for text and values that they cannot take.
_UNREADABLE = (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError, TypeError, OSError)


_allowed: ContextVar[tuple[Path, ...]] = ContextVar("allowed bases", default=())


@contextmanager
def allowing_bases(*paths: str | PathLike[str]) -> Iterator[None]:
    """Let `base:` name the YAML files among `paths`, and files below the folders among them, inside the block."""
    token = _allowed.set((*_allowed.get(), *(Path(path).expanduser().resolve() for path in paths)))
    try:
        yield
    finally:
        _allowed.reset(token)


@contextmanager
def without_warnings(logger: str = "vidtok.config") -> Iterator[None]:
    """Keep back the warnings of `logger` about a configuration, which come when it is read in earnest."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def allowed_bases() -> tuple[Path, ...]:
    """The files and folders that `allowing_bases` permits here."""
    return _allowed.get()


def read_layers(path: Path, budget: Budget | None = None) -> DictConfig:
    """The file at `path` merged over the files that its `base:` names, later ones over earlier ones, without `base`.

    A base is a path relative to the file, below its folder, or a model's name. Raises `ConfigError` if a file cannot be
    read, is not a mapping, is its own base or a base that is not allowed, or if the whole exceeds the budget.
    """
    return _read_layers(path, (), Budget() if budget is None else budget)


def merge(
    below: DictConfig, above: Mapping[str, Any] | DictConfig, source: str, budget: Budget | None = None
) -> DictConfig:
    """`above` over `below`: mappings are merged, anything else is replaced, also by `???`, which asks for a value."""
    try:
        lower, upper = _plain(below), _plain(above)
        (budget or Budget()).take_merged(cost_of_merging(lower, upper, source), source)
        merged = cast(DictConfig, OmegaConf.merge(below, above))
        # For `???`, OmegaConf itself keeps the value below.
        for key in _missing(upper):
            OmegaConf.update(merged, key, MISSING)
        return merged
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: cannot be merged: {_one_line(error)}") from error


def _plain(values: Any) -> Any:
    """`values` as mappings, lists and plain values, interpolations as they are written."""
    return OmegaConf.to_container(values) if isinstance(values, DictConfig) else values


def _missing(values: Any, place: str = "") -> list[str]:
    """The dotted keys of all `???` in mappings."""
    if not isinstance(values, Mapping):
        return [place] if values == MISSING else []
    return [found for key, item in values.items() for found in _missing(item, f"{place}.{key}" if place else str(key))]


def from_mapping(values: Mapping[str, Any] | DictConfig, source: str, budget: Budget | None = None) -> DictConfig:
    """`values` as a config, over the bases that its `base` names (paths are relative to the working directory)."""
    if not isinstance(values, DictConfig):
        try:
            values = OmegaConf.create(dict(values))
        except _UNREADABLE as error:
            raise ConfigError(f"{source}: {_one_line(error)}") from error
    return _over_bases(values, Path(), source, (), Budget() if budget is None else budget)


def from_overrides(overrides: Sequence[str]) -> DictConfig:
    """Dotted overrides, `model.base_learning_rate=1e-4` each (`--` in front is allowed), as a config."""
    result = OmegaConf.create()
    for override in overrides:
        key, separator, value = override.removeprefix("--").partition("=")
        if not separator or not key or any(not part for part in key.split(".")):
            raise ConfigError(f"override {shown(override)} is not of the form section.key=value")
        if key.count(".") >= MAX_DEPTH:
            raise ConfigError(f"override {shown(override)} has a key of more than {MAX_DEPTH} parts; expected fewer")
        try:
            _refuse_resolvers(value, "override " + shown(override))
            result = cast(DictConfig, OmegaConf.merge(result, OmegaConf.from_dotlist([f"{key}={value}"])))
        except _UNREADABLE as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"override {shown(override)}: {_one_line(error)}") from error
    return result


def resolve(config: DictConfig, source: str) -> dict[str, Any]:
    """`config` as plain values, interpolations filled in. Values that still must be given stay `"???"`.

    Raises `ConfigError` for interpolations that lead nowhere, or come to too much.
    """
    try:
        check_filled(_plain(config), source)
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: an interpolation leads nowhere: {_one_line(error)}") from error


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `read_layers` reads back."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def _read_layers(path: Path, above: tuple[Path, ...], budget: Budget) -> DictConfig:
    whole = path.resolve()
    if whole in above:
        chain = " -> ".join(p.name for p in (*above[above.index(whole) :], whole))
        raise ConfigError(f"{path}: base leads back to the file itself: {chain}")
    return _over_bases(_read_file(path, budget), path.parent, str(path), (*above, whole), budget)


def _over_bases(config: DictConfig, folder: Path, source: str, above: tuple[Path, ...], budget: Budget) -> DictConfig:
    try:
        given = OmegaConf.to_container(config)
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from error
    assert isinstance(given, dict)
    check_depth(given, source)
    _refuse_resolvers(given, source)
    bases = given.get("base") or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{source}: base is {shown(bases)}; expected a file, a model's name or a list of these")
    merged = OmegaConf.create()
    for base in bases:
        lower = _read_layers(_base_path(base, folder, source), above, budget)
        merged = merge(merged, lower, source, budget)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "base"])
    return merge(merged, own, source, budget)


def _base_path(base: str, folder: Path, source: str) -> Path:
    path = folder / base
    known = registry.models()
    if _is_file(path):
        _check_base(path, base, folder, source)
        return path
    if base in known:
        return known[base].config
    place = f" ({path})" if len(base) < _LONG else ""
    raise ConfigError(
        f"{source}: base {shown(base)} is neither a file{place} nor the name of a model{near(base, known)}; "
        "a base is a path relative to the file that names it, or a name that `vidtok models` lists"
    )


def _check_base(path: Path, base: str, folder: Path, source: str) -> None:
    """Raise `ConfigError` for a base that is no YAML file, or lies outside the folders that are allowed for it."""
    own = (registry.package_folder() / "configs").resolve()
    roots = [own, folder.resolve(), *_allowed.get()]
    whole = path.resolve()
    if whole.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{source}: base {shown(base)} is no YAML file; expected a name that ends in .yaml or .yml")
    if not any(whole.is_relative_to(root) for root in roots):
        raise ConfigError(
            f"{source}: base {shown(base)} does not lie below the folder of the file that names it; put it there, or "
            f"allow it with --allow-base {whole.parent} (vidtok --allow-base PATH COMMAND)"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _read_file(path: Path, budget: Budget) -> DictConfig:
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; expected a YAML file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{path} holds {size} bytes; a configuration is a short YAML file")
        budget.take_file(size, str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = registry.models()
        hint = f"; this package has that model: give its name, {path.stem}" if path.stem in known else ""
        raise ConfigError(f"{path} does not exist; expected a YAML file{hint}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; expected a YAML file (is it a checkpoint?)") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        config = OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=2 * MAX_VALUES)
    except _UNREADABLE as error:
        raise ConfigError(f"{path} is not valid YAML: {_yaml_fault(error)}") from error
    if not isinstance(config, DictConfig) or not text.strip():
        raise ConfigError(f"{path} does not hold a mapping; expected sections such as `model:`")
    return config


def _yaml_fault(error: BaseException) -> str:
    """The fault of a file and its place, without text of the file, which may not be a configuration at all."""
    text = str(error)
    if isinstance(error, RecursionError):
        return "mappings and lists in it are too deep"
    if not isinstance(error, yaml.MarkedYAMLError):
        if "digits" in text:
            return "a number in it has thousands of digits"
        return f"{'a character' if isinstance(error, yaml.YAMLError) else 'a value'} in it is none of a configuration"
    problem = next((words for known, words in _FAULTS.items() if known in text), None)
    if problem is None:
        problem = _QUOTED.sub("...", " ".join((error.problem or error.context or "it cannot be read").split()))
    mark = error.problem_mark or error.context_mark
    return problem if mark is None else f"{problem}, line {mark.line + 1}, column {mark.column + 1}"


def _refuse_resolvers(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_resolvers(item, f"{place}: {key}" if ": " not in place else f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            _refuse_resolvers(item, place)
    elif isinstance(value, str) and "${" in INTERPOLATION.sub("", value):
        raise ConfigError(f"{place} is {shown(value)}; of interpolations only ${{path.to.value}} is read")


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        # OmegaConf's further lines repeat the key and name its own types.
        text = f"{error.full_key}: {text.splitlines()[0]}"
    if isinstance(error, ValueError) and "digits" in text:
        return "a number in it has thousands of digits"
    return shortened(" ".join(text.split()), _LONG) or type(error).__name__
