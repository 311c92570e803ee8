"""VidTok: video to compact latents or discrete tokens and back.

The names here load what they need when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidtok.device import keep_freed_memory
    from vidtok.errors import CheckpointError, ConfigError, VideoError, VidTokError
    from vidtok.models.vidtok.config import AutoencoderConfig, FSQConfig, KLConfig
    from vidtok.runtime.streams import DecodeStream, EncodeStream
    from vidtok.runtime.tiles import Tiling
    from vidtok.tokenizer import Tokenizer, load
    from vidtok.vidtwin import TwinLatent, VidTwin, VidTwinConfig

__version__ = "0.1.0"

_HOMES = {
    "vidtok.device": ("keep_freed_memory",),
    "vidtok.errors": ("CheckpointError", "ConfigError", "VidTokError", "VideoError"),
    "vidtok.models.vidtok.config": ("AutoencoderConfig", "FSQConfig", "KLConfig"),
    "vidtok.runtime.streams": ("DecodeStream", "EncodeStream"),
    "vidtok.runtime.tiles": ("Tiling",),
    "vidtok.tokenizer": ("Tokenizer", "load"),
    "vidtok.vidtwin": ("TwinLatent", "VidTwin", "VidTwinConfig"),
}
_SUBPACKAGES = ("video",)
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AutoencoderConfig",
    "CheckpointError",
    "ConfigError",
    "DecodeStream",
    "EncodeStream",
    "FSQConfig",
    "KLConfig",
    "Tiling",
    "Tokenizer",
    "TwinLatent",
    "VidTokError",
    "VidTwin",
    "VidTwinConfig",
    "VideoError",
    "__version__",
    "keep_freed_memory",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"vidtok.{name}")
    raise AttributeError(f"module 'vidtok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
