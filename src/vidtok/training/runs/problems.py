"""All problems of a run's configuration at once, before PyTorch and Lightning are loaded.

Each section is read as the run will read it. Where that fails, the error is noted, the value that it names is taken out
of the section, and the rest is read again.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vidtok.config.layers import allowing_bases, without_warnings
from vidtok.config.read import ConfigSource, model_config, read_sections
from vidtok.config.registry import models
from vidtok.errors import ConfigError, VidTokError
from vidtok.training.config import TrainingConfig
from vidtok.training.data.config import PARTS, DataConfig, VideosConfig
from vidtok.training.objective.config import read_objective
from vidtok.training.runs.arguments import TrainArguments
from vidtok.training.runs.config import RunConfig
from vidtok.zoo.runs import is_run, run_configs

_MOST = 20
_PATH = re.compile(r"(?:.*?: )?([A-Za-z_]\w*(?:\.\w+)+)(?=[ :])")
"""The dotted path that an error begins with, behind the name of its file."""


def check_configuration(arguments: TrainArguments) -> None:
    """Raise `ConfigError` with all problems of the run's configuration; nothing is raised for what shows only later."""
    sources: list[ConfigSource] = [*arguments.base]
    resumed = Path(arguments.resume).expanduser() if arguments.resume else None
    if not sources and resumed is not None and is_run(resumed):
        sources = [*run_configs(resumed)]
    if not sources:
        return
    options = [f"lightning.trainer.{key}={json.dumps(value)}" for key, value in arguments.trainer.items()]
    with without_warnings("vidtok"), allowing_bases(*arguments.allow_base):
        raw, _, source = read_sections(sources, [*arguments.overrides, *options])
        found = problems(raw, source, fresh=resumed is None)
    if len(found) == 1:
        raise ConfigError(found[0])
    if found:
        raise ConfigError(f"the configuration has {len(found)} problems:\n" + "\n".join(f"  {each}" for each in found))


def problems(raw: Mapping[str, Any], source: str, *, fresh: bool = True) -> list[str]:
    """The problems of the sections `raw`, which `source` names, one sentence each; `fresh` for a run's first start."""

    def model(sections: dict[str, Any]) -> None:
        try:
            model_config(sections)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error

    def settings(sections: dict[str, Any]) -> None:
        path = TrainingConfig.from_raw(sections).ckpt_path
        if fresh and path is not None and path not in models() and not Path(path).expanduser().exists():
            raise ConfigError(
                f"model.params.ckpt_path: {path} does not exist; expected a checkpoint, a run's folder or a model's "
                "name"
            )

    def data(sections: dict[str, Any]) -> None:
        if "data" not in sections:
            raise ConfigError("data is missing; expected a section that says what to train on")
        config = DataConfig.from_section(sections["data"])
        missing.extend(each for each in _missing_places(config) if each not in missing)

    missing: list[str] = []
    readers = (model, settings, _read_objective, RunConfig.from_raw, data)
    found = [problem for read in readers for problem in _problems_of(read, raw)]
    # A decoder's section is often the encoder's, with its problems.
    doubled = [each for each in found if each.replace("decoder_config", "encoder_config") in {*found} - {each}]
    return [each for each in dict.fromkeys([*found, *missing]) if each not in doubled]


def _read_objective(sections: dict[str, Any]) -> None:
    read_objective(sections["model"]["params"])


def _missing_places(config: DataConfig) -> Iterator[str]:
    """Problems with folders and lists of videos that do not exist."""
    for part in PARTS:
        clips = getattr(config, part)
        if isinstance(clips, VideosConfig):
            for key, path in (("data_dir", clips.data_dir), ("meta_path", clips.meta_path)):
                if path is not None and not set("*?[{") & set(path) and not os.path.exists(path):
                    yield f"{clips.place}.{key}: {path} does not exist; check the path"


def _problems_of(read: Callable[[dict[str, Any]], object], raw: Mapping[str, Any]) -> list[str]:
    """The problems that `read` finds in `raw`, one after the other."""
    sections = copy.deepcopy(dict(raw))
    found: list[str] = []
    removed: set[str] = set()
    while len(found) < _MOST:
        try:
            read(sections)
        except VidTokError as error:
            message = str(error)
            match = _PATH.match(message)
            if match is not None and match[1] in removed:  # it is missing now
                return found
            found.append(message)
            if match is None or not _remove(sections, match[1]):
                return found
            removed.add(match[1])
        except Exception:  # a section too odd to be read without a value that was taken out
            return found
        else:
            return found
    return found


def _remove(sections: dict[str, Any], path: str) -> bool:
    """Take the value at the dotted `path` out of `sections`; False if there is none."""
    *parents, key = path.split(".")
    place: Any = sections
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict) or key not in place:
        return False
    del place[key]
    return True
