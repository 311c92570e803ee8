"""What encoding and decoding have to compute and to move, layer by layer, and how long a machine needs for it at least.

    python benchmarks/limits.py                                            # all models at 17 x 256 x 256
    python benchmarks/limits.py vidtok_kl_causal_488_16chn_v1_1 --layers   # one, layer by layer

Counted on tensors without values, two operations for a multiplication and an addition. `flop` is what the plain
convolutions take, `reduced` what is left of it where the Winograd convolutions compute them (without their transforms),
and `original` what the published code takes, which computes copies of the first frame too. The least bytes that are
moved are those of each convolution's or attention's input, weights and output, once each, and of what a residual block
adds; all else can be done in passing. The floor is, layer by layer, the longer of both at the machine's own rates.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from common import copy_rate, matrix_rate, write_results
from torch import Tensor, nn

from vidtok import AutoencoderConfig, Tokenizer
from vidtok.config.read import read_config
from vidtok.config.registry import models
from vidtok.models.padding import encoded_frames, padded_frames
from vidtok.models.vidtok import winograd
from vidtok.models.vidtok.networks import ResidualBlock
from vidtok.models.vidtok.spatial import Attention, Conv2d, Pointwise, SpatialUpsample
from vidtok.models.vidtok.temporal import LinearTemporalUpsample, Taps, TemporalUpsample
from vidtok.models.vidtok.winograd import Scheme

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Shape = tuple[int, int, int]


@dataclass
class Work:
    """What a layer takes for a whole clip."""

    flop: int = 0
    reduced: int = 0
    bytes: int = 0

    def __iadd__(self, other: Work) -> Work:
        self.flop += other.flop
        self.reduced += other.reduced
        self.bytes += other.bytes
        return self

    def seconds(self, rate: float, bandwidth: float, *, reduced: bool = False) -> float:
        """How long it takes at least, at `rate` operations and `bandwidth` bytes a second."""
        return max((self.reduced if reduced else self.flop) / rate, self.bytes / bandwidth)


def count(coder: nn.Module, x: Tensor) -> dict[str, Work]:
    """By name, the layers of an encoder or decoder that work when it takes `x`, which is best on the meta device."""
    layers: dict[str, Work] = defaultdict(Work)
    upsampling = {
        id(layer): module
        for module in coder.modules()
        if isinstance(module, SpatialUpsample | TemporalUpsample)
        for layer in module.modules()
    }
    hooks = []
    for name, module in coder.named_modules():
        if isinstance(module, Conv2d | Taps | Pointwise | Attention | ResidualBlock):

            def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                layers[name] += _work(module, upsampling.get(id(module)), inputs[0], output)

            hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            coder(x)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(layers)


def _work(module: nn.Module, upsampling: nn.Module | None, x: Tensor, out: Tensor) -> Work:
    size = x.element_size()
    if isinstance(module, ResidualBlock):
        return Work(bytes=size * out.numel())
    if isinstance(module, Attention):
        positions = x.shape[2] * x.shape[3]
        flop = 4 * x.numel() * positions
        return Work(flop, flop, 4 * size * x.numel())
    weight = module.get_parameter("weight")
    flop = 2 * out.numel() * weight[0].numel()
    read = x.numel() // 4 if isinstance(upsampling, SpatialUpsample) else x.numel()
    share = _share(module, upsampling, x, out)
    return Work(flop, round(flop * share), size * (read + weight.numel() + out.numel()))


def _share(module: nn.Module, upsampling: nn.Module | None, x: Tensor, out: Tensor) -> float:
    """How many of a plain convolution's multiplications are left."""
    weight = module.get_parameter("weight")
    if isinstance(module, Conv2d) and weight.shape[-1] == 3 and module.stride == 1:
        if isinstance(upsampling, SpatialUpsample):
            before = x[:, :, ::2, ::2]
            return _inside(winograd.upsampled(), before, out) if winograd.large_enough(before, weight) else 1
        return _inside(winograd.three_taps(), x, out) if winograd.large_enough(x, weight) else 1
    if isinstance(module, Taps) and weight.dim() == 5 and winograd.large_enough(x, weight):
        over_time = 1.0
        if isinstance(upsampling, TemporalUpsample):
            linear = isinstance(upsampling, LinearTemporalUpsample)
            time = winograd.PAIR_OF_FRAMES if linear else winograd.DOUBLED_FRAMES
            over_time = time.products / (3 * time.outputs)
        return over_time * _inside(winograd.three_taps(), x, out)
    return 1


