"""What can go wrong in training that its user can mend."""

from vidtok.errors import VidTokError


class TrainingError(VidTokError):
    """Training cannot start, or has to stop."""
