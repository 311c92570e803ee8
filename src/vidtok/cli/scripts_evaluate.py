"""The published scripts that measure a model on a folder of videos."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import vidtok
from vidtok.cli.progress import progress_bar
from vidtok.cli.scripts import autocast, check_chunk_size, published_advice
from vidtok.config.dialect import frozen_parts
from vidtok.config.read import read_config
from vidtok.device import choose_device
from vidtok.errors import VideoError
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.runner import Outcome, Runner
from vidtok.evaluation.subjects import ModelSubject
from vidtok.evaluation.videos import find_videos
from vidtok.metrics.accumulate import Scores
from vidtok.metrics.networks import Networks, load_lpips
from vidtok.metrics.table import METRICS
from vidtok.metrics.unavailable import Unavailable
from vidtok.text import counted
from vidtok.zoo.checkpoint import take_weights

log = logging.getLogger(__name__)

_FIGURES = ("psnr", "ssim", "lpips")


def load_model_from_config(
    config: str | os.PathLike[str],
    ckpt: str | os.PathLike[str] | None = None,
    ignore_keys: Sequence[str] = (),
    verbose: bool = False,
) -> vidtok.Tokenizer:
    """The model of the YAML file (or model name) `config`, with the weights of `ckpt`, on the CPU.

    Without `ckpt` it is untrained. Weights whose names match any of the regular expressions `ignore_keys` from their
    start on keep their random values. Clips of version 1.1 are padded in front, as published (`padding` of
    `vidtok.load`). `verbose` prints the model and its weights on stderr. Raises `vidtok.VidTokError` if an argument
    cannot be used.
    """
    if ckpt is None or ignore_keys:
        model = vidtok.Tokenizer.from_config(config).eval()
        if ckpt is not None:
            take_weights(model, ckpt, ignore_keys)
    else:
        model = vidtok.load(config, ckpt)
        if Path(config).suffix.lower() in (".yaml", ".yml"):
            model.note_frozen(frozen_parts(read_config(config).raw["model"]["params"]))
    if verbose:
        count = sum(weight.numel() for weight in model.parameters())
        weights = "random weights" if ckpt is None else f"the weights of {ckpt}"
        sys.stderr.write(f"loaded {model.name} ({count:,} parameters) with {weights}\n")
    return model.with_padding(model.published_padding)


def evaluate(arguments: argparse.Namespace) -> str:
    """Measure a model as `arguments` say, and return the scores as text."""
    videos = find_videos(
        arguments.data_dir, arguments.meta_path, suffixes=(".mp4",), named="--data_dir", meta_named="--meta_path"
    )
    model = load_model_from_config(arguments.config, arguments.ckpt).to(choose_device())
    check_chunk_size(arguments.chunk_size, model)
    networks = Networks(load_lpips(device=model.device), Unavailable("not part of the published command"), model.device)
    runner = Runner(videos, _options(arguments, model), networks)
    # One stream of sampling noise runs through all videos, as published.
    subject = ModelSubject(model, precision=partial(autocast, arguments.precision, model), reseed=False, show=False)
    torch.manual_seed(arguments.seed)
    with progress_bar(model.name, len(videos), "videos") as progress:
        outcome = runner.measure(subject, progress)
    for video in outcome.unreadable:
        log.warning("%s", published_advice(video.reason))
    if not outcome.measured:
        raise VideoError(f"of {counted(len(videos), 'video')} of {arguments.data_dir} none could be read; see above")
    return _text(outcome, long=arguments.read_long_video)


def _options(arguments: argparse.Namespace, model: vidtok.Tokenizer) -> EvaluationOptions:
    """The published script's way to read and cut videos.

    Without `--read_long_video`, videos are cut into clips and the last one is filled up; figures count the frames that
    fill it. With it, only the whole chunks of a video are taken (a causal model's after one more frame), and videos
    without one are left out.
    """
    long, size = arguments.read_long_video, arguments.chunk_size
    return EvaluationOptions(
        height=arguments.input_height,
        width=arguments.input_width,
        enlarge=False,
        fps=arguments.sample_fps,
        clip_frames=None if long and model.is_causal else size,
        fill=not long or model.config.frame_size is not None,
        whole_chunks=(int(model.is_causal), size) if long and model.config.frame_size is None else None,
        sample=True,
        seed=arguments.seed,
    )


def _text(outcome: Outcome, *, long: bool) -> str:
    """The counts of videos and frames, then the published line of figures."""
    scores = Scores()
    for video in outcome.measured:
        scores.update(video.name, video.scores)
    frames = sum(video.frames for video in outcome.measured)
    lines = [f"videos: {len(outcome.measured)}, frames: {frames}"]
    if outcome.unreadable:
        reason = ", too short or unreadable" if long else " that cannot be read whole"
        lines.append(f"not counted: {counted(len(outcome.unreadable), 'video')}{reason}; see above")
    figures = []
    for name in _FIGURES:
        figure = scores.estimate(name)
        missing = outcome.unavailable.get(name, figure)
        measured = f"not measured: {missing}" if isinstance(figure, Unavailable) else f"{figure.mean:.4f}"
        figures.append(f"{METRICS[name].label}: {measured}")
    return "\n".join([*lines, ", ".join(figures)])
