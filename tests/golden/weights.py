"""Deterministic stand-in weights, so that two implementations can be compared without sharing a checkpoint.

Every parameter is drawn from its own generator, seeded by the parameter's published name, and so does not
depend on the order in which parameters are visited, nor on the framework.
"""

import hashlib

import numpy as np


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Uniform float32 values in [-1, 1) of `shape`, for the parameter or input called `name`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    return np.asarray(generator.random(shape, dtype=np.float32) * 2 - 1, dtype=np.float32)


def stand_in(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The stand-in value of a parameter: `name` as published, e.g. "encoder.conv_in.conv.weight"."""
    values = draw(name, shape, seed)
    if name.endswith("mix_factor"):
        return np.asarray(2 * values, dtype=np.float32)
    if name.endswith("logvar"):
        return np.asarray(0.1 * values, dtype=np.float32)
    if name.endswith("bias"):
        return np.asarray(0.1 * values, dtype=np.float32)
    if len(shape) == 1:  # the gain of a normalisation layer
        return np.asarray(1 + 0.2 * values, dtype=np.float32)
    fan_in = int(np.prod(shape[1:]))
    return values * np.float32((3 / fan_in) ** 0.5)


def clip(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A test clip in [-1, 1): `shape` is (B, C, T, H, W). Smooth motion plus noise, different for each name."""
    batch, channels, frames, height, width = shape
    phase = draw(f"{name}/phase", (batch, channels, 4), seed).astype(np.float64)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = np.zeros(shape)
    for b in range(batch):
        for c in range(channels):
            p = phase[b, c]
            waves[b, c] = 0.5 * np.sin(0.3 * x + 0.35 * t * p[0] + 3 * p[1]) + 0.3 * np.cos(
                0.21 * y - 0.5 * t * p[2] + 3 * p[3]
            )
    return (waves + 0.2 * draw(name, shape, seed)).astype(np.float32)
