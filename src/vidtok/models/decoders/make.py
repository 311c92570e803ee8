"""Decoders of their own, made from their configurations."""

from __future__ import annotations

from typing import Any

from vidtok.models.config import ModelConfig
from vidtok.models.decoders.base import OwnDecoder
from vidtok.models.decoders.config import DecoderConfig
from vidtok.models.decoders.fast import FastDecoder
from vidtok.models.decoders.preview import PreviewDecoder

__all__ = ["FastDecoder", "PreviewDecoder", "make_decoder"]


def make_decoder(config: DecoderConfig, latent: ModelConfig) -> OwnDecoder:
    """The decoder of `config`, with random weights, for latents of models of the configuration `latent`.

    Raises `ConfigError` if it cannot decode them.
    """
    make: Any = OwnDecoder.modules_of[type(config)]
    made: OwnDecoder = make(config, latent)
    return made
