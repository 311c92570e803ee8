"""The module of a distillation run from its configuration, and its start: teacher, checks, projection."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vidtok.config.dialect import DISTILL, ENGINE
from vidtok.config.read import TEACHER, Configuration
from vidtok.errors import ConfigError, TokenFileError
from vidtok.models.decoders.base import OwnDecoder
from vidtok.models.decoders.make import make_decoder
from vidtok.tokenizer import Part, Tokenizer, load
from vidtok.tokens import TokenFile
from vidtok.tokens.identity import check_layout, check_model, config_hash, origin_of
from vidtok.training.config import TrainingConfig
from vidtok.training.data.config import DataConfig, StoredConfig
from vidtok.training.data.order import Place
from vidtok.training.data.stored import StoredSource, find_token_files
from vidtok.training.distillation.config import DistillConfig
from vidtok.training.distillation.fitting import FITTING_CLIPS, Pair, synthetic_pairs
from vidtok.training.distillation.losses import DistillObjective
from vidtok.training.distillation.module import DistillModule, check_finite
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.runs.checkpoints import weights_of
from vidtok.zoo.checkpoint import load_state, read_files

log = logging.getLogger(__name__)

_PROBE = (1, 4, 4)
"""Latent frames, rows and columns of the latent by which the features' shapes are found."""


def build_distillation(
    config: Configuration, settings: TrainingConfig, objective: ObjectiveConfig, data: DataConfig, **named: Any
) -> DistillModule:
    """The module that trains `config.decoder`; the teacher's identity is put into the raw sections of `config`.

    `named` are the further arguments of the module. Raises `ConfigError` without a teacher or with one of another
    configuration, `TrainingError` if its latents overflow, and `TokenFileError` if stored latents are not its.
    """
    assert config.decoder is not None
    distill = DistillConfig.from_raw(config.raw)
    settings = _settings(settings)
    stored = [part for part in (data.train, data.validation, data.test) if isinstance(part, StoredConfig)]
    if stored and len(stored) < len([part for part in (data.train, data.validation, data.test) if part is not None]):
        raise ConfigError(
            "data.params has token files and videos or clips beside each other; expected one kind in all parts, or null"
        )
    teacher = load_teacher(config, settings, "decoder" if stored else None)
    for part in stored:
        _check_files(find_token_files(part), teacher)
    config.raw["model"]["params"][DISTILL][TEACHER] = origin_of(teacher)
    if not stored:
        _check_latents(teacher)
    own = make_decoder(config.decoder, config.model)
    shapes = _shapes(teacher, own)
    return DistillModule(teacher, own, DistillObjective(objective, distill, *shapes), settings, **named)


def load_teacher(config: Configuration, settings: TrainingConfig, parts: Part | None) -> Tokenizer:
    """The model that `ckpt_path` leads to. Raises `ConfigError` if there is none, or it is another than `config`."""
    source = settings.ckpt_path
    if source is None:
        raise ConfigError(
            f"{ENGINE}.ckpt_path is null, and {ENGINE}.{DISTILL} asks for a teacher; expected the model whose latents "
            "the decoder is for: its name, its folder, or a checkpoint"
        )
    if Path(source).expanduser().is_file():
        teacher = Tokenizer(config.model, name=config.name).eval()
        load_state(teacher, read_files(weights_of(source)), source)
    else:
        teacher = load(source, parts=parts)
    own, wanted = config_hash(teacher.config), config_hash(config.model)
    if own != wanted:
        raise ConfigError(
            f"{ENGINE}.ckpt_path leads to {teacher.name}, a model of configuration {own[:12]}; expected one of this "
            f"run's, {config.name} of configuration {wanted[:12]}"
        )
    return teacher.requires_grad_(False)


def fitting_pairs(module: DistillModule, data: DataConfig, seed: int) -> Iterator[Pair]:
    """Latents and videos to fit the projection on: of procedural clips, or without an encoder of stored latents."""
    if not isinstance(data.train, StoredConfig):
        yield from synthetic_pairs(module.teacher)
        return
    source = StoredSource(find_token_files(data.train), data.train, seed)
    for number in range(FITTING_CLIPS):
        loaded = source.load([Place(0, number, number % len(source.files))])
        if loaded.batch is not None:
            batch = module.on_after_batch_transfer(loaded.batch, 0)
            check_finite(batch["latent"], f"latents of {module.teacher.name}", ", ".join(batch["name"]))
            yield batch["latent"], batch["video"]


def _settings(settings: TrainingConfig) -> TrainingConfig:
    if settings.fix_decoder or settings.guide_steps:
        raise ConfigError(
            f"{ENGINE} has fix_decoder or guide_steps, and {DISTILL} trains the decoder alone; leave them out"
        )
    if settings.compile_model:
        log.warning("%s.compile_model has no effect with %s", ENGINE, DISTILL)
    return dataclasses.replace(settings, fix_encoder=True, compile_model=False)


def _check_files(files: list[str], teacher: Tokenizer) -> None:
    """Raise `TokenFileError` if a file is of another model; damaged ones are counted when they are read."""
    for path in files:
        try:
            file = TokenFile(path)
        except (TokenFileError, OSError):
            continue
        with file:
            check_model(file.header.model, teacher, path)
            check_layout(file.header.latent, teacher, path)


def _check_latents(teacher: Tokenizer) -> None:
    z, _ = next(synthetic_pairs(teacher, 1, 64))
    check_finite(z, f"latents of {teacher.name}", "a procedural clip")
    with torch.no_grad():
        check_finite(teacher.decode(z), f"videos of {teacher.name}", "a procedural clip")


@torch.no_grad()
def _shapes(teacher: Tokenizer, own: OwnDecoder) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The shapes of the features of both decoders for one small latent."""
    z = torch.zeros(1, teacher.z_channels, 1 + _PROBE[0], *_PROBE[1:])
    found = (decoder(z)[1] for decoder in (own.stages, teacher.decoder_stages))
    own_shapes, shapes = ([tuple(feature.shape) for feature in features] for features in found)
    return own_shapes, shapes
