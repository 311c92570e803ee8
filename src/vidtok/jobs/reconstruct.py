"""Reconstruction of a video file by a tokenizer, to another video file, and its quality."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from vidtok.errors import VideoError
from vidtok.jobs.reading import ReadingJob
from vidtok.metrics import rate
from vidtok.metrics.image import SSIM_SMALLEST_SIDE, psnr, ssim
from vidtok.models.base import VideoModel
from vidtok.models.tiles import Tiling
from vidtok.runtime.limits import Progress, check_finite, memory_advice
from vidtok.runtime.options import ReadOptions
from vidtok.runtime.passes import Pair, pairs
from vidtok.runtime.planning import plan
from vidtok.runtime.threads import Ahead, Behind
from vidtok.video import Fit, VideoWriter, to_float, to_uint8
from vidtok.video.source import check_apart


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A reconstruction that was written, and its figures.

    PSNR and SSIM are means over the frames. They compare the model's input (uint8 RGB, after resize and crop) with its
    output (float, clamped to -1..1), so the video codec of the written file has no influence on them.
    """

    output: Path
    frames: int
    height: int
    width: int
    fps: Fraction
    """Frames per second of the written video; 1 for a picture."""
    psnr: float
    """In dB; equal frames score 80."""
    ssim: float | None
    """At most 1; None for frames below 11 pixels a side, for which it is not defined."""
    latent_shape: tuple[int, int, int, int]
    """(z, T', H', W') of the whole video."""
    codebook_size: int | None
    """FSQ: number of values that a token can take; None for KL."""
    seconds: float
    """Time from the first frame read to the output at its path."""
    truncated: bool
    """True if the input is damaged and was read up to the damage (only with `allow_truncated`)."""
    sound_left_out: bool
    """True if the input has sound that the output has not, since only a part of the video was asked for."""
    source_size: tuple[int, int]
    """(height, width) of the input's frames."""
    fit: Fit
    """The resize and crop from there to the frames of the model."""
    tiling: Tiling | None = None
    """The tiles that frames were cut into; None: frames were left whole."""

    @property
    def tokens(self) -> int | None:
        """FSQ: number of tokens of the whole video; None for KL."""
        return None if self.codebook_size is None else math.prod(self.latent_shape[1:])

    @property
    def bits(self) -> float:
        """Size of the latent in bits without entropy coding: log2(codebook size) a token, or 16 a value for KL."""
        channels, *positions = self.latent_shape
        return rate.nominal_bits(math.prod(positions), channels, self.codebook_size)

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the latent per pixel of the video."""
        return rate.bits_per_pixel(self.bits, self.frames * self.height * self.width)

    @property
    def compression(self) -> float:
        """Size of the video as 24-bit RGB over the size of the latent."""
        return rate.compression(self.bits_per_pixel)

    @property
    def frames_per_second(self) -> float:
        """Speed of the whole job: frames over `seconds`."""
        return self.frames / self.seconds


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(ReadOptions):
    """Options of a reconstruction."""

    side_by_side: bool = False
    """Put the source to the left of the reconstruction."""


class ReconstructionJob(ReadingJob):
    """A reconstruction from file to file; input and output are checked here, before a model is needed.

    Arguments and errors are as for `reconstruct`.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        options: ReconstructOptions | None = None,
    ) -> None:
        self._options = options = ReconstructOptions() if options is None else options
        check_apart(Path(output), Path(input))
        # The output is checked before the input, which may take long to read through.
        VideoWriter(output, 1).abort()
        self._reader = options.open(input)
        info = self._reader.info
        if Path(output).suffix.lower() == ".png" and self._reader.frame_estimate != 1:
            raise VideoError(
                f"{output} is a picture, which holds one frame, but {input} is a video; "
                "give an output that ends in .mp4, or take one frame (max_frames=1, --max-frames 1)"
            )
        self._writer = VideoWriter(
            output,
            self._reader.fps,
            audio_from=input if options.to_the_end and info.has_audio else None,
            sample_aspect_ratio=info.sample_aspect_ratio,
            times=(lambda: self._times) if options.fps is None and self._reader.rate_varies else None,
            stream=options.stream,
        )
        self._times: list[float] = []
        self._sound_left_out = info.has_audio and not options.to_the_end

    def run(self, model: VideoModel, progress: Progress | None = None) -> Reconstruction:
        """Write the reconstruction; a job runs only once. Raises as `reconstruct` does, leaving nothing behind."""
        self._options.fit(self._reader, model)
        chosen = plan(model, self._reader.size, self._options, "both", self._reader.frame_estimate)
        model = model.with_tiling(chosen.tiling)
        started = time.perf_counter()
        figures = _Figures()
        done = 0
        with (
            memory_advice(),
            self._reader as reader,
            self._writer as writer,
            Ahead(reader.chunks(chosen.frames, self._times), depth=1) as chunks,
            Behind(depth=1) as behind,
        ):
            for pair in _checked(model, pairs(model, chunks, chosen.frames)):
                behind.put(partial(self._finish, pair, figures))
                done += len(pair.source)
                if progress is not None:
                    progress(done)
        (height, width), factor = reader.size, model.config.spatial_factor
        return Reconstruction(
            output=writer.path,
            frames=figures.frames,
            height=height,
            width=width,
            fps=writer.fps,
            psnr=figures.psnr / figures.frames,
            ssim=figures.ssim / figures.frames if min(reader.size) >= SSIM_SMALLEST_SIDE else None,
            latent_shape=(model.config.z_channels, figures.latent_frames, -(-height // factor), -(-width // factor)),
            codebook_size=model.codebook_size,
            seconds=time.perf_counter() - started,
            truncated=reader.truncated,
            sound_left_out=self._sound_left_out,
            source_size=(reader.info.height, reader.info.width),
            fit=reader.fitting,
            tiling=chosen.tiling,
        )

    def _finish(self, pair: Pair, figures: _Figures) -> None:
        """Measure and write the frames of a pair."""
        figures.add(pair)
        shown = to_uint8(pair.reconstruction)
        wide = np.concatenate([pair.source, shown], axis=2) if self._options.side_by_side else shown
        self._writer.write(wide)


def reconstruct(
    model: VideoModel,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ReconstructOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Reconstruction:
    """Write to `output` the reconstruction by `model` of the video, picture or folder of pictures `input`.

    A causal model takes videos of any length as one stream, with the result of the whole at once and in constant
    memory; a non-causal one takes them in independent clips. Latents are the posterior's mode. Frames keep their times
    where the rate varies, unless `fps` is given. The sound is copied if the whole video is reconstructed, from its
    start to its end. `output` appears whole when all is done, and replaces an older file.

    Args:
        model: the model that encodes and decodes.
        input: anything that `VideoReader` reads.
        output: a path that ends in .mp4, .mov or .mkv, or in .png for one frame.
        options: the part to read, and the frames to compute at a time; None: all of it, as it suits the model.
        progress: called after every chunk with the number of frames done.

    Raises:
        VideoError: the input cannot be read, or the output not be written; nothing is left behind then.
        VidTokError: an option does not fit the model, the model gives values that are not finite, or memory
            is too small.
    """
    return ReconstructionJob(input, output, options).run(model, progress)


def _checked(model: VideoModel, found: Iterator[Pair]) -> Iterator[Pair]:
    """The pairs `found`. Raises `VidTokError`, with advice, at values that are not finite."""
    for pair in found:
        check_finite(pair.reconstruction, model)
        yield pair


class _Figures:
    """Sums over frames."""

    def __init__(self) -> None:
        self.frames = 0
        self.latent_frames = 0
        self.psnr = 0.0
        self.ssim = 0.0

    def add(self, pair: Pair) -> None:
        source: Tensor = to_float(pair.source).to(pair.reconstruction.device)
        self.frames += source.shape[2]
        self.latent_frames = pair.latent_frames
        self.psnr += psnr(pair.reconstruction, source).sum().item()
        if min(source.shape[3:]) >= SSIM_SMALLEST_SIDE:
            self.ssim += ssim(pair.reconstruction, source).sum().item()
