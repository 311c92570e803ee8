"""Differences between the configuration of a run and the one of a command that would resume it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidtok.config.read import read_configs
from vidtok.errors import ConfigError
from vidtok.fields import join, shown
from vidtok.zoo.runs import run_configs

_NAMED = 3
_TRAINER = "lightning.trainer"
_DECIDING = ("accumulate_grad_batches", "gradient_clip_val", "precision", "limit_train_batches", "overfit_batches")
_OF_THE_RUN = ("model", "data", "lightning.seed", "lightning.scale_lr", *(f"{_TRAINER}.{key}" for key in _DECIDING))
"""Sections and values that the weights depend on; a run's length, hardware and reports may change."""
_BESIDE = ("data.params.num_workers", "data.params.validation", "data.params.test")
_LENGTHS = tuple(f"{_TRAINER}.{key}" for key in ("max_steps", "max_epochs"))


def check_same(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if `raw` differs from the run in `folder` in a value that the weights depend on."""
    found = differences(read_configs(run_configs(folder)).raw, raw)
    if found:
        more = len(found) - _NAMED
        listed = ", ".join(found[:_NAMED]) + (f", and {more} more" if more > 0 else "")
        raise ConfigError(
            f"the run of this name in {folder} was begun with another configuration: {listed}; give --resume {folder} "
            "to go on with it all the same, or another --name"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences in values that the weights depend on, each as "KEY was A, is B"."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key} was {_said(old.get(key))}, is {_said(new.get(key))}"
        for key in keys
        if _decides(key) and old.get(key) != new.get(key) and not _is_length(old, new, key)
    ]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All values in nested mappings, each with its dotted path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, join(place, str(key)))
    else:
        yield place, value


def _decides(key: str) -> bool:
    def within(places: tuple[str, ...]) -> bool:
        return any(key == place or key.startswith(f"{place}.") for place in places)

    return within(_OF_THE_RUN) and not within(_BESIDE)


def _is_length(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> bool:
    """True if the value at `key` is the run's length in both, such as the end of a decay: it may grow with the run."""
    values = old.get(key), new.get(key)
    return None not in values and any(values == (old.get(length), new.get(length)) for length in _LENGTHS)


def _said(value: object) -> str:
    return "not set" if value is None else shown(value)
