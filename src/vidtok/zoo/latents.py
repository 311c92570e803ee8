"""Statistics of a model's latents in the `config.json` of its folder: `latents_mean`, `latents_std`, and the rest.

The two names are the ones that diffusers' pipelines read of a video autoencoder. `latents_statistics` holds everything
else that `vidtok stats` found, for people.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidtok.errors import CheckpointError
from vidtok.fields import shown
from vidtok.files import aside

MEAN, STD, STATISTICS = "latents_mean", "latents_std", "latents_statistics"
KEYS = (MEAN, STD, STATISTICS)
"""The keys in `config.json`, all of them optional."""

_DIGITS = 7
_NUMBERS = re.compile(r"\[\s+([-+.\deE,\s]+?)\s+\]")


@dataclass(frozen=True)
class LatentScale:
    """Mean and standard deviation of the latents of a model, one value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Above 0."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Plain values on the same latents: positions, range, covariance, the posterior, use of the codebook, data."""

    def to_dict(self) -> dict[str, Any]:
        """The keys for `config.json`, with floats of seven digits."""
        rounded: dict[str, Any] = _rounded(
            {MEAN: list(self.mean), STD: list(self.std), STATISTICS: dict(self.statistics)}
        )
        return rounded


def scale_of(values: Mapping[str, Any], channels: int, path: object) -> LatentScale | None:
    """The scale in the `values` of the file `path`, for a latent of `channels`; None if there is none.

    Raises `CheckpointError` if it is malformed.
    """
    mean, std = values.get(MEAN), values.get(STD)
    if mean is None and std is None:
        return None
    for key, found in ((MEAN, mean), (STD, std)):
        fits = isinstance(found, list) and len(found) == channels and all(map(_is_finite, found))
        if not fits or (key == STD and min(found or [0]) <= 0):
            above = ", all above 0" if key == STD else ""
            raise CheckpointError(
                f"{path} has {key} {shown(found)}; expected {channels} numbers, one a channel{above}: "
                "`vidtok stats` writes them"
            )
    statistics = values.get(STATISTICS)
    assert isinstance(mean, list)
    assert isinstance(std, list)
    return LatentScale(
        tuple(map(float, mean)), tuple(map(float, std)), statistics if isinstance(statistics, dict) else {}
    )


def write_scale(path: Path, values: Mapping[str, Any], scale: LatentScale | None) -> None:
    """Write `values`, the content of a folder's `config.json`, to `path` with `scale`, or without any.

    Raises `CheckpointError` if the file cannot be written; the old one stays then.
    """
    kept = {key: value for key, value in values.items() if key not in KEYS}
    with aside(path, CheckpointError, sync=True, problem=f"the statistics cannot be written to {path}") as new:
        new.write_text(text_of(kept | ({} if scale is None else scale.to_dict())), encoding="utf-8")


def text_of(values: Mapping[str, Any]) -> str:
    """JSON of a folder's `config.json`, with the numbers of the statistics in one line each."""
    own = {key: value for key, value in values.items() if key not in KEYS}
    text = json.dumps(own, indent=2)
    added = {key: values[key] for key in KEYS if key in values}
    if added:
        lines = json.dumps(added, indent=2)
        lines = _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", lines)
        text = text.removesuffix("\n}") + "," + lines.removeprefix("{")
    return text + "\n"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
