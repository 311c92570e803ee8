"""Options, defaults and clips of the published scripts."""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vidtok.cli.usage import COUNT, RATE, SEED, SIDE
from vidtok.errors import VideoError, VidTokError, without_truncation
from vidtok.files import make_folder
from vidtok.training.runs.arguments import SentenceParser, number

__all__ = ["SentenceParser"]

if TYPE_CHECKING:
    from vidtok.models.base import VideoModel

_NAME = "vidtok_kl_causal_488_4chn"
_TWIN = "vidtwin_structure_7_7_8_dynamics_7_8"
_SIDE, _RATE, _COUNT, _SEED = (number(option.hint) for option in (SIDE, RATE, COUNT, SEED))
_ADVICE = (
    (r"--height (\d+) --width (\d+) \(height, width\)", r"--input_height \1 --input_width \2"),
    (
        r"choose smaller frames \(--size\).*\(--dtype\)",
        "choose smaller frames (--input_height, --input_width), fewer frames at a time (--chunk_size, of VidTwin "
        "--num_frames_per_batch), or --precision autocast",
    ),
    (r"use float32 or bfloat16 \(--dtype\)", "use --precision full"),
)
"""Advice to use options of `vidtok`, and what says the same with those of the published scripts."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of VidTok's inference scripts, with the published defaults."""
    parser.add_argument("--config", default=f"configs/{_NAME}.yaml", help="the model's YAML file, or its name")
    parser.add_argument("--ckpt", default=f"checkpoints/{_NAME}.ckpt", help="its weights")
    parser.add_argument(
        "--input_height", type=_SIDE, metavar="PIXELS", default=256, help="shorter side after the resize; rows"
    )
    parser.add_argument(
        "--input_width", type=_SIDE, metavar="PIXELS", default=256, help="columns after the centre crop"
    )
    parser.add_argument(
        "--sample_fps", type=_RATE, metavar="RATE", default=30, help="frames per second to take, and to write"
    )
    parser.add_argument(
        "--chunk_size",
        type=_COUNT,
        metavar="N",
        default=16,
        help="frames of a clip (one more if causal), or computed at a time",
    )
    parser.add_argument("--read_long_video", action="store_true", help="take a video whole instead of in clips")
    parser.add_argument("--precision", choices=("full", "autocast"), default="full", help="full is float32")
    parser.add_argument(
        "--seed", type=_SEED, metavar="N", default=42, help="seed of the noise where a KL model draws its latents"
    )


def add_concate_option(parser: argparse.ArgumentParser) -> None:
    """Add `--concate_input`, which may stand alone or before a truth value."""
    parser.add_argument(
        "--concate_input", type=_boolean, nargs="?", const=True, default=True, help="input left, reconstruction right"
    )


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "t", "y", "1"):
        return True
    if text.lower() in ("false", "no", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the videos to measure on."""
    parser.add_argument("--data_dir", default="./", help="the folder; videos are looked for in all folders below it")
    parser.add_argument("--meta_path", default=None, help="a CSV file whose column `videos` names files of data_dir")


def add_vidtwin_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of VidTwin's scripts, with the published defaults."""
    parser.add_argument("--config", default=f"configs/vidtwin/{_TWIN}.yaml", help="the model's YAML file, or its name")
    parser.add_argument("--ckpt", default=f"checkpoints/{_TWIN}.ckpt", help="its weights")
    parser.add_argument(
        "--input_height", type=_SIDE, metavar="PIXELS", default=224, help="shorter side after the resize; rows"
    )
    parser.add_argument(
        "--input_width", type=_SIDE, metavar="PIXELS", default=224, help="columns after the centre crop"
    )
    parser.add_argument(
        "--sample_fps", type=_RATE, metavar="RATE", default=25, help="frames per second to take, and to write"
    )
    parser.add_argument(
        "--num_frames_per_batch",
        dest="chunk_size",
        type=_COUNT,
        metavar="N",
        default=16,
        help="frames computed at a time",
    )
    parser.add_argument("--precision", choices=("full", "autocast"), default="full", help="full is float32")
    parser.add_argument("--seed", type=_SEED, metavar="N", default=42, help="seed of the noise where latents are drawn")
    # The whole video is taken, and its last clip filled up.
    parser.set_defaults(read_long_video=True)


def published_advice(message: str) -> str:
    """`message` with such advice as the published scripts have options for."""
    message = without_truncation(message)
    for pattern, replacement in _ADVICE:
        message = re.sub(pattern, replacement, message)
    return message


def make_output_folder(folder: Path) -> None:
    """Make the folder of the results. Raises `VideoError` if it cannot be made."""
    make_folder(folder, VideoError, "give another --output_video_dir")


def check_chunk_size(chunk_size: int, model: VideoModel) -> None:
    """`VidTokError` unless `chunk_size` is a positive multiple of the model's temporal factor."""
    factor = model.config.temporal_factor
    option = "--chunk_size" if model.config.frame_size is None else "--num_frames_per_batch"
    if chunk_size < 1 or chunk_size % factor:
        raise VidTokError(
            f"{option} is {chunk_size}; expected a multiple of {factor}, the temporal factor of {model.name}"
        )


def clip_frames(chunk_size: int, model: VideoModel) -> int:
    """Frames of an independent clip."""
    return chunk_size + 1 if model.is_causal else chunk_size


def autocast(precision: str, model: VideoModel) -> contextlib.AbstractContextManager[object]:
    """The context manager to compute in: float32, or with "autocast" float16 (GPU) or bfloat16 (CPU) where safe."""
    import torch

    if precision == "full":
        return contextlib.nullcontext()
    kind = model.device.type
    return torch.autocast(kind, dtype=torch.bfloat16 if kind == "cpu" else torch.float16)
