"""Endless procedural clips to train on where no videos are at hand: `docs/synthetic-clips.md` says what they show."""

from vidtok.training.synthetic.config import SyntheticConfig
from vidtok.training.synthetic.dataset import SyntheticClips
from vidtok.training.synthetic.render import synthetic_batch

__all__ = ["SyntheticClips", "SyntheticConfig", "synthetic_batch"]