def _inside(scheme: Scheme, x: Tensor, out: Tensor) -> float:
    tiles = ceil(x.shape[2] / scheme.step) * ceil(x.shape[3] / scheme.step)
    return tiles * scheme.products**2 / (9 * out.shape[2] * out.shape[3])


def limits(config: AutoencoderConfig, shape: Shape, dtype: torch.dtype) -> dict[str, dict[str, Work]]:
    """Encoding and decoding a clip of `shape` (frames, height, width), layer by layer."""
    with torch.device("meta"):
        model = Tokenizer(config).eval().to(dtype)
        frames, height, width = shape
        video = torch.empty(1, config.in_channels, padded_frames(frames, config), height, width, dtype=dtype)
        factor = config.spatial_factor
        latent = (encoded_frames(frames, config), height // factor, width // factor)
        z = torch.empty(1, config.z_channels, *latent, dtype=dtype)
        return {"encode": count(model.encoder, video), "decode": count(model.decoder, z)}


def original(config: AutoencoderConfig) -> AutoencoderConfig:
    """The configuration that computes as many frames as the published code does: all copies of the first one too."""
    if config.temporal_padding != "first_frame":
        return config
    return dataclasses.replace(config, temporal_padding="zeros", interpolation="nearest")


def by_level(layers: dict[str, Work]) -> dict[str, Work]:
    """The sums over levels: `conv_in`, `down.0` (blocks inside frames and over time), `mid` and so on."""
    levels: dict[str, Work] = defaultdict(Work)
    for name, work in layers.items():
        first, *rest = name.replace("_temporal", "").split(".")
        levels[f"{first}.{rest[0]}" if first in ("down", "up") else first] += work
    return dict(levels)


def total(layers: dict[str, Work]) -> Work:
    summed = Work()
    for work in layers.values():
        summed += work
    return summed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="*", help="models' names or YAML files (default: all of the first family)")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu", help="whose rates to measure")
    parser.add_argument("--matrix-size", type=int, default=4096)
    parser.add_argument("--layers", action="store_true", help="every layer, not only sums over levels")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: benchmarks/results)")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    shape, dtype = (options.frames, options.size, options.size), DTYPES[options.dtype]
    rate = matrix_rate(options.matrix_size, dtype=dtype, device=options.device)
    bandwidth = copy_rate(device=options.device)
    print(f"{rate / 1e9:.0f} GFLOP/s in matrix products, {bandwidth / 1e9:.1f} GB/s moved in copies")

    results: dict[str, Any] = {}
    for name in options.config or models("vidtok"):
        config = read_config(name).model
        assert isinstance(config, AutoencoderConfig)
        published = limits(original(config), shape, dtype)
        results[name] = {}
        for task, layers in limits(config, shape, dtype).items():
            work = total(layers)
            floor = sum(layer.seconds(rate, bandwidth) for layer in layers.values())
            reduced = sum(layer.seconds(rate, bandwidth, reduced=True) for layer in layers.values())
            shown = layers if options.layers else by_level(layers)
            results[name][task] = {
                **dataclasses.asdict(work), "original": total(published[task]).flop,
                "floor_seconds": round(floor, 3), "reduced_floor_seconds": round(reduced, 3),
                "layers" if options.layers else "levels": {k: dataclasses.asdict(v) for k, v in shown.items()},
            }  # fmt: skip
            print(
                f"{name:<38}{task} {work.flop / 1e12:7.3f} TFLOP, original {total(published[task]).flop / 1e12:7.3f}, "
                f"reduced {work.reduced / 1e12:6.3f}; {work.bytes / 1e9:6.2f} GB; at least {floor:6.2f} s, reduced "
                f"{reduced:6.2f} s"
            )
    single = f"-{Path(options.config[0]).stem}" if len(options.config) == 1 else ""
    write_results(
        f"limits{single}-{'x'.join(map(str, shape))}-{options.dtype}",
        {
            "shape": shape, "dtype": options.dtype, "device": options.device, "matrix_gflops": round(rate / 1e9, 1),
            "copy_gbytes": round(bandwidth / 1e9, 1), "models": results,
        },
        options.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
