"""From a video file to a video file by way of a tokenizer, and how much was kept."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vidtok.computing import CLIP_FRAMES, check_finite, frame_size, memory_advice
from vidtok.errors import VideoError, VidTokError
from vidtok.metrics.image import psnr, ssim
from vidtok.models.config import FSQConfig
from vidtok.models.contract import ModelConfig
from vidtok.roundtrip import Pair, clip_pairs, stream_pairs
from vidtok.video import Pixels, VideoReader, VideoWriter, to_float, to_uint8

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer

LATENT_BITS = 16
"""Bits that a value of a continuous latent counts as."""
_RGB_BITS = 24
_CHUNK_PIXELS = CLIP_FRAMES * 512 * 512
_SSIM_SIDE = 11

Progress = Callable[[int], None]
"""Called with how many frames are done."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What `reconstruct` wrote, and the figures of it.

    PSNR and SSIM are means over the frames. They compare what went into the model (uint8 RGB, after resize and crop)
    with what came out of it (float, clamped to -1..1), so the video codec of the written file has no part in them.
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
    """FSQ: how many values a token can take; None for KL."""
    seconds: float
    """From the first frame read to the output in its place."""
    truncated: bool
    """Whether the input is damaged, and ends here where the damage begins (only with `allow_truncated`)."""
    sound_left_out: bool
    """Whether the input has sound that the output has not, since only a part of the video was asked for."""

    @property
    def tokens(self) -> int | None:
        """FSQ: how many tokens the video became; None for KL."""
        return None if self.codebook_size is None else math.prod(self.latent_shape[1:])

    @property
    def bits(self) -> float:
        """Size of the latent: log2(codebook size) bits a token, or 16 bits a value for KL; no entropy coding."""
        if self.codebook_size is None:
            return LATENT_BITS * math.prod(self.latent_shape)
        return math.log2(self.codebook_size) * math.prod(self.latent_shape[1:])

    @property
    def bits_per_pixel(self) -> float:
        return self.bits / (self.frames * self.height * self.width)

    @property
    def compression(self) -> float:
        """How many times smaller the latent is than RGB of 24 bits a pixel."""
        return _RGB_BITS / self.bits_per_pixel

    @property
    def frames_per_second(self) -> float:
        """How fast it went."""
        return self.frames / self.seconds


