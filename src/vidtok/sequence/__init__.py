"""Tokens as the sequence that an autoregressive model is trained on; see docs/generation.md."""

from vidtok.sequence.order import begin_token, digits, flatten, frame_token, from_digits, unflatten, vocabulary_size

__all__ = ["begin_token", "digits", "flatten", "frame_token", "from_digits", "unflatten", "vocabulary_size"]
