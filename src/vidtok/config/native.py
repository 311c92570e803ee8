"""The native schema: any family's configuration in YAML, by the values of its `to_dict`.

::

    model:
      base_learning_rate: 1.0e-4
      target: FAMILY                # the name of a family
      params:
        config: {z_channels: 4, …}  # its configuration
        loss_config: …              # all else as in the published schema
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vidtok.config.dialect import (
    ENGINE,
    ENGINE_TRAINING,
    check_roles,
    mapping_at,
)
from vidtok.errors import ConfigError
from vidtok.fields import refuse_unknown, shown
from vidtok.models.config import ModelConfig

_PARTS = ("config", "loss_config", "optimizer_config")
_FROZEN = ("fix_encoder", "fix_decoder")


def native_config(raw: Mapping[str, Any], from_dict: Callable[[Mapping[str, Any]], ModelConfig]) -> ModelConfig:
    """The configuration in `model.params.config` of the sections `raw`; `from_dict` is the family's reader.

    Raises `ConfigError` for unknown keys and for values that the family refuses.
    """
    params = raw["model"]["params"]
    refuse_unknown(params, (*_PARTS, *_FROZEN, *ENGINE_TRAINING), ENGINE)
    check_roles(raw, params)
    for key in _FROZEN:
        if not isinstance(params.get(key, False), bool):
            raise ConfigError(f"{ENGINE}.{key} is {shown(params[key])}; expected true or false")
    try:
        return from_dict(mapping_at(params, "config", ENGINE))
    except ConfigError as error:
        raise ConfigError(f"{ENGINE}.config: {error}") from error
