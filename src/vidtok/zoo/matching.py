"""Which models of the families a checkpoint is of, judged by a few names and shapes that tell them apart."""

from __future__ import annotations

from functools import cache

from vidtok.config import registry
from vidtok.config.families import family_of
from vidtok.config.read import read_config
from vidtok.config.signatures import Shapes
from vidtok.models.vidtok.config import ModelConfig


def fitting_models(shapes: Shapes) -> list[str]:
    """Names of the models whose checkpoints have these names and shapes."""
    return [name for name, config in _configs().items() if family_of(config).fits(config, shapes)]


@cache
def _configs() -> dict[str, ModelConfig]:
    return {name: read_config(name).model for name in registry.models()}
