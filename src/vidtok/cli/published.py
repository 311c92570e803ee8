"""What the published scripts share: their options, defaults and clips."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from vidtok.errors import VidTokError

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer

_NAME = "vidtok_kl_causal_488_4chn"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of both inference scripts, with the published defaults."""
    parser.add_argument("--config", default=f"configs/{_NAME}.yaml", help="the model's YAML file, or its name")
    parser.add_argument("--ckpt", default=f"checkpoints/{_NAME}.ckpt", help="its weights")
    parser.add_argument("--input_height", type=int, default=256, help="shorter side after the resize; rows")
    parser.add_argument("--input_width", type=int, default=256, help="columns after the centre crop")
    parser.add_argument("--sample_fps", type=float, default=30, help="frames per second to take, and to write")
    parser.add_argument(
        "--chunk_size", type=int, default=16, help="frames of a clip (one more if causal), or computed at a time"
    )
    parser.add_argument("--read_long_video", action="store_true", help="take a video whole instead of in clips")
    parser.add_argument("--precision", choices=("full", "autocast"), default="full", help="full is float32")
    parser.add_argument("--seed", type=int, default=42, help="of the noise where a KL model draws its latents")


def check_chunk_size(chunk_size: int, model: Tokenizer) -> None:
    """`VidTokError` unless `chunk_size` is a positive multiple of the model's temporal factor."""
    factor = model.config.temporal_factor
    if chunk_size < 1 or chunk_size % factor:
        raise VidTokError(
            f"--chunk_size is {chunk_size}; expected a multiple of {factor}, the temporal factor of {model.name}"
        )


def clip_frames(chunk_size: int, model: Tokenizer) -> int:
    """Frames of an independent clip."""
    return chunk_size + 1 if model.is_causal else chunk_size


def autocast(precision: str, model: Tokenizer) -> contextlib.AbstractContextManager[object]:
    """What to compute in: float32, or with "autocast" float16 on a GPU and bfloat16 on a CPU where that is safe."""
    import torch

    if precision == "full":
        return contextlib.nullcontext()
    kind = model.device.type
    return torch.autocast(kind, dtype=torch.bfloat16 if kind == "cpu" else torch.float16)
