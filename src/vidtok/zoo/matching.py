"""The named models that a checkpoint fits, by a few names and shapes of weights that tell models apart."""

from __future__ import annotations

from functools import cache

from vidtok.config import registry
from vidtok.config.families import family_of
from vidtok.config.read import read_config
from vidtok.config.shapes import Shapes
from vidtok.models.config import ModelConfig


def fitting_models(shapes: Shapes) -> list[str]:
    """Names of the models whose checkpoints have weights of these names and shapes."""
    fitting = []
    for name, config in _configs().items():
        fits = family_of(config).fits
        if fits is not None and fits(config, shapes):
            fitting.append(name)
    return fitting


@cache
def _configs() -> dict[str, ModelConfig]:
    return {name: read_config(name).model for name in registry.models()}
