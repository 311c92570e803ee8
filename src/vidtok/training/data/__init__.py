"""Training data: clips of real videos, or procedural ones, in an order that a resumed run continues.

`docs/training-data.md` describes the `data` section. Lightning is imported by `build_data` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from vidtok.errors import DataError
from vidtok.fields import Within, fit
from vidtok.training.data.config import DataConfig, SyntheticClipsConfig, VideosConfig

if TYPE_CHECKING:
    from vidtok.training.data.datamodule import DataModule

__all__ = ["DataConfig", "DataError", "SyntheticClipsConfig", "VideosConfig", "build_data"]


def build_data(section: Mapping[str, Any], *, seed: int) -> DataModule:
    """The Lightning data module for the `data` section of a configuration.

    Args:
        section: plain values, as `read_config(...).raw["data"]` holds them.
        seed: seed of the order of videos and the starts of clips; at least 0.

    Raises:
        ConfigError: the section or the seed cannot be used.
    """
    fit(seed, Annotated[int, Within(0)], "the seed")
    config = DataConfig.from_section(section)
    from vidtok.training.data.datamodule import DataModule

    return DataModule(config, seed=seed)
