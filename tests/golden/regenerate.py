"""Measure the golden files of the VidTok family anew, on a checkout of the published implementation.

    python tests/golden/regenerate.py --original PATH [--output FOLDER]

Run it in the environment that the original's README sets up: the package called `vidtok` is the checkout's, and nothing
of this project but `weights.py` is imported. For every configuration in `PATH/configs`, it writes
`models/NAME.safetensors`, and for those of `GROUPNORM` also `models/NAME-groupnorm.safetensors`; for all of them
together, `state_dict/vidtok.json`. No checkpoint is needed: every parameter gets its stand-in value.

Of the original these are used: `load_model_from_config(config, None)` of `scripts/inference_evaluate.py`;
`model.encode(video, return_reg_log=True)`, `model.decode(z)` and the module `model.regularization`; the keys of its
configurations and `torch.nn.Identity` as an objective, so that neither LPIPS nor a discriminator is built.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from weights import clip, stand_in

HERE = Path(__file__).resolve().parent
FOLDERS = (".", "vidtok_v1_1")
FULL_WIDTH, WIDTH = 128, 32
SEED = 0


@dataclass(frozen=True)
class Case:
    """One golden file: a configuration of the original, made small, and the shape of a clip (B, 3, T, H, W)."""

    config: Path
    """The YAML file, relative to `configs/`."""
    width: int
    norm_type: str
    dtype: str
    clip: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.config.stem + ("-groupnorm" if self.norm_type == "groupnorm" else "")


GROUPNORM = {
    # Few channels of one position are normalised alone in causal models: sharp in float64 and at full width only.
    "vidtok_kl_causal_488_4chn": (FULL_WIDTH, "float64", (1, 3, 5, 16, 16)),
    "vidtok_fsq_causal_488_32768_v1_1": (FULL_WIDTH, "float64", (1, 3, 5, 16, 16)),
    "vidtok_kl_noncausal_488_4chn": (WIDTH, "float32", (1, 3, 16, 32, 48)),
}
"""Configurations that are measured with group norm too: width, dtype and clip."""


def configs_of(original: Path) -> list[Path]:
    """The family's YAML files in the checkout, relative to `configs/`, by name."""
    root = original / "configs"
    found = [path.relative_to(root) for folder in FOLDERS for path in (root / folder).glob("vidtok_*.yaml")]
    if not found:
        raise SystemExit(f"{root} holds no vidtok_*.yaml; expected a checkout of the original at --original")
    return sorted(found, key=lambda path: path.stem)


def cases_of(config: Path) -> list[Case]:
    """The golden files that are measured on the configuration `config`."""
    frames = 16 if "_noncausal_" in config.stem else 17
    cases = [Case(config, WIDTH, "layernorm", "float32", (1, 3, frames, 32, 48))]
    if config.stem in GROUPNORM:
        width, dtype, shape = GROUPNORM[config.stem]
        cases.append(Case(config, width, "groupnorm", dtype, shape))
    return cases


