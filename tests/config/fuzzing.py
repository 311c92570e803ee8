"""Reads many odd configurations: `python -m tests.config.fuzzing COUNT SEED FOLDER`.

Each is a YAML file of the family, or a small one with bases and interpolations, with values exchanged for odd ones or
changed as text. Reading may give an error of ours of one line or a configuration, and nothing else; of some that are
accepted, the model is built, without values. Prints, as JSON, how often which happened, the longest time and the most
memory.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from fuzz import Figures, mutated
from vidtok import Tokenizer
from vidtok.config.read import read_config, show
from vidtok.config.registry import models
from vidtok.errors import ConfigError, VidTokError

NAMES = ("vidtok_kl_causal_488_4chn", "vidtok_fsq_causal_888_32768_v1_1", "vidtok_kl_noncausal_41616_4chn",
         "vidtwin_structure_7_7_8_dynamics_7_8")  # fmt: skip
_SMALL = """
base: [vidtok_kl_causal_488_4chn_v1_1, part.yaml]
model:
  params:
    encoder_config:
      params: {ch: 8, ch_mult: [1, 1, 1, 1], num_res_blocks: 1}
    loss_config: {params: {disc_weight: '${data.params.batch_size}'}}
lightning: {trainer: {max_steps: '${model.params.encoder_config.params.ch}${data.params.batch_size}'}}
"""
_PART = "data: {params: {batch_size: 4, train: &t {target: vidtok.data.vidtok.VidTokDataset}, validation: *t}}\n"
_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 10**30, 10**4000, 1e308, float("inf"), float("nan"), 0.5, "", "???", "x" * 5000, [], [[]],
    {}, [1, 1], [0] * 400, [10**9] * 20, ["fsq"], {"target": "os.system"}, {"a": {"b": [{}]}}, "${model}", "${.}",
    "${model.params}", "${model.params.encoder_config.params}", "${oc.env:HOME}", "${a}${b}", "../part.yaml",
    "${model.params.monitor}" * 50, "torch.nn.Identity", ["part.yaml"] * 70, "vidtok_kl_causal_488_4chn", 64, 4096,
    16384, 256, 2**31,
)  # fmt: skip


def exchanged(values: Any, draw: random.Random) -> Any:
    """`values` with one to three of its values, at any depth, exchanged for odd ones, left out or moved."""
    values = copy.deepcopy(values)
    for _ in range(draw.randint(1, 3)):
        place = values
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.85:
                place = place[key]
                continue
            kind = draw.random()
            if kind < 0.8:
                place[key] = copy.deepcopy(draw.choice(_ODD))
            elif kind < 0.9:
                del place[key]
            elif isinstance(place, dict):
                place[draw.choice(["base", "model", "target", "params", "x", str(key) + "s"])] = place.pop(key)
            break
    return values


def outcome(path: Path, *, built: bool) -> str:
    """What reading the file at `path` gives; with `built`, the model that it describes is built as well."""
    try:
        model = read_config(path).model
    except ConfigError as error:
        return refusal(error)
    if built:
        try:
            with torch.device("meta"):
                Tokenizer(model)
        except VidTokError as error:
            return refusal(error)
        return "built"
    return "read"


def refusal(error: VidTokError) -> str:
    """The outcome of an error, which has one line, and not a long one."""
    assert "\n" not in str(error), str(error)
    assert len(str(error)) < 1500, str(error)
    return "refused"


def main(count: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    (folder / "part.yaml").write_text(_PART)
    texts = [_SMALL] * 4 + [show(name) for name in NAMES] + [models()[name].config.read_text() for name in NAMES]
    draw = random.Random(seed)
    path = folder / "fuzzed.yaml"
    path.write_text(_SMALL)
    assert outcome(path, built=True) == "built"
    assert outcome(models()[NAMES[3]].config, built=True) == "built"
    figures = Figures(folder)
    for _ in range(count):
        text = draw.choice(texts)
        if draw.random() < 0.6:
            path.write_text(yaml.safe_dump(exchanged(yaml.safe_load(text), draw)))
        else:
            path.write_bytes(mutated(text.encode(), draw))
        built = text is _SMALL and draw.random() < 0.2
        figures.take(lambda built=built: outcome(path, built=built), path)  # type: ignore[misc]
    figures.show()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
