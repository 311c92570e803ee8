"""The errors that a user can mend: each message names what is at fault, what was expected and what to do.

A command prints such a message alone and exits with 2; any other exception is a defect of ours and keeps its traceback.
"""


class VidTokError(ValueError):
    """Base of every error that stems from what the user gave."""


class ConfigError(VidTokError):
    """A configuration, or one value in it, cannot be used."""


class CheckpointError(VidTokError):
    """A checkpoint cannot be read, or does not fit the model."""


class VideoError(VidTokError):
    """A video cannot be read or written."""
