"""From a video file to a token file by way of a tokenizer, in constant memory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vidtok.computing import check_finite, computing, frame_size, frames_at_a_time
from vidtok.errors import VideoError, VidTokError
from vidtok.models.contract import ModelConfig
from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, Source, TokenFileError, TokenHeader, TokenWriter, make_header
from vidtok.tokens.writer import check_place
from vidtok.transcoding.sound import extract_sound, sound_path
from vidtok.video import Fit, Frame, Pixels, VideoReader, to_float
from vidtok.video.source import open_source
from vidtok.video.timing import Window

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer

TOKEN_SUFFIX = ".vtok"
_RGB_BYTES = 3

Progress = Callable[[int], None]
"""Called with how many frames are done."""


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """What decides about the content of a token file, beside the video and the model."""

    height: int | None = None
    """Resize the shorter side and crop the centre, as `VideoReader` does; None: as stored, or the one size that the
    model takes."""
    width: int | None = None
    default_size: int | None = None
    """Side of the square frames where neither height nor width is given and the model takes any; None: as stored."""
    fps: float | None = None
    """Frames per second to sample; None: every frame."""
    start: float = 0.0
    """Seconds into the video to start at."""
    max_frames: int | None = None
    """Stop after so many frames."""
    chunk_frames: int | None = None
    """Frames to compute at a time. For a causal model it only weighs speed against memory (None: 16, or fewer if they
    are large); for a non-causal one it is the length of a clip (None: 16)."""
    coding: str | None = None
    """How values are stored; see `vidtok.tokens.make_header`."""
    sound: bool = False
    """Keep the sound beside the token file, in a file that ends in `.mka`."""
    allow_truncated: bool = False
    """Let a damaged video end where the damage begins, instead of raising."""

    @property
    def whole(self) -> bool:
        """Whether all of a video is encoded, at its own rate."""
        return self.fps is None and self.start == 0 and self.max_frames is None

    def settings(self, model: Tokenizer) -> dict[str, Any]:
        """What the header notes of how a file was made: equal for files of equal content."""
        height, width = frame_size(model, self.height, self.width, self.default_size)
        noted: dict[str, Any] = {
            "height": height,
            "width": width,
            "fps": self.fps,
            "start": self.start,
            "max_frames": self.max_frames,
            "coding": self.coding,
            "sound": self.sound,
            "allow_truncated": self.allow_truncated,
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        if not model.is_causal:
            noted["chunk_frames"] = self.chunk_frames
        return noted


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What `EncodeJob` wrote."""

    output: Path
    header: TokenHeader
    frames: int
    latent_frames: int
    bytes: int
    """Size of the token file."""
    source_bytes: int | None
    """Size of the source, if all of its video was encoded and it is a file."""
    int8_snr: float | None
    """With int8 coding: signal to quantization noise of the latent, in dB."""
    sound: Path | None
    """Where the sound was kept."""
    truncated: bool
    """Whether the input broke off (only with `allow_truncated`)."""
    seconds: float
    """From the first frame read to the output in its place."""

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.bytes / self._pixels

    @property
    def compression(self) -> float:
        """How many times smaller the file is than RGB of 24 bits a pixel."""
        return _RGB_BYTES * self._pixels / self.bytes

    @property
    def _pixels(self) -> int:
        return self.frames * self.header.video.height * self.header.video.width


