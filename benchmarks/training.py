"""Speed and peak memory of whole training steps, and where their time goes.

    python benchmarks/training.py --config vidtok_kl_causal_488_4chn_v1_1 --size 128 --batch 1

A step is what training does with a batch: forward, LPIPS and discriminator, backward, the discriminator's own step,
clipping, Adam, moving averages. LPIPS has random weights here, which cost as much as trained ones. Clips are noise, at
hand before the clock starts. With `--compare plain`, the same steps are made with the network in the plain layout
(`plain.py`), never compiled, in turn with ours, from the same weights; the losses of both are compared too.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from common import memory, reset_peak_memory, write_results
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import Profiler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidtok import keep_freed_memory
from vidtok.config.read import Configuration, read_config
from vidtok.metrics.lpips import LPIPS
from vidtok.models.base import VideoModel
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.tokenizer import Tokenizer
from vidtok.training.config import TrainingConfig
from vidtok.training.module import SECTIONS, TrainingModule
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.losses import Objective

WARM_UP = 1
"""Steps that do not count."""


class Clips(Dataset[dict[str, Any]]):
    """The same clip of noise again and again."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        self.video: Tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.video, "name": "noise"}


class Sections(Profiler):
    """Seconds of each section, step by step; waits for the device at both ends of one."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._started: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        if action_name in (*SECTIONS, "run_training_batch"):
            self._started[action_name] = _now()

    def stop(self, action_name: str) -> None:
        if action_name in self._started:
            self.seconds[action_name].append(_now() - self._started.pop(action_name))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


def make_module(config: Configuration, *, plain: bool = False) -> TrainingModule:
    torch.manual_seed(0)
    objective_config = ObjectiveConfig.from_dict(config.raw["model"]["params"]["loss_config"]["params"])
    objective = Objective(objective_config, LPIPS() if objective_config.perceptual_weight else None)
    model: VideoModel = Tokenizer(config.model)
    if plain:
        from plain import PlainAutoencoder

        assert isinstance(config.model, AutoencoderConfig)
        same = PlainAutoencoder(config.model)
        same.load_state_dict(model.state_dict())
        model = same
    settings = dataclasses.replace(TrainingConfig.from_raw(config.raw), guide_steps=0)
    return TrainingModule(model, objective, dataclasses.replace(settings, compile_model=False) if plain else settings)


def measure(module: TrainingModule, clips: Clips, options: argparse.Namespace) -> Sections:
    """Train for some steps and return what each took."""
    sections = Sections()
    batches = options.steps + WARM_UP
    trainer = Trainer(
        accelerator=options.accelerator, devices=1, precision=options.precision, max_epochs=1,
        limit_train_batches=batches, profiler=sections, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(clips, batch_size=options.batch))
    return sections


def one_run(config: Configuration, clips: Clips, options: argparse.Namespace, *, plain: bool) -> dict[str, Any]:
    """A few steps from fresh weights: seconds of the median step and of its parts, peak memory, losses of all steps."""
    module = make_module(config, plain=plain)
    losses: list[float] = []
    module.log_dict = lambda values, **_: losses.append(float(values["train/total_loss"]))  # type: ignore[method-assign]
    gc.collect()
    reset_peak_memory()
    sections = measure(module, clips, options)
    on_gpu = torch.cuda.is_available() and options.accelerator != "cpu"
    peak = torch.cuda.max_memory_allocated() if on_gpu else memory("VmHWM")
    parts = {name: median(sections.seconds[name][WARM_UP:]) for name in SECTIONS if sections.seconds[name]}
    return {
        "step": round(median(sections.seconds["run_training_batch"][WARM_UP:]), 4),
        "seconds": {name: round(seconds, 4) for name, seconds in parts.items()},
        "peak_gib": round(peak / 2**30, 3), "losses": losses,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_kl_causal_488_4chn_v1_1", help="a model's name, or a YAML file")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--compare", choices=["none", "plain"], default="none")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        keep_freed_memory(training=True)  # as training does
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    config = read_config(options.config, options.overrides)
    clips = Clips((3, options.frames, options.size, options.size), options.batch * (options.steps + WARM_UP))
    kinds = ["ours", "plain"] if options.compare == "plain" else ["ours"]
    figures: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(options.turns):
        for kind in kinds:
            figures[kind].append(one_run(config, clips, options, plain=kind == "plain"))
    ours = figures["ours"][0]
    whole, parts, peak = ours["step"], ours["seconds"], ours["peak_gib"]
    print(f"{options.batch / whole:.3f} clips a second, {whole:.2f} s a step, peak {peak:.2f} GiB")
    for name, seconds in parts.items():
        print(f"  {name:<22}{seconds:8.2f} s  {seconds / whole:5.0%}")
    compared: dict[str, Any] = {}
    if options.compare == "plain":
        ratios = [plain["step"] / mine["step"] for mine, plain in zip(figures["ours"], figures["plain"], strict=True)]
        compared = {
            "plain": figures["plain"],
            "times_as_fast": [round(ratio, 2) for ratio in ratios],
            "largest_relative_difference_of_losses": max(
                abs(a - b) / abs(a) for a, b in zip(ours["losses"], figures["plain"][0]["losses"], strict=True)
            ),
        }
        print(f"plain: {median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f}), peak "
              f"{figures['plain'][0]['peak_gib']:.2f} GiB; losses differ by "
              f"{compared['largest_relative_difference_of_losses']:.1e}")  # fmt: skip
    shape = (options.frames, options.size, options.size)
    write_results(
        f"training-{Path(options.config).stem}-{options.batch}x{'x'.join(map(str, shape))}-{options.precision}",
        {
            "config": options.config, "overrides": options.overrides, "shape": shape, "batch": options.batch,
            "precision": options.precision, "clips_per_second": round(options.batch / whole, 4),
            "seconds_per_step": round(whole, 3), "peak_gib": peak, "seconds": parts,
            "turns": figures["ours"], **compared,
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
