"""Reading YAML in layers: a file over its `base:` files, overrides over both. Files are data: nothing in them runs.

Interpolations `${path.to.value}` are kept until `resolve`; resolvers such as `${oc.env:NAME}` are refused, so that a
file from a stranger cannot read the environment.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidtok.config import registry
from vidtok.errors import ConfigError
from vidtok.text import near

_PLAIN_INTERPOLATION = re.compile(r"\$\{[\w.\[\]]+\}")
_MAX_BYTES = 1 << 20
# Errors of YAML and OmegaConf for text and values that they cannot take.
_UNREADABLE = (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError, TypeError, OSError)


def read_layers(path: Path) -> DictConfig:
    """The file at `path` merged over the files that its `base:` names, later ones over earlier ones, without `base`.

    A base is a path relative to the file, or a model's name. Raises `ConfigError` if a file cannot be
    read, is not a mapping, or is its own base.
    """
    return _read_layers(path, ())


def merge(below: DictConfig, above: Mapping[str, Any] | DictConfig, source: str) -> DictConfig:
    """`above` over `below`: mappings are merged, anything else is replaced, also by `???`, which asks for a value."""
    try:
        merged = cast(DictConfig, OmegaConf.merge(below, above))
        # For `???`, OmegaConf itself keeps the value below.
        for key in _missing(OmegaConf.to_container(above) if isinstance(above, DictConfig) else above):
            OmegaConf.update(merged, key, MISSING)
        return merged
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: cannot be merged: {_one_line(error)}") from error


def _missing(values: Any, place: str = "") -> list[str]:
    """The dotted keys of all `???` in mappings."""
    if not isinstance(values, Mapping):
        return [place] if values == MISSING else []
    return [found for key, item in values.items() for found in _missing(item, f"{place}.{key}" if place else str(key))]


def from_mapping(values: Mapping[str, Any] | DictConfig, source: str) -> DictConfig:
    """`values` as a config, over the bases that its `base` names (paths are relative to the working directory)."""
    if not isinstance(values, DictConfig):
        try:
            values = OmegaConf.create(dict(values))
        except _UNREADABLE as error:
            raise ConfigError(f"{source}: {_one_line(error)}") from error
    return _over_bases(values, Path(), source, ())


def from_overrides(overrides: Sequence[str]) -> DictConfig:
    """Dotted overrides, `model.base_learning_rate=1e-4` each (`--` in front is allowed), as a config."""
    result = OmegaConf.create()
    for override in overrides:
        key, separator, value = override.removeprefix("--").partition("=")
        if not separator or not key or any(not part for part in key.split(".")):
            raise ConfigError(f"override {override!r} is not of the form section.key=value")
        try:
            _refuse_resolvers(value, "override " + repr(override))
            result = cast(DictConfig, OmegaConf.merge(result, OmegaConf.from_dotlist([f"{key}={value}"])))
        except _UNREADABLE as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"override {override!r}: {_one_line(error)}") from error
    return result


def resolve(config: DictConfig, source: str) -> dict[str, Any]:
    """`config` as plain values, interpolations filled in. Values that still must be given stay `"???"`."""
    try:
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: an interpolation leads nowhere: {_one_line(error)}") from error


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `read_layers` reads back."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def _read_layers(path: Path, above: tuple[Path, ...]) -> DictConfig:
    whole = path.resolve()
    if whole in above:
        chain = " -> ".join(p.name for p in (*above[above.index(whole) :], whole))
        raise ConfigError(f"{path}: base leads back to the file itself: {chain}")
    return _over_bases(_read_file(path), path.parent, str(path), (*above, whole))


def _over_bases(config: DictConfig, folder: Path, source: str, above: tuple[Path, ...]) -> DictConfig:
    given = OmegaConf.to_container(config)
    assert isinstance(given, dict)
    _refuse_resolvers(given, source)
    bases = given.get("base") or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{source}: base is {bases!r}; expected a file, a model's name or a list of these")
    merged = OmegaConf.create()
    for base in bases:
        merged = merge(merged, _read_layers(_base_path(base, folder, source), above), source)
    return merge(merged, OmegaConf.masked_copy(config, [str(key) for key in config if key != "base"]), source)


def _base_path(base: str, folder: Path, source: str) -> Path:
    path = folder / base
    if path.is_file():
        return path
    known = registry.models()
    if base in known:
        return known[base].config
    raise ConfigError(
        f"{source}: base {base!r} is neither a file ({path}) nor the name of a model{near(base, known)}; "
        "a base is a path relative to the file that names it, or a name that `vidtok models` lists"
    )


def _read_file(path: Path) -> DictConfig:
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; expected a YAML file")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} holds {path.stat().st_size} bytes; a configuration is a short YAML file")
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
        config = OmegaConf.load(io.StringIO(text))
    except _UNREADABLE as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(config, DictConfig) or not text.strip():
        raise ConfigError(f"{path} does not hold a mapping; expected sections such as `model:`")
    return config


def _refuse_resolvers(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_resolvers(item, f"{place}: {key}" if ": " not in place else f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            _refuse_resolvers(item, place)
    elif isinstance(value, str) and "${" in _PLAIN_INTERPOLATION.sub("", value):
        raise ConfigError(f"{place} is {value!r}; of interpolations only ${{path.to.value}} is read")


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        # OmegaConf's further lines repeat the key and name its own types.
        text = f"{error.full_key}: {text.splitlines()[0]}"
    return " ".join(text.split()) or type(error).__name__
