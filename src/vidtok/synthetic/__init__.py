"""Endless procedural clips to train on where no videos are at hand: `docs/synthetic-clips.md` says what they show."""

from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.dataset import SyntheticClips
from vidtok.synthetic.render import synthetic_batch

__all__ = ["SyntheticClips", "SyntheticConfig", "synthetic_batch"]
