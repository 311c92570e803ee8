"""What can be wrong with training data, beyond a section that cannot be understood (`vidtok.errors.ConfigError`)."""

from __future__ import annotations

from vidtok.errors import VidTokError


class DataError(VidTokError):
    """Training data cannot be used: no videos, or more of them unreadable than allowed."""
