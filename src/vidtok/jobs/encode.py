"""Encoding of a video file to a token file, in constant memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.files import Aside
from vidtok.jobs.reading import ReadingJob
from vidtok.jobs.sound import commit_sound, extract_sound, sound_path
from vidtok.metrics import rate
from vidtok.models.base import VideoModel
from vidtok.runtime.limits import Progress, check_finite, computing, frame_size
from vidtok.runtime.options import ReadOptions
from vidtok.runtime.passes import EncodePass, first_group, in_groups
from vidtok.runtime.planning import Plan, plan
from vidtok.runtime.threads import Ahead
from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, Source, TokenFileError, TokenHeader, TokenWriter, make_header
from vidtok.tokens.writer import check_place, partial_path
from vidtok.video import Fit, Frame, Pixels, to_float
from vidtok.video.library import TOKEN_SUFFIX
from vidtok.video.source import check_apart


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(ReadOptions):
    """Options of an encoding: everything that a token file depends on besides the video and the model."""

    coding: str | None = None
    """Coding of the values; see `vidtok.tokens.make_header`."""
    sound: bool = False
    """Keep the sound beside the token file, in a file that ends in `.mka`."""

    @property
    def whole(self) -> bool:
        """True if all of the video is encoded, at its own rate."""
        return self.fps is None and self.to_the_end

    def settings(self, model: VideoModel) -> dict[str, Any]:
        """The options as JSON values for the header; for one video and model, equal values give equal files."""
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
        if self.stream is not None:
            noted["stream"] = self.stream
        tiles = {"tile": self.tile, "tile_overlap": self.tile_overlap, "max_memory": self.max_memory}
        if model.tiling is not None and self.tile is None and self.max_memory is None:
            tiles = {"tile": model.tiling.size, "tile_overlap": model.tiling.overlap}
        return noted | {name: value for name, value in tiles.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A token file that was written, and its figures."""

    output: Path
    header: TokenHeader
    frames: int
    latent_frames: int
    bytes: int
    """Size of the token file."""
    source_bytes: int | None
    """Size of the source in bytes; None if it is no file, or a part of it was encoded."""
    int8_snr: float | None
    """Signal to quantization noise of the latent, in dB; None without int8 coding."""
    sound: Path | None
    """The file of the sound; None if it was not kept."""
    truncated: bool
    """True if the input broke off (only with `allow_truncated`)."""
    resumed: int
    """Number of frames that an interrupted run had encoded already."""
    seconds: float
    """Time from the first frame read to the output at its path."""

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the token file per pixel of the encoded video."""
        return rate.bits_per_pixel(8 * self.bytes, self.frames * self.header.video.height * self.header.video.width)

    @property
    def compression(self) -> float:
        """Size of the video as 24-bit RGB over the size of the token file."""
        return rate.compression(self.bits_per_pixel)


class EncodeJob(ReadingJob):
    """An encoding from file to file; input and output are checked here, before a model is needed.

    Args:
        input: anything that `VideoReader` reads: a video, a picture or a folder of pictures.
        output: a path that ends in `.vtok`.
        options: the part to encode, its frame size and its coding; None: all of it, as it suits the model.

    Raises:
        VideoError: the input cannot be read.
        TokenFileError: the output cannot be written, or there is no such `coding`.
        VidTokError: `sound` is given for a part of the video.
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
        check_place(self._output)
        check_apart(self._output, self._input)
        self._reader = options.open(input)

    def run(self, model: VideoModel, progress: Progress | None = None) -> Encoded:
        """Write the token file; a job runs only once. `progress` is called with the number of frames done.

        A latent is the posterior's mode. A causal model takes the video as one stream, with the result of all of it at
        once, a non-causal one in independent clips. If a run of the same encoding was killed or interrupted, the whole
        chunks that it has left in the `.part` beside the output are kept, and the file is the same, bit for bit.

        Raises `DamagedVideoError` if the video breaks off, and `VidTokError` if an option does not fit the model, the
        model gives values that are not finite, or memory is too small; nothing is left behind then. Raises `VideoError`
        if the sound cannot be written; where it only cannot be moved to its place, the token file stays.
        """
        started = time.perf_counter()
        self.options.fit(self._reader, model)
        chosen = plan(model, self._reader.size, self.options, "encode", self._reader.frame_estimate)
        tiled = model.with_tiling(chosen.tiling)
        sound = Aside(sound_path(self._output))
        try:
            sounds = self.options.sound and self._reader.info.has_audio
            sounds = sounds and extract_sound(self._input, sound, self.options.stream)
            timed = self.options.fps is None and self._reader.rate_varies
            with (
                self._reader as reader,
                computing(),
                Ahead(in_groups(reader, first_group(model, chosen.frames), chosen.frames), depth=1) as ahead,
            ):
                batches = iter(ahead)
                first = next(batches)
                header = self._header(model, first[0].time, chosen, sounds)
                with TokenWriter(self._output, header, resume=self._may_resume()) as writer:
                    known = header.latent.frames_before(writer.latent_frames)
                    encoder = EncodePass(tiled, chosen.frames, known=writer.latent_frames)
                    done, times = 0, _Times(timed)
                    for batch in chain((first,), batches):
                        times.add(batch[max(0, known - done) :])
                        self._write(writer, encoder.push(_video(batch)), times, model)
                        done += len(batch)
                        if progress is not None:
                            progress(max(done, known))
                    self._write(writer, encoder.flush(), times, model)
                    writer.finish(done)
            if sounds:
                commit_sound(self._input, sound)
        finally:
            sound.discard()
        source = header.source
        return Encoded(
            output=self._output,
            header=header,
            frames=done,
            latent_frames=writer.latent_frames,
            bytes=self._output.stat().st_size,
            source_bytes=source.bytes if source is not None and source.whole else None,
            int8_snr=writer.int8_snr,
            sound=sound.place if sounds else None,
            truncated=reader.truncated,
            resumed=known,
            seconds=time.perf_counter() - started,
        )

    @staticmethod
    def _write(writer: TokenWriter, values: Tensor, times: _Times, model: VideoModel) -> None:
        if values.shape[-3]:
            check_finite(values, model)
            writer.write(values, times.take())

    def _may_resume(self) -> bool:
        """False if the input is no file, or has changed since an interrupted run wrote its `.part`."""
        try:
            return self._input.is_file() and self._input.stat().st_mtime <= partial_path(self._output).stat().st_mtime
        except OSError:
            return True  # without a `.part`, resuming has no effect

    def _header(self, model: VideoModel, start: float, chosen: Plan, sounds: bool) -> TokenHeader:
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
            chunk=None if model.is_causal else chosen.frames // model.config.temporal_factor,
            start=start,
            picture=info.is_picture,
            sample_aspect_ratio=info.sample_aspect_ratio,
            source=source,
            encoding={
                "vidtok": vidtok.__version__,
                "settings": options.settings(model),
                "frames_at_a_time": chosen.frames,
                "tiling": chosen.tiling and chosen.tiling.grid(reader.size, model.config.spatial_factor),
                "sound": sounds,
            },
        )


def encode_file(
    model: VideoModel,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Encoded:
    """Encode `input` to the token file `output` with `model`; arguments and errors are as for `EncodeJob`."""
    return EncodeJob(input, output, options).run(model, progress)


class _Times:
    """Times of frames whose values are not written yet; none are kept if the frame rate gives them."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._waiting: list[float] = []

    def add(self, frames: list[Frame]) -> None:
        self._waiting += [frame.time for frame in frames]

    def take(self) -> list[float] | None:
        taken, self._waiting = self._waiting, []
        return taken if self._wanted else None


def _video(frames: list[Frame]) -> Tensor:
    pixels: Pixels = np.stack([frame.pixels for frame in frames])
    return to_float(pixels)


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name.encode("utf-8", "replace").decode())