def build(original: Path, config: Path, width: int, norm_type: str) -> Any:
    """The original's model of `config` at another width, without an objective."""
    evaluate = importlib.import_module("scripts.inference_evaluate")
    values = OmegaConf.load(original / "configs" / config)
    params = values.model.params
    for part in ("encoder_config", "decoder_config"):  # the second repeats the first by interpolation, or has its own
        if not OmegaConf.is_interpolation(params[part], "params"):
            params[part].params.ch = width
            params[part].params.norm_type = norm_type
    if params.regularizer_config.target.endswith("DiagonalGaussianRegularizer"):
        OmegaConf.update(params, "regularizer_config.params.sample", False, force_add=True)
    params.loss_config = {"target": "torch.nn.Identity"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / config.name
        OmegaConf.save(values, path)
        return evaluate.load_model_from_config(str(path), None)


def fill(model: torch.nn.Module) -> None:
    """Give every parameter its stand-in value."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(stand_in(name, tuple(parameter.shape), SEED)))


def measure(original: Path, case: Case) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a golden file."""
    dtype = getattr(torch, case.dtype)
    model = build(original, case.config, case.width, case.norm_type).eval()
    fill(model)
    model.to(dtype)
    video = torch.from_numpy(clip("clip", case.clip, SEED)).to(dtype)
    moments = []
    model.regularization.register_forward_pre_hook(lambda _, inputs: moments.append(inputs[0].detach().clone()))
    with torch.no_grad():
        z, log = model.encode(padded(video, original, case.config), return_reg_log=True)
        decoded = model.decode(z)
    tensors = {"moments": moments[0], "z": z, "recon": decoded[:, :, -video.shape[2] :]}
    if "indices" in log:
        tensors["indices"] = log["indices"].to(torch.int32)
    elif case.dtype == "float32":  # the sums of the float64 file say nothing that its moments do not
        tensors["kl_loss"] = log["kl_loss"]
    metadata = {
        "config": case.config.as_posix(),
        "width": str(case.width),
        "norm_type": case.norm_type,
        "seed": str(SEED),
        "clip": json.dumps(list(case.clip)),
        "frames_before_crop": str(decoded.shape[2]),
    }
    if case.dtype != "float32":
        metadata["dtype"] = case.dtype
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata


def padded(video: torch.Tensor, original: Path, config: Path) -> torch.Tensor:
    """The clip as version 1.1 encodes it: copies of its first frame in front, to a multiple of the temporal factor."""
    if not config.stem.endswith("_v1_1"):
        return video
    params = OmegaConf.load(original / "configs" / config).model.params.encoder_config.params
    missing = -video.shape[2] % int(params.time_downsample_factor)
    return torch.cat([video[:, :, :1]] * missing + [video], dim=2)


def shapes_of(original: Path, config: Path) -> dict[str, list[int]]:
    """Name and shape of every parameter of encoder and decoder, at full width."""
    model = build(original, config, FULL_WIDTH, "layernorm")
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}


def layouts(shapes: dict[str, dict[str, list[int]]]) -> str:
    """JSON of `shapes` by model, with what models of one compression share said once, in the first one's words."""
    shared: dict[str, dict[str, list[int]]] = {}
    models = {}
    for name, whole in shapes.items():
        layout = "_".join(re.findall(r"(causal|noncausal)_(\d+)", name)[0])
        first = shared.setdefault(layout, whole)
        if first.keys() != whole.keys():
            raise SystemExit(f"{name} has other parameters than the first model of layout {layout}; expected the same")
        models[name] = {"layout": layout, "shapes": {key: s for key, s in whole.items() if s != first[key]}}
    entries = {name: lines(whole) for name, whole in shared.items()}
    return f'{{"layouts": {lines(entries, raw=True)}, "models": {lines(models)}}}\n'


def lines(values: dict[str, Any], *, raw: bool = False) -> str:
    """A JSON object with one key a line; with `raw`, values are JSON already."""
    rows = [f"{json.dumps(key)}: {value if raw else json.dumps(value)}" for key, value in values.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def use(original: Path) -> None:
    """Have `vidtok` and `scripts` mean those of the checkout."""
    sys.path.insert(0, str(original))
    package = importlib.import_module("vidtok")
    if original not in Path(package.__file__ or "").resolve().parents:
        raise SystemExit(f"`import vidtok` gives {package.__file__}; expected the package in {original}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--original", type=Path, required=True, help="a checkout of the published implementation")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of models/ and state_dict/")
    arguments = parser.parse_args()
    original = arguments.original.resolve()
    configs = configs_of(original)
    use(original)
    for folder in ("models", "state_dict"):
        (arguments.output / folder).mkdir(parents=True, exist_ok=True)
    for config in configs:
        for case in cases_of(config):
            tensors, metadata = measure(original, case)
            path = arguments.output / "models" / f"{case.name}.safetensors"
            save_file(tensors, path, metadata)
            print(path)
    path = arguments.output / "state_dict" / "vidtok.json"
    shapes = {config.stem: shapes_of(original, config) for config in configs}
    path.write_text(layouts(shapes))
    print(path)


if __name__ == "__main__":
    main()
