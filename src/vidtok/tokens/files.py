"""Token files in one call: opened for reading, or written from the result of `Tokenizer.encode`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch

from vidtok.errors import TokenFileError
from vidtok.models.base import VideoModel
from vidtok.models.padding import front_copies
from vidtok.tokens.header import (
    DEFAULT_CHUNK,
    LATENT_CODINGS,
    TOKEN_CODINGS,
    LatentLayout,
    Source,
    TokenHeader,
    VideoLayout,
)
from vidtok.tokens.identity import model_identity
from vidtok.tokens.reader import TokenFile
from vidtok.tokens.writer import TokenWriter


def read(path: str | os.PathLike[str]) -> TokenFile:
    """Open the token file at `path`; see `TokenFile`."""
    return TokenFile(path)


def write(
    path: str | os.PathLike[str],
    values: Any,
    model: VideoModel,
    *,
    size: tuple[int, int, int],
    fps: float | Fraction,
    coding: str | None = None,
    times: Sequence[float] | None = None,
    clip_frames: int | None = None,
) -> None:
    """Write the latent or the tokens of one video to a token file.

    Args:
        path: the file to write; it appears whole or not at all.
        values: the result of `encode`: a latent, such as (1, z, T', H', W') or a `TwinLatent`, or, for an FSQ model,
            `log["indices"]` (1, T', H', W').
        model: the tokenizer that encoded the video; the file notes its `padding`.
        size: frames, height and width of the video.
        fps: frames per second of the video.
        coding: coding of the values; see `make_header`.
        times: time of each frame in seconds, if `fps` alone does not give it.
        clip_frames: for a non-causal model, the number of frames that were encoded at a time; None: all of them.

    Raises:
        TokenFileError: the file cannot be written, or the values do not fit the model and the size.
    """
    frames, height, width = size
    chunk, lead = None, None
    if not model.is_causal:
        chunk = -(-(clip_frames or frames) // model.config.temporal_factor)
    if model.padding == "front":
        lead = model.temporal_factor - front_copies(frames, model.config)
    header = make_header(model, height=height, width=width, fps=Fraction(fps), coding=coding, chunk=chunk, lead=lead)
    with TokenWriter(path, header) as writer:
        writer.write(model.pack(values), times)
        writer.finish(frames)


def default_coding(model: VideoModel) -> str:
    """The coding of `model`'s values where none is given: adaptive for tokens, 16-bit floats for KL."""
    if model.regularization.discrete:
        return "adaptive"
    return "bfloat16" if model.dtype == torch.bfloat16 else "float16"


def make_header(
    model: VideoModel,
    *,
    height: int,
    width: int,
    fps: Fraction,
    coding: str | None = None,
    chunk: int | None = None,
    lead: int | None = None,
    start: float = 0.0,
    picture: bool = False,
    sample_aspect_ratio: Fraction = Fraction(1),
    source: Source | None = None,
    encoding: Mapping[str, Any] | None = None,
) -> TokenHeader:
    """The header of a token file for a video of `height` x `width` pixels that `model` encodes.

    `coding` is `packed`, `static` or `adaptive` for an FSQ model, `float16`, `bfloat16`, `float32` or `int8` for a KL
    model; None: `default_coding`. `chunk` is the number of latent frames in a chunk, which for a non-causal model is a
    clip; None: 16, or fewer if they are large. `lead` is the number of video frames that the first latent frame of a
    clip padded in front stands for; None: the clip is padded at its end. The others are as in `VideoLayout` and
    `TokenHeader`.

    Raises `TokenFileError` if a value cannot be used.
    """
    config = model.config
    coding = default_coding(model) if coding is None else coding
    discrete = model.regularization.discrete
    codings = TOKEN_CODINGS if discrete else LATENT_CODINGS
    if coding not in codings:
        kind = "tokens" if discrete else "a continuous latent"
        raise TokenFileError(
            f"coding is {coding!r}; expected one of {', '.join(codings)}, as {model.name} makes {kind}"
        )
    latent = LatentLayout(
        coding=coding,
        channels=config.z_channels,
        height=-(-height // config.spatial_factor),
        width=-(-width // config.spatial_factor),
        temporal_factor=config.temporal_factor,
        spatial_factor=config.spatial_factor,
        causal=config.is_causal,
        levels=config.bottleneck.token_levels,
        lead=lead,
        streams=config.parts,
    )
    if chunk is None:
        chunk = max(1, min(DEFAULT_CHUNK, latent.largest_chunk))
    return TokenHeader(
        model=model_identity(model),
        latent=dataclasses.replace(latent, chunk=chunk),
        video=VideoLayout(
            height=height,
            width=width,
            fps=fps,
            start=start,
            picture=picture,
            sample_aspect_ratio=sample_aspect_ratio,
        ),
        source=source,
        encoding={} if encoding is None else encoding,
    )
