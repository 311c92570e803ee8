"""Endless procedural clips for training without videos; `docs/synthetic-clips.md` shows and describes them."""

from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.dataset import SyntheticClips
from vidtok.synthetic.render import synthetic_batch

__all__ = ["SyntheticClips", "SyntheticConfig", "synthetic_batch"]
