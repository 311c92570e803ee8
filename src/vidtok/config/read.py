"""Reading configurations: files of the published schema, models by name, mappings.

The package's own short files follow the same schema (`dialect.py`), with a `base:` for the parts they share; a user's
file may do so too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidtok.config import dialect, layers, registry
from vidtok.config.budget import Budget
from vidtok.config.families import FAMILIES
from vidtok.config.recipes import recipes
from vidtok.errors import ConfigError
from vidtok.fields import fit, mapping_at, shown
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.config import DecoderConfig, decoder_from_dict
from vidtok.text import near

TEACHER = "teacher"
"""Key of `distill_config` that a run fills in."""

ConfigSource = str | PathLike[str] | Mapping[str, Any] | DictConfig


@dataclass(frozen=True)
class Configuration:
    """A configuration that was read: the model it describes, and all its sections."""

    model: ModelConfig
    name: str
    """The model's name, or the file's name without its suffix."""
    raw: dict[str, Any]
    """All sections as plain values, with bases, overrides and interpolations merged in; `"???"` for one not given."""
    ckpt_path: str | None
    """`model.params.ckpt_path`: the checkpoint whose weights training starts from."""
    decoder: DecoderConfig | None = None
    """The decoder that training makes for the model's latents; None: it trains the model itself."""

    @property
    def teacher(self) -> Mapping[str, str] | None:
        """Identity of the model that the decoder of a run was trained from (`vidtok.tokens.identity`)."""
        section = self.raw["model"]["params"].get(dialect.DISTILL) or {}
        place = f"{dialect.ENGINE}.{dialect.DISTILL}.{TEACHER}"
        if section.get(TEACHER) is None:
            return None
        found: Mapping[str, str] = fit(section[TEACHER], Mapping[str, str], place)
        return found


def read_config(path_or_name_or_mapping: ConfigSource, overrides: Sequence[str] = ()) -> Configuration:
    """The configuration in a YAML file, of a model by name, or in a mapping of the same schema.

    `overrides` are dotted, `model.params.encoder_config.params.ch=64`, and come before all else. Raises
    `ConfigError`, naming file, key and value, if anything in the model's section is unknown, contradictory or unfit.
    """
    return read_configs([path_or_name_or_mapping], overrides)


def read_configs(sources: Sequence[ConfigSource], overrides: Sequence[str] = ()) -> Configuration:
    """As `read_config`, of one or more sources merged from left to right; the first gives the name."""
    raw, name, source = read_sections(sources, overrides)
    try:
        model = model_config(raw)
        checkpoint = dialect.checkpoint_path(raw)
        decoder = _decoder(raw, model)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    return Configuration(model=model, name=name, raw=raw, ckpt_path=checkpoint, decoder=decoder)


def read_sections(sources: Sequence[ConfigSource], overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str, str]:
    """The merged sections of `sources` as plain values, unchecked; their name, and their name in errors."""
    budget = Budget()
    (config, name, source), *others = [_read(each, budget) for each in sources]
    for other, _, other_source in others:
        config = layers.merge(config, other, other_source, budget)
        source = f"{source} + {other_source}"
    if overrides:
        config = layers.merge(config, layers.from_overrides(overrides), source, budget)
    return layers.resolve(config, source), name, source


def show(path_or_name: str | PathLike[str]) -> str:
    """The whole YAML of a model, recipe or file: its bases merged in, its interpolations as written."""
    return OmegaConf.to_yaml(_read(path_or_name, Budget())[0])


def model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The model that plain sections describe, read by its family."""
    target = dialect.model_target(raw)
    return FAMILIES[target.family].read(raw, target.kind)


def _decoder(raw: Mapping[str, Any], model: ModelConfig) -> DecoderConfig | None:
    """The decoder of `model.params.distill_config`; `ConfigError` if it cannot decode the latents of `model`."""
    params = raw["model"]["params"]
    if params.get(dialect.DISTILL) is None:
        return None
    place = f"{dialect.ENGINE}.{dialect.DISTILL}"
    section = mapping_at(params, dialect.DISTILL, dialect.ENGINE)
    decoder = decoder_from_dict(mapping_at(section, "decoder", place), f"{place}.decoder")
    decoder.check_latent(model)
    return decoder


def _read(source: ConfigSource, budget: Budget) -> tuple[DictConfig, str, str]:
    """The merged layers of `source`, its name, and its name in errors."""
    if isinstance(source, Mapping | DictConfig):
        return layers.from_mapping(source, "configuration", budget), "configuration", "configuration"
    text = fspath(source)
    known, trained = registry.models(), recipes()
    if text in known:
        return layers.read_layers(known[text].config, budget), text, text
    path = Path(text).expanduser()
    if text in trained and not path.exists():
        return layers.read_layers(trained[text].path, budget), text, text
    if path.suffix.lower() in (".yaml", ".yml") or path.exists() or len(path.parts) > 1:
        return layers.read_layers(path, budget), path.stem, text
    raise ConfigError(
        f"{shown(text)} is neither a file nor the name of a model or recipe{near(text, [*known, *trained])}; "
        f"`vidtok models` lists all {len(known)} models, `vidtok recipes` the recipes for training"
    )
