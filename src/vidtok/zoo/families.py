"""The families of models: for each, how its configurations are read and which classes make its models.

A third family is one more entry here, beside a configuration and a model that meet `vidtok.models.contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidtok.models.config import AutoencoderConfig
from vidtok.models.contract import ModelConfig

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer


@dataclass(frozen=True)
class Family:
    """What the package needs to know of a family, beside its models' own answers."""

    name: str
    """Its name, also the `model_type` of saved models."""
    from_dict: Callable[[Mapping[str, Any]], ModelConfig]
    """A configuration from what its `to_dict` gave; unknown keys and values out of range raise `ConfigError`."""
    tokenizer: Callable[[], type[Tokenizer]]
    """The class of its models, imported when it is needed."""


def _vidtok() -> type[Tokenizer]:
    from vidtok.tokenizer import VidTok

    return VidTok


FAMILIES = {family.name: family for family in (Family(AutoencoderConfig.family, AutoencoderConfig.from_dict, _vidtok),)}


def family_of(config: ModelConfig) -> Family:
    """The family that `config` is of."""
    return FAMILIES[config.family]
