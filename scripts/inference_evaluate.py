"""The published command to measure a model on a folder of videos. See docs/published-scripts.md."""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import vidtok
from vidtok.cli.guard import guarded
from vidtok.cli.published import add_model_options, autocast, check_chunk_size, clip_frames
from vidtok.cli.report import progress_bar
from vidtok.device import choose_device
from vidtok.errors import VideoError
from vidtok.metrics.image import psnr, ssim
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.roundtrip import Pair, clip_pairs, stream_pairs
from vidtok.video import Pixels, VideoReader, to_float

log = logging.getLogger(__name__)

_BATCH = 16


def load_model_from_config(
    config: str | os.PathLike[str], ckpt: str | os.PathLike[str], verbose: bool = False
) -> vidtok.Tokenizer:
    """The model that the YAML file (or model name) `config` describes, with the weights of `ckpt`, on the CPU.

    `verbose` says on stderr what was loaded. Raises `vidtok.VidTokError` if either cannot be used; see `vidtok.load`.
    """
    model = vidtok.load(config, ckpt)
    if verbose:
        count = sum(weight.numel() for weight in model.parameters())
        print(f"loaded {model.name} ({count:,} parameters) with the weights of {ckpt}", file=sys.stderr)
    return model


@dataclass
class Scores:
    """Sums over frames; every frame of every video counts the same, as in the published figures."""

    frames: int = 0
    psnr: float = 0.0
    ssim: float = 0.0
    lpips: float = 0.0

    def add(self, pair: Pair, lpips: LPIPS | None) -> None:
        device = pair.reconstruction.device
        for start in range(0, len(pair.source), _BATCH):
            target = to_float(pair.source[start : start + _BATCH]).to(device)
            result = pair.reconstruction[:, :, start : start + _BATCH]
            with torch.autocast(device.type, enabled=False):
                self.frames += target.shape[2]
                self.psnr += psnr(result, target).sum().item()
                self.ssim += ssim(result, target).sum().item()
                if lpips is not None:
                    self.lpips += lpips(result, target).sum().item()

    def __iadd__(self, other: Scores) -> Scores:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="PSNR, SSIM and LPIPS of a model over all .mp4 files of a folder.")
    add_model_options(parser)
    parser.add_argument("--data_dir", default="./", help="the folder; videos are looked for in all folders below it")
    parser.add_argument("--meta_path", default=None, help="a CSV file whose column `videos` names files of data_dir")
    return parser.parse_args(argv)


def evaluate(arguments: argparse.Namespace) -> str:
    """Measure what `arguments` say, and return the scores as text."""
    videos = find_videos(Path(arguments.data_dir), arguments.meta_path)
    model = load_model_from_config(arguments.config, arguments.ckpt).to(choose_device())
    check_chunk_size(arguments.chunk_size, model)
    lpips, lacking = _load_lpips(model.device)
    torch.manual_seed(arguments.seed)
    scores, unreadable = Scores(), 0
    for number, video in enumerate(videos, 1):
        try:
            scores += _measure(model, video, f"{number}/{len(videos)}", lpips, arguments)
        except VideoError as error:
            unreadable += 1
            log.warning("%s", error)
    if not scores.frames:
        raise VideoError(f"none of the {len(videos)} videos of {arguments.data_dir} could be read; see above")
    lines = [f"videos: {len(videos) - unreadable}, frames: {scores.frames}"]
    if unreadable:
        lines.append(f"not counted: {unreadable} videos that cannot be read whole; see above")
    measured = f"{scores.lpips / scores.frames:.4f}" if lpips is not None else f"not measured: {lacking}"
    lines += [f"PSNR: {scores.psnr / scores.frames:.4f}", f"SSIM: {scores.ssim / scores.frames:.4f}"]
    return "\n".join([*lines, f"LPIPS: {measured}"])


def _measure(
    model: vidtok.Tokenizer, video: Path, title: str, lpips: LPIPS | None, arguments: argparse.Namespace
) -> Scores:
    """The scores of one video. Raises `VideoError` if it cannot be read to its end."""
    scores, done = Scores(), 0
    reader = VideoReader(
        video, sample_fps=arguments.sample_fps, height=arguments.input_height, width=arguments.input_width
    )
    with (
        reader,
        progress_bar(title, reader.frame_estimate) as progress,
        autocast(arguments.precision, model),
    ):
        for pair in _pairs(model, reader, arguments):
            scores.add(pair, lpips)
            done += len(pair.source)
            progress(done)
    return scores


def find_videos(data_dir: Path, meta_path: str | None) -> list[Path]:
    """The .mp4 files below `data_dir`, or those that the meta file names. `VideoError` if there are none."""
    if not data_dir.is_dir():
        raise VideoError(f"--data_dir {data_dir} is not a folder; expected one with .mp4 files below it")
    if meta_path is None:
        found = sorted(path for path in data_dir.rglob("*.mp4") if path.is_file())
        if not found:
            raise VideoError(f"there is no .mp4 file below --data_dir {data_dir}; give a folder with videos")
        return found
    try:
        with open(meta_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VideoError(f"--meta_path {meta_path} cannot be read: {error}; expected a CSV file") from error
    names = [row.get("videos") for row in rows]
    if not names or not all(names):
        raise VideoError(f"--meta_path {meta_path} names no videos; expected a column `videos`, filled in every row")
    return [data_dir / name for name in names if name]


def _pairs(model: vidtok.Tokenizer, reader: VideoReader, arguments: argparse.Namespace) -> Iterator[Pair]:
    if arguments.read_long_video and model.is_causal:
        return stream_pairs(model, reader.chunks(arguments.chunk_size), sample=None)
    length = clip_frames(arguments.chunk_size, model)
    return clip_pairs(model, (_filled(clip, length) for clip in reader.chunks(length)), sample=None)


def _filled(clip: Pixels, length: int) -> Pixels:
    """`clip` with its last frame repeated until there are `length`; the published figures count these frames too."""
    return np.concatenate([clip, np.repeat(clip[-1:], length - len(clip), axis=0)])


def _load_lpips(device: torch.device) -> tuple[LPIPS | None, str]:
    """LPIPS, or why it cannot be measured."""
    try:
        return LPIPS.from_weights().to(device), ""
    except LPIPSWeightsError as error:
        return None, str(error)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return guarded(lambda: print(evaluate(arguments)))


if __name__ == "__main__":
    sys.exit(main())