class ReconstructionJob:
    """A reconstruction whose input can be read and whose output can be written, both checked, before it needs a model.

    Arguments and errors are those of `reconstruct`; with `default_size`, frames are squares of so many pixels a side
    where neither height nor width is given and the model takes any.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        start: float = 0.0,
        max_frames: int | None = None,
        chunk_frames: int | None = None,
        side_by_side: bool = False,
        allow_truncated: bool = False,
        default_size: int | None = None,
    ) -> None:
        if chunk_frames is not None and chunk_frames < 1:
            raise VidTokError(f"chunk_frames is {chunk_frames}; expected at least 1")
        _check_apart(Path(input), Path(output))
        # The output's place is looked at before the input, which may take long to read through.
        VideoWriter(output, 1).abort()
        self._reader = VideoReader(
            input,
            sample_fps=fps,
            height=default_size if height is None and width is None else height,
            width=width,
            max_frames=max_frames,
            start=start,
            allow_truncated=allow_truncated,
        )
        info = self._reader.info
        if Path(output).suffix.lower() == ".png" and self._reader.frame_estimate != 1:
            raise VideoError(
                f"{output} is a picture, which holds one frame, but {input} is a video; "
                "give an output that ends in .mp4, or take one frame (max_frames=1, --max-frames 1)"
            )
        whole = start == 0 and max_frames is None
        self._writer = VideoWriter(
            output,
            self._reader.fps,
            audio_from=input if whole and info.has_audio else None,
            sample_aspect_ratio=info.sample_aspect_ratio,
        )
        self._sound_left_out = info.has_audio and not whole
        self._size = (height, width, default_size)
        self._chunk_frames = chunk_frames
        self._side_by_side = side_by_side

    @property
    def frame_estimate(self) -> int | None:
        """How many frames there are to do, as far as the file says."""
        return self._reader.frame_estimate

    def run(self, model: Tokenizer, progress: Progress | None = None) -> Reconstruction:
        """Do it; once only. Raises as `reconstruct` does, and then leaves nothing behind."""
        self._reader.fit(*frame_size(model, *self._size))
        chunk_frames = self._frames_at_a_time(model.config)
        started = time.perf_counter()
        figures = _Figures()
        with self._reader as reader, self._writer as writer:
            for pair in _checked(model, _pairs(model, reader.chunks(chunk_frames))):
                figures.add(pair)
                shown = to_uint8(pair.reconstruction)
                writer.write(np.concatenate([pair.source, shown], axis=2) if self._side_by_side else shown)
                if progress is not None:
                    progress(figures.frames)
        bottleneck = model.config.bottleneck
        (height, width), factor = reader.size, model.config.spatial_factor
        return Reconstruction(
            output=writer.path,
            frames=figures.frames,
            height=height,
            width=width,
            fps=writer.fps,
            psnr=figures.psnr / figures.frames,
            ssim=figures.ssim / figures.frames if min(reader.size) >= _SSIM_SIDE else None,
            latent_shape=(model.config.z_channels, figures.latent_frames, -(-height // factor), -(-width // factor)),
            codebook_size=bottleneck.codebook_size if isinstance(bottleneck, FSQConfig) else None,
            seconds=time.perf_counter() - started,
            truncated=reader.truncated,
            sound_left_out=self._sound_left_out,
        )

    def _frames_at_a_time(self, config: ModelConfig) -> int:
        """How many frames to compute at a time; `VidTokError` if those asked for do not fit the model."""
        given, factor = self._chunk_frames, config.temporal_factor
        if config.is_causal:
            if given is not None:
                return given
            height, width = self._reader.size
            return max(factor, min(CLIP_FRAMES, _CHUNK_PIXELS // (height * width) // factor * factor))
        if given is not None and given % factor:
            raise VidTokError(
                f"chunk_frames is {given}; expected a multiple of {factor}, since a non-causal model takes "
                f"a video in clips of whole groups of {factor} frames"
            )
        return given or -(-CLIP_FRAMES // factor) * factor


def reconstruct(
    model: Tokenizer,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    start: float = 0.0,
    max_frames: int | None = None,
    chunk_frames: int | None = None,
    side_by_side: bool = False,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> Reconstruction:
    """Write to `output` what `model` makes of the video, picture or folder of pictures `input`.

    A causal model takes videos of any length as one stream, with the result of the whole at once and in constant
    memory; a non-causal one takes them in independent clips. Latents are the posterior's mode. The sound is copied
    where the whole video is reconstructed, from its start to its end. `output` appears whole, when all is done, and
    then replaces what stood there.

    Args:
        model: what encodes and decodes.
        input: anything that `VideoReader` reads.
        output: a path that ends in .mp4, .mov or .mkv, or in .png for one frame.
        height, width: resize the shorter side and crop the centre, as `VideoReader` does; None: as stored, or the one
            size that the model takes.
        fps: frames per second to sample; None: every frame.
        start: seconds into the video to start at.
        max_frames: stop after so many frames.
        chunk_frames: frames to compute at a time. For a causal model it only weighs speed against memory (None: 16, or
            fewer if they are large); for a non-causal one it is the length of a clip (None: 16).
        side_by_side: put the source to the left of the reconstruction.
        allow_truncated: let a damaged video end where the damage begins, instead of raising.
        progress: called after every chunk with the number of frames done.

    Raises:
        VideoError: the input cannot be read, or the output not be written; nothing is left behind then.
        VidTokError: an option does not fit the model, the model gives values that are not finite, or memory
            is too small.
    """
    job = ReconstructionJob(
        input,
        output,
        height=height,
        width=width,
        fps=fps,
        start=start,
        max_frames=max_frames,
        chunk_frames=chunk_frames,
        side_by_side=side_by_side,
        allow_truncated=allow_truncated,
    )
    return job.run(model, progress)


def _check_apart(input: Path, output: Path) -> None:
    if output.exists() and input.exists() and output.samefile(input):
        raise VideoError(f"{output} is the input itself; give another output")


def _pairs(model: Tokenizer, chunks: Iterator[Pixels]) -> Iterator[Pair]:
    return (stream_pairs if model.is_causal else clip_pairs)(model, chunks)


def _checked(model: Tokenizer, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """`pairs`, with an error that says what to do where memory is short or values are not finite."""
    with memory_advice():
        for pair in pairs:
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
        if min(source.shape[3:]) >= _SSIM_SIDE:
            self.ssim += ssim(pair.reconstruction, source).sum().item()
