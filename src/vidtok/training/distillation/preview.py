"""A linear preview of a model's latents, fitted on procedural clips in a minute, without Lightning."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vidtok.errors import TrainingError
from vidtok.files import write_whole
from vidtok.metrics.image import psnr
from vidtok.models.decoders.config import PreviewConfig
from vidtok.models.decoders.make import make_decoder
from vidtok.models.decoders.preview import PreviewDecoder
from vidtok.tokenizer import load
from vidtok.training.distillation.fitting import FITTING_CLIPS, fit, synthetic_pairs

FACTORS_FILE = "latent_rgb.json"
_MEASURED = 4
_SIZE = 96


class Preview(NamedTuple):
    """A preview that was written."""

    folder: Path
    psnr: float
    """Of `clips` procedural clips, in dB."""
    full_psnr: float
    """Of the model's own decoder on the same clips."""
    clips: int


def write_preview(model: str | PathLike[str], folder: str | PathLike[str], *, clips: int = FITTING_CLIPS) -> Preview:
    """Fit a preview of the model that `model` names, and write it to `folder` as a decoder of its own.

    `latent_rgb.json` beside it has the same for one colour a latent position. Raises `ConfigError` if the latent has
    several parts, `TrainingError` if it is not finite, and otherwise as `vidtok.load`.
    """
    teacher = load(model)
    own = make_decoder(PreviewConfig(), teacher.config)
    assert isinstance(own, PreviewDecoder)
    pairs = [*synthetic_pairs(teacher, clips + _MEASURED, _SIZE)]
    if not all(bool(z.isfinite().all()) for z, _ in pairs):
        raise TrainingError(f"latents of {teacher.name} overflow: they are not finite; expected a sound model")
    fit(own.linear, own.patch, pairs[_MEASURED:])
    small = teacher.with_decoder(own.eval(), f"{teacher.name}-preview")
    own_psnr, full_psnr = (_psnr(decoder.decode, pairs[:_MEASURED]) for decoder in (small, teacher))
    small.name = small.decoder_name
    written = small.save_pretrained(folder, parts="decoder")
    write_whole(written / FACTORS_FILE, json.dumps(_factors(own), indent=1) + "\n", TrainingError)
    return Preview(written, own_psnr, full_psnr, _MEASURED)


def _psnr(decode: object, pairs: list[tuple[Tensor, Tensor]]) -> float:
    assert callable(decode)
    with torch.no_grad():
        found = [psnr(decode(z).clamp(-1, 1), video).mean() for z, video in pairs]
    return float(torch.stack(found).mean())


def _factors(own: PreviewDecoder) -> dict[str, object]:
    """The mean of the projection over the pixels of a position, for each channel, and its constant."""
    layer = own.linear.map
    weight = layer.weight.detach().flatten(1)  # (frames, side, side, colours, patch, patch) x channels
    values = own.patch**2
    by_colour = weight.view(own.linear.frames, own.linear.side**2, 3, values, -1).mean((0, 1, 3))  # (3, z)
    bias = layer.bias.detach().view(own.linear.frames, own.linear.side**2, 3, values).mean((0, 1, 3))
    return {"factors": by_colour.T.tolist(), "bias": bias.tolist(), "range": [-1, 1]}
