"""Options of an evaluation: the frames to measure on, the same for everything that is compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vidtok.errors import VidTokError
from vidtok.runtime.limits import CLIP_FRAMES
from vidtok.video.frames import as_rate

PUBLISHED_SIZE = 256
SEED = 42


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The frames of each video, their cut into clips, and the noise of models that sample.

    Raises `VidTokError` for a value that is out of range.
    """

    height: int | None = PUBLISHED_SIZE
    """Rows after the resize of the shorter side and the centre crop; with `width` None too: as stored."""
    width: int | None = PUBLISHED_SIZE
    enlarge: bool = True
    """Enlarge frames narrower than the crop until they fill it; False: black at their sides, as published."""
    fps: float | None = None
    """Frames per second to sample; None: every frame."""
    start: float = 0.0
    """Seconds into each video to start at."""
    max_frames: int | None = None
    """Frames of each video, at most."""
    clip_frames: int | None = None
    """Frames of independent clips, with one more for subjects that code a first frame by itself (causal models and
    their baselines); None: videos whole, as one stream, where that is possible."""
    fill: bool = False
    """Repeat the last frame until the last clip is full, and count the copies, as the published figures do."""
    whole_chunks: tuple[int, int] | None = None
    """(lead, chunk): the first lead + k x chunk frames of each video, k as large as possible; a video without a whole
    chunk is left out. None: all frames."""
    allow_truncated: bool = False
    """Let a damaged video end where the damage begins, instead of leaving it out."""
    sample: bool = False
    """Let KL models sample the posterior where their configuration says so, as published; otherwise take its mode."""
    seed: int = SEED
    """Seed of the sampling noise, combined with the video's name."""

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_frames", "clip_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise VidTokError(f"{name} is {value}; expected at least 1")
        if self.fps is not None:
            as_rate(self.fps)
        if self.fill and self.clip_frames is None:
            raise VidTokError("there are no clips to fill; give their length too (--clip-frames, clip_frames)")

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(height, width) of all frames; None where they are as stored."""
        if self.height is None and self.width is None:
            return None
        return self.height or self.width or 1, self.width or self.height or 1

    def clip_length(self, first_alone: bool) -> int | None:
        """Frames of a clip, with one more if a first frame is coded by itself; None: videos are not cut."""
        return None if self.clip_frames is None else self.clip_frames + int(first_alone)

    def as_dict(self) -> dict[str, Any]:
        """The options by name, as JSON holds them."""
        values = asdict(self)
        for name, default in (("whole_chunks", None), ("enlarge", True)):
            if values[name] is default:  # files and kept parts from before these options stay equal
                del values[name]
        return values


def independent_clip(options: EvaluationOptions) -> int:
    """Frames of a clip for a model that cannot code a video as a stream."""
    return options.clip_length(False) or CLIP_FRAMES
