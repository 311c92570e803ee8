"""The tokenizer of the second family: structure and dynamics of a video apart."""

from __future__ import annotations

from vidtok.models.vidtwin.autoencoder import TwinLatent, VidTwinAutoencoder
from vidtok.models.vidtwin.config import VidTwinConfig
from vidtok.tokenizer import Tokenizer

__all__ = ["TwinLatent", "VidTwin", "VidTwinConfig"]


class VidTwin(VidTwinAutoencoder, Tokenizer):
    """A tokenizer of the second family (arXiv 2412.17726).

    It takes videos in clips of 16 frames (`config.frames`) of 224 x 224 pixels (`config.frame_size`). `encode` gives a
    `TwinLatent` of structure and dynamics, which `decode` takes; a latent with the structure of one video and the
    dynamics of another makes a video of both.

    Attributes:
        config: what the model is made of.
        name: the model's name in the family, or that of the file or folder it was loaded from.
        encoder, decoder: the two transformers; they may be replaced by compiled ones.
    """

    def __init__(self, config: VidTwinConfig, *, name: str = "vidtwin") -> None:
        super().__init__(config)
        self.name = name
