"""`vidtok distill`: a distillation from a model's name to the folder of its decoder."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from vidtok.config.dialect import DISTILL
from vidtok.config.layers import to_yaml
from vidtok.config.read import read_config
from vidtok.config.recipes import recipes
from vidtok.errors import ConfigError, TrainingError
from vidtok.files import make_folder, write_whole
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.models.config import ModelConfig
from vidtok.text import shortened
from vidtok.tokenizer import load
from vidtok.training.runs.arguments import TrainArguments
from vidtok.training.runs.run import run
from vidtok.video.library import TOKEN_SUFFIX, find_files
from vidtok.zoo.source import Located, locate

log = logging.getLogger(__name__)

RUN = "run"
"""The run's folder in the decoder's."""
CONFIG = "distill.yaml"
_WIDTHS = (1, 3, 4, 4, 4)


def distilled(
    model: str | PathLike[str], folder: str | PathLike[str], *, data: Path | None = None, recipe: str = "distill",
    steps: int | None = None, name: str | None = None, overrides: Sequence[str] = (), quiet: bool = False,
) -> Path:  # fmt: skip
    """Train a decoder for the latents of `model`, or go on with it, and write it to `folder`, which is returned.

    The run is in `folder`/run, its configuration in `folder`/distill.yaml. `data` are videos or token files; None:
    procedural clips. Raises as `vidtok.training.runs.run.run` does.
    """
    found = locate(model)
    folder = Path(folder).expanduser()
    path = Path(fspath(model)).expanduser()
    values = _configuration(found, str(path.resolve()) if path.exists() else fspath(model), data, recipe)
    config = read_config(values, overrides)  # checked before anything is written
    assert config.decoder is not None
    make_folder(folder, TrainingError, "give another folder with -o")
    write_whole(folder / CONFIG, to_yaml(values), TrainingError)
    arguments = TrainArguments(
        base=[str(folder / CONFIG)], overrides=list(overrides), logdir=str(folder), name=RUN, no_date=True,
        trainer={} if steps is None else {"max_steps": steps}, quiet=quiet,
    )  # fmt: skip
    trained = run(arguments)
    decoder = load(trained, parts="decoder", ema=config.raw["model"]["params"].get("ema_decay") is not None)
    decoder.name = name or f"{found.name}-fast"
    written = decoder.save_pretrained(folder, parts="decoder")
    write_whole(folder / "README.md", _card(decoder.name, found, data, recipe, overrides, decoder), TrainingError)
    return written


def _configuration(found: Located, source: str, data: Path | None, recipe: str) -> dict[str, Any]:
    """The whole configuration of the run as plain values: the model natively, the recipe, the data."""
    known = recipes()
    if recipe not in known and not Path(recipe).is_file():
        raise ConfigError(f"recipe {recipe} is neither a file nor a recipe; `vidtok recipes` lists them")
    from omegaconf import OmegaConf

    from vidtok.config.layers import read_layers

    layers: Any = OmegaConf.to_container(read_layers(known[recipe].path if recipe in known else Path(recipe)))
    values: dict[str, Any] = layers
    params = values.get("model", {}).get("params", {})
    if params.get(DISTILL) is None:
        raise ConfigError(f"recipe {recipe} has no model.params.{DISTILL}; expected a recipe for a decoder")
    values["model"] = {**values["model"], "target": found.config.family}
    values["model"]["params"] = {**params, "config": found.config.to_dict(), "ckpt_path": source}
    _fit_levels(params[DISTILL]["decoder"], found.config)
    loss = params.get("loss_config", {}).get("params", {})
    if loss.get("perceptual_weight") and not _has_lpips(loss.get("perceptual_weights")):
        loss["perceptual_weight"] = 0.0
    if data is not None:
        _take_data(values["data"]["params"], values, data)
    return values


def _has_lpips(weights: str | list[str] | None) -> bool:
    """True if LPIPS's weights are at hand; without them, the loss leaves it out."""
    try:
        LPIPS.from_weights(weights)
    except LPIPSWeightsError as error:
        log.warning(
            "training goes without LPIPS, which `vidtok metrics install lpips` gets (%s)", shortened(str(error))
        )
        return False
    return True


def _fit_levels(decoder: dict[str, Any], latent: ModelConfig) -> None:
    """Give the recipe's decoder as many levels as the latent's spatial factor asks for."""
    if decoder.get("kind") != "fast":
        return
    patch, factor = decoder.get("patch_size", 4), latent.spatial_factor
    levels = max(1, (factor // patch).bit_length())
    if len(decoder["ch_mult"]) != levels and patch << (levels - 1) == factor:
        decoder["ch_mult"] = list(_WIDTHS[:levels])
        counts = decoder.get("num_res_blocks", 3)
        decoder["num_res_blocks"] = counts if isinstance(counts, int) else max(counts)


def _take_data(params: dict[str, Any], values: dict[str, Any], data: Path) -> None:
    """Put the videos or token files `data` in place of the recipe's clips, for training and validation."""
    if not data.exists():
        raise ConfigError(f"--data is {data}, which does not exist; expected a folder of videos or token files")
    stored = data.suffix == TOKEN_SUFFIX or (data.is_dir() and bool(find_files(str(data), (TOKEN_SUFFIX,))))
    for part in ("train", "validation"):
        video = params[part]["params"]["video_params"]
        kind = "vidtok.data.tokens.TokenClips" if stored else "vidtok.data.vidtok.VidTokDataset"
        if stored:
            video = {key: value for key, value in video.items() if key not in ("sample_fps", "start_index")}
        params[part] = {"target": kind, "params": {"data_dir": str(data.resolve()), "video_params": video}}
    if stored:
        params["validation"]["params"]["video_params"] = dict(params["train"]["params"]["video_params"])
        values["lightning"]["callbacks"] = {}


def _card(name: str, found: Located, data: Path | None, recipe: str, overrides: Sequence[str], decoder: Any) -> str:
    count = sum(weight.numel() for weight in decoder.parameters())
    options = shlex.join([*([] if data is None else ["--data", str(data)]), *overrides])
    return f"""# {name}

A decoder for latents of `{found.name}`, {count / 1e6:.2f} million parameters, trained from that model's own decoder.
Encoder and bottleneck are unchanged. `vidtok.load("{found.name}", decoder=FOLDER)` and `--decoder FOLDER` take it. A
token file made with the model decodes with either.

| | |
|---|---|
| data | {"procedural clips" if data is None else data.name} |
| recipe | `{recipe}`, whole in [{CONFIG}]({CONFIG}) |
| command | `vidtok distill {found.name} -o FOLDER {options}` |
"""
