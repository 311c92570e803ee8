"""Decoding of a token file, whole or in part, to a video file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from torch import Tensor

from vidtok.errors import VideoError
from vidtok.jobs.sound import sound_path
from vidtok.jobs.timestamp import Timestamp, frame_range
from vidtok.models.base import VideoModel
from vidtok.models.padding import pad_front
from vidtok.runtime.limits import Progress, check_finite, computing, frames_at_a_time
from vidtok.runtime.options import ComputeOptions
from vidtok.runtime.passes import DecodePass, LatentRange, latents_of
from vidtok.runtime.planning import plan
from vidtok.runtime.threads import Behind
from vidtok.tokens import Chunk, TokenFile, TokenFileError, TokenHeader, check_model
from vidtok.tokens.identity import check_layout
from vidtok.video import VideoWriter, to_uint8
from vidtok.video.source import check_apart


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A video that was written, and its figures."""

    output: Path
    frames: int
    height: int
    width: int
    """Size of a frame as it was encoded; H.264 makes odd sizes even by repeating the last row or column."""
    fps: Fraction
    """Frames per second; 1 for a picture; the average where the rate varies."""
    latents: int
    """Number of latent frames decoded, including those before the first frame that it depends on."""
    damages: tuple[str, ...]
    """Damaged or missing parts that were filled (only with `skip_damaged`), one line each."""
    sound: bool
    """True if the sound that was kept beside the token file is in the output."""
    seconds: float
    """Time from the first chunk read to the output at its path."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(ComputeOptions):
    """Options of a decoding."""

    start: Timestamp = None
    """First frame to decode, as seconds from the start or as a frame such as "100f"; None: the first of the file."""
    end: Timestamp = None
    """Frame to stop before, likewise; None: decode to the end."""
    skip_damaged: bool = False
    """Fill damaged or missing parts with copies of the last latent frame before them, and decode a file that was cut
    off as far as it goes, instead of raising."""
    sound: bool = True
    """Put the sound that was kept beside the token file into the output, if all of the video is decoded."""


class DecodeJob:
    """A decoding from file to file; input and output are checked here, before a model is needed.

    Use it in a `with` block, or `close` it.

    Args:
        input: a token file.
        output: a path that ends in .mp4, .mov or .mkv, or in .png for one frame.
        options: the part to decode, and the frames to compute at a time; None: all of it, as it suits the model.

    Raises:
        TokenFileError: the input is not a whole token file, or has no frames between `start` and `end`.
        VideoError: the output cannot be written.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        options: DecodeOptions | None = None,
    ) -> None:
        self._options = options = DecodeOptions() if options is None else options
        self._output = Path(output)
        check_apart(self._output, Path(input))
        VideoWriter(output, 1).abort()
        self._file = TokenFile(input)
        try:
            _check_complete(self._file, options.skip_damaged)
            self._range = frame_range(self._file, options.start, options.end, skip_damaged=options.skip_damaged)
            if self._output.suffix.lower() == ".png" and self.frames != 1:
                raise VideoError(
                    f"{output} is a picture, which holds one frame, but {self.frames} are to be decoded; give an "
                    "output that ends in .mp4, or take one frame (--start 0f --end 1f)"
                )
        except BaseException:
            self._file.close()
            raise
        beside = sound_path(input)
        kept = bool(self.header.encoding.get("sound")) and beside.is_file()
        self._sound = beside if options.sound and kept and self.frames == self._file.frames else None

    def __enter__(self) -> DecodeJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the input."""
        self._file.close()

    @property
    def header(self) -> TokenHeader:
        """The header of the file."""
        return self._file.header

    @property
    def frames(self) -> int:
        """Number of frames to decode."""
        return self._range[1] - self._range[0]

    def run(self, model: VideoModel, progress: Progress | None = None, *, allow_other: bool = False) -> Decoded:
        """Write the video. `progress` is called with the number of frames done; `allow_other` is as for `check_model`.

        Raises `TokenFileError` if `model` is not the model that made the file, or a chunk is damaged, and `VidTokError`
        if the model gives values that are not finite, or memory is too small. Nothing is left behind then.
        """
        started = time.perf_counter()
        check_model(self.header.model, model, self._file.path, allow_other=allow_other)
        check_layout(self.header.latent, model, self._file.path)
        length = self.frames if self.frames == self._file.frames else None
        chosen = plan(model, self._file.size[1:], self._options, "decode", length)
        model, skip_damaged = model.with_tiling(chosen.tiling), self._options.skip_damaged
        decoding = Decoding(model, self._file, *self._range, chosen.frames, skip_damaged=skip_damaged)
        video, timed = self.header.video, self._file.timed
        writer = VideoWriter(
            self._output,
            video.fps,
            audio_from=self._sound,
            sample_aspect_ratio=video.sample_aspect_ratio,
            times=(lambda: self._file.times(*self._range, skip_damaged=skip_damaged).tolist()) if timed else None,
        )
        done = 0
        with writer, computing(), Behind(depth=1) as behind:
            for piece in decoding:
                pixels = to_uint8(piece)
                behind.put(partial(writer.write, pixels))
                done += len(pixels)
                if progress is not None:
                    progress(done)
        return Decoded(
            output=self._output,
            frames=writer.frame_count,
            height=video.height,
            width=video.width,
            fps=video.fps,
            latents=decoding.latents,
            damages=tuple(decoding.damages),
            sound=self._sound is not None and self._output.suffix.lower() != ".png",
            seconds=time.perf_counter() - started,
        )


class Decoding:
    """Iterates over the decoded frames `start` to before `stop` of `file`: (1, 3, T, H, W) float32, pieces of any T.

    A causal model starts as many latent frames earlier as its layers look back, so that the frames equal the whole
    file's decoding. A non-causal one decodes the clips that contain the frames. `chunk_frames` is the number of frames
    to compute at a time; `stop` None means to the end. Raises as `DecodeJob.run` does.
    """

    def __init__(
        self,
        model: VideoModel,
        file: TokenFile,
        start: int = 0,
        stop: int | None = None,
        chunk_frames: int | None = None,
        *,
        skip_damaged: bool = False,
    ) -> None:
        self._model = model
        self._file = file
        self._start = start
        self._stop = file.frames if stop is None else stop
        file.latents_of(self._start, self._stop)  # checks the range
        self._skip_damaged = skip_damaged
        self._at_a_time = frames_at_a_time(model.config, file.size[1:], chunk_frames)
        self.latents = 0
        """Number of latent frames decoded so far."""
        self.damages: list[str] = []
        """Damaged or missing parts that were filled so far, one line each."""

    def __iter__(self) -> Iterator[Tensor]:
        total, layout = self._file.latent_frames, self._file.header.latent
        # A causal model decodes its first latent frame to one frame, also where it stands for several equal ones.
        equal = layout.first_frames - 1 if layout.causal else 0
        start, stop = max(0, self._start - equal), max(1, self._stop - equal)
        found = latents_of(self._model, start, stop, total, layout.chunk)
        at, (height, width) = found.at + equal if found.at else 0, self._file.size[1:]
        for piece in self._decoded(found, ends=found.last == total):
            if not at and piece.shape[2]:
                piece = pad_front(piece, equal)
            low, high = max(0, self._start - at), min(piece.shape[2], self._stop - at)
            at += piece.shape[2]
            if low < high:
                wanted = piece[:, :, low:high, :height, :width].float()
                check_finite(wanted, self._model)
                yield wanted

    def _decoded(self, latents: LatentRange, *, ends: bool) -> Iterator[Tensor]:
        """The video of `latents`, in pieces; with `ends`, they are the last of the file."""
        layout = self._file.header.latent
        frames = self._at_a_time if layout.causal else layout.chunk * layout.temporal_factor
        decoder = DecodePass(self._model, frames)
        for values in self._values(latents.first, latents.last):
            yield decoder.push(values)
        yield decoder.flush() if ends else decoder.drain()

    def _values(self, first: int, last: int) -> Iterator[Tensor]:
        for chunk in self._file.chunks(first, last, skip_damaged=self._skip_damaged):
            self._note(chunk)
            yield chunk.values

    def _note(self, chunk: Chunk) -> None:
        self.latents += chunk.latents
        if chunk.damage is not None and chunk.damage not in self.damages[-1:]:  # pieces of one gap have one fault
            self.damages.append(chunk.damage)


def _check_complete(file: TokenFile, skip_damaged: bool) -> None:
    if not file.complete and not skip_damaged:
        raise TokenFileError(
            f"{file.path} has no end: it is still being written, or was cut off after {file.frames} frames; "
            "decode what is there with --skip-damaged (skip_damaged=True)"
        )
    if not file.frames:
        raise TokenFileError(f"{file.path} has no frames in it that can be decoded; encode again")


def decode_file(
    model: VideoModel,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: DecodeOptions | None = None,
    *,
    allow_other: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode the token file `input` to the video file `output`; arguments and errors are as for `DecodeJob`."""
    with DecodeJob(input, output, options) as job:
        return job.run(model, progress, allow_other=allow_other)
