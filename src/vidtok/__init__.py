"""VidTok: video to compact latents or discrete tokens and back."""

__version__ = "0.1.0"
