"""VidTok: video to compact latents or discrete tokens and back.

Each public name loads its module on first use, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidtok.device import keep_freed_memory
    from vidtok.errors import CheckpointError, ConfigError, VideoError, VidTokError
    from vidtok.models.config import FSQConfig, KLConfig
    from vidtok.models.streams import DecodeStream, EncodeStream
    from vidtok.models.tiles import Tiling
    from vidtok.models.vidtok.config import AutoencoderConfig
    from vidtok.models.vidtwin.config import VidTwinConfig
    from vidtok.tokenizer import Tokenizer, TwinLatent, VidTwin, load

__version__ = "0.1.0"

_HOMES = {
    "vidtok.device": ("keep_freed_memory",),
    "vidtok.errors": ("CheckpointError", "ConfigError", "VidTokError", "VideoError"),
    "vidtok.models.config": ("FSQConfig", "KLConfig"),
    "vidtok.models.streams": ("DecodeStream", "EncodeStream"),
    "vidtok.models.tiles": ("Tiling",),
    "vidtok.models.vidtok.config": ("AutoencoderConfig",),
    "vidtok.models.vidtwin.config": ("VidTwinConfig",),
    "vidtok.tokenizer": ("Tokenizer", "TwinLatent", "VidTwin", "load"),
}
_SUBPACKAGES = ("sequence", "video")
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
