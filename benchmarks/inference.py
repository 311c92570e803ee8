"""Speed and peak memory of encoding and decoding one clip, beside diffusers' `AutoencoderVidTok` at the same weights.

    python benchmarks/inference.py --config vidtok_kl_causal_488_16chn_v1_1 --frames 17 --size 128 --compare diffusers

Both run in processes of their own, which keep freed memory as the commands do (`vidtok.keep_freed_memory`, unless
`--give-back`), and take turns, task by task, so that a machine whose speed drifts favours neither;
the ratios are those of the turns. diffusers implements version 1.1; parameter names and shapes are the same, so the
same weights go into both, and the outputs are compared too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from common import Worker, matrix_rate, write_results

from vidtok import Tokenizer, keep_freed_memory
from vidtok.config.read import read_config
from vidtok.models.config import FSQConfig, ModelConfig
from vidtok.models.padding import padded_frames
from vidtok.models.vidtok.config import AutoencoderConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Model = TypeVar("Model", bound=torch.nn.Module)
Tasks = dict[str, Callable[[], object]]


def clip_of(frames: int, height: int, width: int, dtype: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(1, 3, frames, height, width, generator=generator) * 2 - 1).to(DTYPES[dtype])


def seeded(model: Model, dtype: str) -> Model:
    """`model` with weights that depend on their names alone."""
    for name, parameter in sorted(model.named_parameters()):
        generator = torch.Generator().manual_seed(sum(name.encode()) + parameter.numel())
        spread = (3 / max(1, parameter[0].numel())) ** 0.5 if parameter.dim() > 1 else 0.1
        parameter.data.uniform_(-spread, spread, generator=generator)
        if parameter.dim() == 1 and name.endswith("weight"):
            parameter.data.add_(1)
    return model.to(DTYPES[dtype]).eval()


def prepare_process(threads: int | None, *, keep: bool) -> None:
    if keep:
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)


def make_ours(config: str, shape: tuple[int, int, int], dtype: str, threads: int | None, keep: bool) -> Tasks:
    prepare_process(threads, keep=keep)
    model = seeded(Tokenizer(read_config(config).model), dtype)
    video = clip_of(*shape, dtype)
    z = model.encode(video, sample=False)
    return {
        "encode": lambda: model.encode(video, sample=False),
        "decode": lambda: model.decode(z),
        "both": lambda: model.decode(model.encode(video, sample=False)),
    }


def make_diffusers(config: str, shape: tuple[int, int, int], dtype: str, threads: int | None, keep: bool) -> Tasks:
    prepare_process(threads, keep=keep)
    model: Any = seeded(diffusers_model(read_config(config).model), dtype)
    video = clip_of(*shape, dtype)
    factor = read_config(config).model.temporal_factor
    if model.is_causal:
        video = torch.cat([video[:, :, :1].expand(-1, -1, factor - 1, -1, -1), video], 2)
    z = encode_diffusers(model, video)
    return {
        "encode": lambda: encode_diffusers(model, video),
        "decode": lambda: decode_diffusers(model, z),
        "both": lambda: decode_diffusers(model, encode_diffusers(model, video)),
    }


def diffusers_model(ours: ModelConfig) -> Any:
    import diffusers

    make: Any = diffusers.AutoencoderVidTok

    assert isinstance(ours, AutoencoderConfig)
    discrete = isinstance(ours.bottleneck, FSQConfig)
    return make(
        ch=ours.ch, ch_mult=list(ours.ch_mult), z_channels=ours.z_channels, double_z=not discrete,
        num_res_blocks=ours.num_res_blocks, spatial_ds=list(ours.spatial_ds or ()),
        spatial_us=list(ours.spatial_us or ()), tempo_ds=list(ours.tempo_ds or ()), tempo_us=list(ours.tempo_us or ()),
        regularizer="fsq" if discrete else "kl", is_causal=ours.is_causal,
        **({"codebook_size": ours.bottleneck.codebook_size} if isinstance(ours.bottleneck, FSQConfig) else {}),
    )  # fmt: skip


def encode_diffusers(model: Any, video: torch.Tensor) -> torch.Tensor:
    encoded = model.encode(video)
    z: torch.Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    return z


def decode_diffusers(model: Any, z: torch.Tensor) -> torch.Tensor:
    decoded = model.decode(z)
    video: torch.Tensor = decoded.sample if hasattr(decoded, "sample") else decoded
    return video


def largest_difference(config: str, shape: tuple[int, int, int], dtype: str) -> float:
    """Between the two reconstructions of a small part of the clip, on outputs of standard deviation about 0.5."""
    structure = read_config(config).model
    ours, theirs = seeded(Tokenizer(structure), dtype), seeded(diffusers_model(structure), dtype)
    video = clip_of(padded_frames(min(5, shape[0]), ours.config), 64, 64, dtype)
    factor = ours.config.temporal_factor
    padded = torch.cat([video[:, :, :1].expand(-1, -1, factor - 1, -1, -1), video], 2) if ours.is_causal else video
    z = encode_diffusers(theirs, padded)
    reconstruction = decode_diffusers(theirs, z)[:, :, -video.shape[2] :]
    return float((ours.decode(ours.encode(video, sample=False)) - reconstruction).abs().max())


def summarize(turns: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Per contestant the median seconds and the peak memory, and per turn the ratio to ours."""
    summary: dict[str, Any] = {}
    for who in turns[0]:
        spent = [turn[who]["seconds"] for turn in turns]
        ratios = [turn[who]["seconds"] / turn["ours"]["seconds"] for turn in turns]
        summary[who] = {
            "seconds": round(median(spent), 3),
            "all_seconds": [round(value, 3) for value in spent],
            "peak_gib": round(max(turn[who]["peak_bytes"] for turn in turns) / 2**30, 3),
            "times_ours": round(median(ratios), 2),
            "times_ours_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="vidtok_kl_causal_488_16chn_v1_1")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128, help="height, and width unless --width says otherwise")
    parser.add_argument("--width", type=int)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compare", choices=["none", "diffusers"], default="none")
    parser.add_argument(
        "--give-back", action="store_true", help="leave the C library's handling of freed memory as it is"
    )
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    if options.compare == "diffusers" and find_spec("diffusers") is None:
        parser.error("diffusers is not installed: pip install -c constraints.txt -e '.[benchmark]'")
    shape = (options.frames, options.size, options.width or options.size)
    arguments = (options.config, shape, options.dtype, options.threads, not options.give_back)
    torch.set_grad_enabled(False)

    difference = largest_difference(options.config, shape, options.dtype) if options.compare == "diffusers" else None
    workers = {"ours": Worker(make_ours, *arguments)}
    if options.compare == "diffusers":
        workers["diffusers"] = Worker(make_diffusers, *arguments)
    results: dict[str, Any] = {}
    for task in ("encode", "decode", "both"):
        turns = [{who: worker.call(task) for who, worker in workers.items()} for _ in range(options.turns)]
        results[task] = summarize(turns)
        for who, figures in results[task].items():
            print(
                f"{task:>7} {who:>10}: {figures['seconds']:8.2f} s, peak {figures['peak_gib']:.2f} GiB, "
                f"{figures['times_ours']:.2f} times ours"
            )
    for worker in workers.values():
        worker.close()
    write_results(
        f"inference-{options.config}-{'x'.join(map(str, shape))}-{options.dtype}",
        {
            "config": options.config, "shape": shape, "dtype": options.dtype, "turns": options.turns,
            "keeps_freed_memory": not options.give_back,
            "matrix_gflops": round(matrix_rate() / 1e9, 1), "largest_difference": difference, "tasks": results,
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
