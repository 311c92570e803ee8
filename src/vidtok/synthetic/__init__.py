"""Endless procedural clips for training without videos; `docs/synthetic-clips.md` shows and describes them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidtok.synthetic.config import SyntheticConfig

if TYPE_CHECKING:
    from vidtok.synthetic.dataset import SyntheticClips
    from vidtok.synthetic.render import synthetic_batch

__all__ = ["SyntheticClips", "SyntheticConfig", "synthetic_batch"]

_HOMES = {"SyntheticClips": "vidtok.synthetic.dataset", "synthetic_batch": "vidtok.synthetic.render"}
"""Names that load PyTorch, which configurations alone do not need."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vidtok.synthetic' has no attribute {name!r}")
