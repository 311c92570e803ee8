"""The errors that a user can mend: each message names what is at fault, what was expected and what to do.

A command prints such a message alone and exits with 2; any other exception is a defect of ours and keeps its traceback.
"""

TRUNCATION_ADVICE = "; to use only those, give --allow-truncated (allow_truncated=True)"
"""The end of a message about a damaged video, for commands and functions that have this option."""


class VidTokError(ValueError):
    """Base of every error that stems from what the user gave."""


class ConfigError(VidTokError):
    """A configuration, or one value in it, cannot be used."""


class CheckpointError(VidTokError):
    """A checkpoint cannot be read, or does not fit the model."""


class VideoError(VidTokError):
    """A video cannot be read or written."""


class DamagedVideoError(VideoError):
    """A video breaks off or cannot be decoded whole.

    Attributes:
        frames: the number of frames that could be decoded, from the point where reading began.
    """

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames


class TokenFileError(VidTokError):
    """A token file cannot be read or written, or does not fit the model."""


class DamagedTokenFileError(TokenFileError):
    """Part of a token file is damaged or missing; the rest can be read by skipping that part."""


class BeingWrittenError(TokenFileError):
    """Another process is writing the same token file."""


class TrainingError(VidTokError):
    """Training cannot start, or has to stop."""


class DataError(VidTokError):
    """Training data cannot be used: no videos, or more of them unreadable than allowed."""


class CollectionError(VidTokError):
    """A collection of records cannot be planned, written or read, or was made otherwise."""


def without_truncation(message: str) -> str:
    """`message` without `TRUNCATION_ADVICE`, for commands that need every video whole."""
    return message.replace(TRUNCATION_ADVICE, "; get an undamaged copy")
