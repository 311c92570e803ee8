"""The table of families: for each, its model, and the readers of its configurations.

A further family is a configuration and a model that meet `vidtok.models.base`, and one entry here (`register_family`).
With no schema of its own it is configured by `config/native.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidtok.config.dialect import NATIVE, TARGETS, Target
from vidtok.config.native import native_config
from vidtok.config.shapes import Shapes
from vidtok.config.vidtok import autoencoder_config, fits_autoencoder
from vidtok.config.vidtwin import fits_vidtwin, vidtwin_config
from vidtok.models.config import ModelConfig
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtwin.config import VidTwinConfig

if TYPE_CHECKING:
    from vidtok.models.base import VideoModel


@dataclass(frozen=True)
class Family:
    """One family: all that the package needs to know of it besides what its models answer themselves."""

    name: str
    """Its name: `ModelConfig.family` of its configurations, the `model_type` of saved models, a `target` in YAML."""
    from_dict: Callable[[Mapping[str, Any]], ModelConfig]
    """A configuration from the values of its `to_dict`; unknown keys and values out of range raise `ConfigError`."""
    model: Callable[[], type[VideoModel]]
    """The class of its models, imported when it is needed."""
    from_sections: Callable[[Mapping[str, Any]], ModelConfig] | None = None
    """A configuration from sections of the published schema, under a target of this family; None: it has none."""
    fits: Callable[[Any, Shapes], bool] | None = None
    """True if weights of these names and shapes fit a model of a configuration; None: none of its models has a name."""

    def read(self, raw: Mapping[str, Any], kind: str) -> ModelConfig:
        """The configuration that the sections `raw` describe, under a target of `kind`."""
        if kind == NATIVE or self.from_sections is None:
            return native_config(raw, self.from_dict)
        return self.from_sections(raw)


FAMILIES: dict[str, Family] = {}
"""Families by name; `register_family` adds one."""


def register_family(family: Family) -> None:
    """Enter `family` into the table, and its name into the table of targets."""
    FAMILIES[family.name] = family
    TARGETS[family.name] = Target("model", family=family.name, kind=NATIVE)


def family_of(config: ModelConfig) -> Family:
    """The family of `config`."""
    return FAMILIES[config.family]


def _vidtok() -> type[VideoModel]:
    from vidtok.models.vidtok.autoencoder import VideoAutoencoder

    return VideoAutoencoder


def _vidtwin() -> type[VideoModel]:
    from vidtok.models.vidtwin.autoencoder import VidTwinAutoencoder

    return VidTwinAutoencoder


register_family(
    Family(
        AutoencoderConfig.family, AutoencoderConfig.from_dict, _vidtok,
        from_sections=autoencoder_config, fits=fits_autoencoder,
    )
)  # fmt: skip
register_family(
    Family(
        VidTwinConfig.family, VidTwinConfig.from_dict, _vidtwin,
        from_sections=vidtwin_config, fits=fits_vidtwin,
    )
)  # fmt: skip
