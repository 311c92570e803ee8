"""What can be wrong with a token file."""

from __future__ import annotations

from vidtok.errors import VidTokError


class TokenFileError(VidTokError):
    """A token file cannot be read or written, or does not fit the model."""


class DamagedTokenFileError(TokenFileError):
    """Part of a token file is damaged or missing; what is not can be had by skipping that part."""