class EncodeJob:
    """An encoding whose input can be read and whose output can be written, both checked, before it needs a model.

    Args:
        input: anything that `VideoReader` reads: a video, a picture or a folder of pictures.
        output: a path that ends in `.vtok`.
        options: what to make of the video.

    Raises:
        VideoError: the input cannot be read.
        TokenFileError: the output cannot be written, or `coding` is none that there is.
        VidTokError: `sound` is wanted of a part of the video.
    """

    def __init__(
        self, input: str | os.PathLike[str], output: str | os.PathLike[str], options: EncodeOptions | None = None
    ) -> None:
        options = EncodeOptions() if options is None else options
        self.options = options
        self._input, self._output = Path(input), Path(output)
        if self._output.suffix != TOKEN_SUFFIX:
            raise TokenFileError(
                f"{output} does not end in {TOKEN_SUFFIX}; expected a name such as video{TOKEN_SUFFIX}"
            )
        codings = TOKEN_CODINGS + LATENT_CODINGS
        if options.coding is not None and options.coding not in codings:
            raise TokenFileError(f"coding is {options.coding!r}; expected one of {', '.join(codings)}")
        if options.sound and not options.whole:
            raise VidTokError(
                "the sound is kept with a whole video only; leave out --audio (sound), or --fps, --start and "
                "--max-frames (fps, start, max_frames)"
            )
        if options.chunk_frames is not None and options.chunk_frames < 1:
            raise VidTokError(f"chunk_frames is {options.chunk_frames}; expected at least 1")
        check_place(self._output)
        if self._output.exists() and self._input.exists() and self._output.samefile(self._input):
            raise VideoError(f"{output} is the input itself; give another output")
        self._reader = VideoReader(
            input,
            sample_fps=options.fps,
            height=options.default_size if options.height is None and options.width is None else options.height,
            width=options.width,
            max_frames=options.max_frames,
            start=options.start,
            allow_truncated=options.allow_truncated,
        )

    @property
    def frame_estimate(self) -> int | None:
        """How many frames there are to do, as far as the file says."""
        return self._reader.frame_estimate

    def run(self, model: Tokenizer, progress: Progress | None = None) -> Encoded:
        """Do it; once only. `progress` is called with the number of frames done.

        A latent is the posterior's mode. A causal model takes the video as one stream, with the result of all of it at
        once, a non-causal one in independent clips. Raises `DamagedVideoError` if the video breaks off, and
        `VidTokError` if an option does not fit the model, the model gives values that are not finite, or the GPU's
        memory is too small; nothing is left behind then.
        """
        started = time.perf_counter()
        height, width = frame_size(model, self.options.height, self.options.width, self.options.default_size)
        self._reader.fit(height, width)
        at_a_time = frames_at_a_time(model.config, self._reader.size, self.options.chunk_frames)
        aside = self._output.with_name(f".{self._output.stem[:100]}.{uuid.uuid4().hex[:12]}.mka")
        done = 0
        try:
            sounds = self.options.sound and self._reader.info.has_audio and extract_sound(self._input, aside)
            timed = self.options.fps is None and _rate_varies(self._input, self.options)
            with self._reader as reader, computing():
                batches = _batches(iter(reader), *_cut(model.config, at_a_time))
                first = next(batches)
                header = self._header(model, first[0].time, at_a_time, sounds)
                with TokenWriter(self._output, header) as writer:
                    for frames, values in _encoded(model, first, batches):
                        check_finite(values, model)
                        done += len(frames)
                        writer.write(values, [frame.time for frame in frames] if timed else None)
                        if progress is not None:
                            progress(done)
                    writer.finish(done)
            if sounds:
                os.replace(aside, sound_path(self._output))
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        source = header.source
        return Encoded(
            output=self._output,
            header=header,
            frames=done,
            latent_frames=writer.latent_frames,
            bytes=self._output.stat().st_size,
            source_bytes=source.bytes if source is not None and source.whole else None,
            int8_snr=writer.int8_snr,
            sound=sound_path(self._output) if sounds else None,
            truncated=reader.truncated,
            seconds=time.perf_counter() - started,
        )

    def _header(self, model: Tokenizer, start: float, at_a_time: int, sounds: bool) -> TokenHeader:
        import vidtok

        reader, options = self._reader, self.options
        info = reader.info
        size = frame_size(model, options.height, options.width, options.default_size)
        fit = Fit.plan((info.height, info.width), *size)
        top, left = (round((have - want) / 2.0) for have, want in zip(fit.resized, fit.cropped, strict=True))
        height, width = reader.size
        source = Source(
            name=_printable(self._input.absolute().name),
            bytes=self._input.stat().st_size if self._input.is_file() else None,
            height=info.height,
            width=info.width,
            resized=fit.resized,
            crop=(top, left),
            codec=info.codec,
            pixel_format=info.pixel_format,
            whole=options.whole,
        )
        return make_header(
            model,
            height=height,
            width=width,
            fps=reader.fps,
            coding=options.coding,
            chunk=None if model.is_causal else at_a_time // model.config.temporal_factor,
            start=start,
            picture=info.is_picture,
            sample_aspect_ratio=info.sample_aspect_ratio,
            source=source,
            encoding={
                "vidtok": vidtok.__version__,
                "settings": options.settings(model),
                "sound": sounds,
            },
        )


def encode_file(
    model: Tokenizer,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Encoded:
    """Write to the token file `output` what `model` makes of `input`; see `EncodeJob`."""
    return EncodeJob(input, output, options).run(model, progress)


def _rate_varies(path: Path, options: EncodeOptions) -> bool:
    """Whether a frame rate does not say when the frames of a video are shown."""
    window = None
    if options.max_frames is not None:
        window = Window(options.start, options.start + 1, options.max_frames)
    return not open_source(path, window).timing.constant


def _cut(config: ModelConfig, at_a_time: int) -> tuple[int, int]:
    """How many frames to take first, and then at a time: a causal model's first frame stands alone."""
    return (1 + at_a_time if config.is_causal else at_a_time), at_a_time


def _batches(frames: Iterator[Frame], first: int, size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == first:
            yield batch
            batch, first = [], size
    if batch:
        yield batch


def _encoded(
    model: Tokenizer, first: list[Frame], others: Iterator[list[Frame]]
) -> Iterator[tuple[list[Frame], Tensor]]:
    """Every batch of frames, with the values that are complete with it."""
    discrete = model.regularization.discrete

    def whole(frames: list[Frame]) -> Tensor:
        return model.encode_packed(_video(frames))

    if not model.is_causal:
        yield first, whole(first)
        for batch in others:
            yield batch, whole(batch)
        return
    second = next(others, None)
    if second is None:
        # One piece: what `encode` of all of it gives, to the last bit.
        yield first, whole(first)
        return
    with model.encode_stream(sample=False) as stream:
        for batch in chain((first, second), others):
            z = stream.push(_video(batch))
            yield batch, stream.log["indices"] if discrete else z
        z = stream.flush()
        yield [], stream.log["indices"] if discrete else z


def _video(frames: list[Frame]) -> Tensor:
    pixels: Pixels = np.stack([frame.pixels for frame in frames])
    return to_float(pixels)


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name.encode("utf-8", "replace").decode())
