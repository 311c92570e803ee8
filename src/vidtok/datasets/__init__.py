"""Collections: many videos tokenized once each, by many workers, and read back for training (docs/collections.md)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidtok.datasets.inputs import Listing
    from vidtok.datasets.options import TokenizeOptions
    from vidtok.datasets.reading import TokenDataset
    from vidtok.datasets.streaming import TokenStream, collate
    from vidtok.datasets.tokenize import ModelOptions, RunOptions, TokenizeJob, TokenizeResult

_HOMES = {
    "Listing": "inputs",
    "ModelOptions": "tokenize",
    "RunOptions": "tokenize",
    "TokenDataset": "reading",
    "TokenStream": "streaming",
    "TokenizeJob": "tokenize",
    "TokenizeOptions": "options",
    "TokenizeResult": "tokenize",
    "collate": "streaming",
}

__all__ = [
    "Listing",
    "ModelOptions",
    "RunOptions",
    "TokenDataset",
    "TokenStream",
    "TokenizeJob",
    "TokenizeOptions",
    "TokenizeResult",
    "collate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"vidtok.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vidtok.datasets' has no attribute {name!r}")
