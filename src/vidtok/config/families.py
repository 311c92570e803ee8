"""The families of models: for each, how its configurations are read and which class makes its models.

A third family is one more entry here, beside a configuration and a model that meet `vidtok.models.base`, targets in
`dialect.py`, and names in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidtok.config.signatures import Shapes, fits_autoencoder, fits_vidtwin
from vidtok.config.vidtok import autoencoder_config
from vidtok.config.vidtwin import vidtwin_config
from vidtok.models.vidtok.config import AutoencoderConfig, ModelConfig
from vidtok.models.vidtwin.config import VidTwinConfig

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer


@dataclass(frozen=True)
class Family:
    """What the package needs to know of a family, beside its models' own answers."""

    name: str
    """Its name, also the `model_type` of saved models."""
    from_dict: Callable[[Mapping[str, Any]], ModelConfig]
    """A configuration from what its `to_dict` gave; unknown keys and values out of range raise `ConfigError`."""
    from_sections: Callable[[Mapping[str, Any]], ModelConfig]
    """A configuration from sections of the published schema, plain values with a model's target of this family."""
    fits: Callable[[Any, Shapes], bool]
    """Whether weights of these names and shapes are of a model of a configuration of this family."""
    tokenizer: Callable[[], type[Tokenizer]]
    """The class of its models, imported when it is needed."""


def _vidtok() -> type[Tokenizer]:
    from vidtok.tokenizer import VidTok

    return VidTok


def _vidtwin() -> type[Tokenizer]:
    from vidtok.vidtwin import VidTwin

    return VidTwin


FAMILIES = {
    family.name: family
    for family in (
        Family(AutoencoderConfig.family, AutoencoderConfig.from_dict, autoencoder_config, fits_autoencoder, _vidtok),
        Family(VidTwinConfig.family, VidTwinConfig.from_dict, vidtwin_config, fits_vidtwin, _vidtwin),
    )
}


def family_of(config: ModelConfig) -> Family:
    """The family that `config` is of."""
    return FAMILIES[config.family]
