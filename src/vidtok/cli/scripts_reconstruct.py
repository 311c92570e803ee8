"""The published scripts that reconstruct one video."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import vidtok
from vidtok.cli.progress import progress_bar
from vidtok.cli.scripts import autocast, check_chunk_size, clip_frames, make_output_folder
from vidtok.device import choose_device
from vidtok.errors import VideoError
from vidtok.runtime.passes import Pair, continued_clip_pairs, pairs
from vidtok.video import VideoReader, VideoWriter, to_uint8

log = logging.getLogger(__name__)


def reconstruct(arguments: argparse.Namespace) -> Path:
    """Reconstruct a video as `arguments` say, and return the path of the written file."""
    source = Path(arguments.input_video_path)
    folder = Path(arguments.output_video_dir)
    reader = VideoReader(
        source,
        sample_fps=arguments.sample_fps,
        height=arguments.input_height,
        width=arguments.input_width,
        enlarge=False,
    )
    make_output_folder(folder)
    writer = VideoWriter(folder / f"{source.stem}_reconstructed.mp4", arguments.sample_fps)
    model = vidtok.load(arguments.config, arguments.ckpt, device=choose_device())
    check_chunk_size(arguments.chunk_size, model)
    torch.manual_seed(arguments.seed)
    done = 0
    with (
        reader,
        progress_bar(source.name, reader.frame_estimate) as progress,
        writer,
        autocast(arguments.precision, model),
    ):
        for pair in _pairs(model, reader, arguments):
            frames = to_uint8(pair.reconstruction)
            writer.write(np.concatenate([pair.source, frames], axis=2) if arguments.concate_input else frames)
            done += len(frames)
            progress(done)
    return writer.path


def _pairs(model: vidtok.Tokenizer, reader: VideoReader, arguments: argparse.Namespace) -> Iterator[Pair]:
    """The frames that the published script reconstructs, in its way. Latents are drawn as the configuration says."""
    continued = arguments.pad_gen_frames and model.is_causal and not arguments.read_long_video
    if arguments.pad_gen_frames and not continued:
        reason = "--read_long_video carries on from clip to clip already" if model.is_causal else "no frames are padded"
        log.warning("--pad_gen_frames has no effect: %s", reason)
    if arguments.read_long_video:
        yield from pairs(model, reader.chunks(arguments.chunk_size), arguments.chunk_size, sample=None)
        return
    length = clip_frames(arguments.chunk_size, model)
    whole = (chunk for chunk in reader.chunks(length) if len(chunk) == length)
    empty = True
    found = (
        continued_clip_pairs(model, whole, sample=None)
        if continued
        else pairs(model, whole, length, clips=True, sample=None)
    )
    for pair in found:
        empty = False
        yield pair
    if empty:
        raise VideoError(
            f"{reader.info.path} has fewer than the {length} frames of one clip at --sample_fps "
            f"{arguments.sample_fps:g}; give --read_long_video, or a smaller --chunk_size"
        )
