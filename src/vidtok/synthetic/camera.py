"""Movement of camera and objects: one affine map per frame from the output's pixels to a canvas.

Coordinates are output pixels, from the frame's centre, x right and y down. Times are in frames, 0 at the clip's middle,
so that moving objects are in view near that time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.draws import Draws

_SHAKES = 3


@dataclass
class Path:
    """Similarities over time: `position` (B, T, 2) in pixels, `angle` (B, T) in radians, `zoom` (B, T), a log."""

    position: Tensor
    angle: Tensor
    zoom: Tensor

    def matrix(self) -> Tensor:
        """(B, T, 2, 3): x -> rotate(x) / exp(zoom) + position."""
        scale = (-self.zoom).exp()
        cos, sin = self.angle.cos() * scale, self.angle.sin() * scale
        rows = [torch.stack([cos, -sin, self.position[..., 0]], -1), torch.stack([sin, cos, self.position[..., 1]], -1)]
        return torch.stack(rows, -2)


@dataclass
class Shots:
    """Times of the frames: `times` (B, T) in frames, `shot` (B, T), 0 before the cut and 1 from it on."""

    times: Tensor
    shot: Tensor


def shots(draws: Draws, config: SyntheticConfig) -> Shots:
    """Frame times with the irregularities of real video: repeated frames, movement that starts or stops, cuts."""
    count = config.frames
    index = torch.arange(count, device=draws.device, dtype=torch.float32)[None]
    times = index.expand(len(draws), -1)
    # Video converted from a lower frame rate repeats frames.
    repeat = 1 + draws.happens(0.05, 1) * draws.happens(0.5, 1).add(1)
    phase = (draws.uniform(1) * repeat).floor()
    times = ((times + phase) / repeat).floor() * repeat - phase
    # A few clips are fast-forwarded, as by a low sampling rate.
    times = (times - (count - 1) / 2) * (1 + 2 * draws.happens(0.06, 1))
    where = draws.uniform(1, low=-0.5, high=0.5) * count
    kind = draws.uniform(1)
    times = torch.where(kind < 0.08, times.clamp_min(where), torch.where(kind > 0.92, times.clamp_max(where), times))
    cut = 1 + (draws.uniform(1) * max(count - 1, 1)).floor()
    return Shots(times, draws.happens(config.cut_share, 1) * (index >= cut))


def _travel(draws: Draws, times: Tensor, speed: Tensor, shake: Tensor) -> Tensor:
    """(B, T, 2): travel at a speed (B,) in pixels a frame, with some acceleration, plus shake (B,) in pixels."""
    count = times.shape[1]
    angle = draws.uniform(1, high=2 * math.pi)
    # Level movement is commonest.
    direction = torch.stack([angle.cos(), angle.sin() * draws.uniform(1).sqrt()], -1)
    turn = draws.normal(1, 2) * draws.happens(0.5, 1, 1)
    ahead = times[..., None] * direction + times.square()[..., None] * turn * (0.4 / max(count, 8))
    return ahead * speed[:, None, None] + _wobble(draws, times, 2) * shake[:, None, None]


def _speed(draws: Draws, config: SyntheticConfig) -> Tensor:
    """(B,) pixels a frame, evenly spread over the logarithm up to the fastest."""
    return draws.log_uniform(low=config.max_speed / 100, high=config.max_speed)


def _wobble(draws: Draws, times: Tensor, channels: int) -> Tensor:
    """(B, T, channels): an irregular oscillation of about unit size, as of a hand-held camera."""
    rate = draws.log_uniform(_SHAKES, 1, 1, low=0.015, high=0.35)
    phase = draws.uniform(_SHAKES, 1, channels, high=2 * math.pi)
    waves = (times[:, None, :, None] * rate * (2 * math.pi) + phase).sin()
    return (waves * draws.uniform(_SHAKES, 1, channels)).sum(1)


def camera(draws: Draws, config: SyntheticConfig, times: Tensor) -> Path:
    """A camera that stands, is held by hand, pans, turns or zooms; `times` is (B, T)."""
    kind = draws.uniform()
    held = (kind >= config.static_share) & (kind < 2 * config.static_share)
    moving = (kind >= 2 * config.static_share).float()
    loose = held.float()
    speed = _speed(draws, config) * moving + draws.uniform(high=0.15) * loose
    shake = draws.log_uniform(low=0.1, high=1.2) * loose
    shake = shake + draws.happens(0.5) * draws.log_uniform(low=0.2, high=12.0) * moving
    position = _travel(draws, times, speed, shake)
    position = position + draws.uniform(1, 2, low=-0.5, high=0.5) * 4096

    alive = (moving + loose)[:, None]
    turning = draws.happens(0.3, 1) * draws.normal(1) * 0.018 * moving[:, None]
    angle = draws.normal(1) * 0.12 + turning * times + _wobble(draws, times, 1)[..., 0] * 0.002 * alive
    zooming = draws.happens(0.35, 1) * draws.normal(1) * 0.018 * moving[:, None]
    zoom = draws.uniform(1, low=-0.3, high=0.5) + (zooming * times).clamp(-0.6, 0.6)
    return Path(position, angle, zoom)


def object_path(draws: Draws, config: SyntheticConfig, times: Tensor) -> Path:
    """Position, angle and size of an object in the world over time; a third of the objects stand still."""
    active = draws.happens(0.67)
    speed = _speed(draws, config) * active
    sway = draws.happens(0.5) * draws.log_uniform(low=0.2, high=6.0) * active
    extent = torch.tensor([config.width, config.height], device=draws.device)
    position = _travel(draws, times, speed, sway) + draws.uniform(1, 2, low=-0.5, high=0.5) * extent
    spin = draws.happens(0.35, 1) * draws.normal(1) * 0.04 * active[:, None]
    lean = _wobble(draws, times, 1)[..., 0] * 0.05 * draws.happens(0.4, 1) * active[:, None]
    angle = draws.normal(1) * 0.4 + spin * times + lean
    growth = draws.happens(0.3, 1) * draws.normal(1) * 0.015 * active[:, None]
    zoom = draws.log_uniform(1, low=0.3, high=2.2).log() + (growth * times).clamp(-0.7, 0.7)
    return Path(position, angle, zoom)


def seen_by(camera_path: Path, thing: Path, depth: Tensor) -> Tensor:
    """(B, T, 2, 3): maps from output pixels to an object's own coordinates.

    `depth` (B,) scales the camera's movement: 1 moves with the background, more is nearer (parallax), 0 stays in
    front of the camera.
    """
    start = camera_path.position.mean(1, keepdim=True)
    moved = Path((camera_path.position - start) * depth[:, None, None], camera_path.angle, camera_path.zoom).matrix()
    scale = (-thing.zoom).exp()
    cos, sin = thing.angle.cos() * scale, thing.angle.sin() * scale
    inverse = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    shift = torch.cat([torch.zeros_like(moved[..., :2]), thing.position[..., None]], -1)
    return inverse @ (moved - shift)


def drift(matrix: Tensor) -> Tensor:
    """(B, 2): mean movement a frame, in canvas pixels, at the frame's centre."""
    centre = matrix[..., 2]
    if centre.shape[1] < 2:
        return torch.zeros_like(centre[:, 0])
    return (centre[:, -1] - centre[:, 0]) / (centre.shape[1] - 1)


def bending(draws: Draws, config: SyntheticConfig, times: Tensor) -> Tensor:
    """(B, T, H, W, 2): a smooth, oscillating displacement in pixels, as of water, cloth or a face."""
    batch, count = times.shape
    size = 6
    rate = draws.log_uniform(1, 1, 1, 1, low=0.01, high=0.15) * (2 * math.pi)
    phase = rate * times[:, :, None, None, None]
    first, second = draws.normal(2, 1, 2, size, size).unbind(1)
    control = (first * phase.cos() + second * phase.sin()) * draws.log_uniform(1, 1, 1, 1, low=0.3, high=3.0)
    control = control.flatten(0, 1)
    smooth = torch.nn.functional.interpolate(control, size=(24, 24), mode="bicubic", align_corners=False)
    full = torch.nn.functional.interpolate(
        smooth, size=(config.height, config.width), mode="bilinear", align_corners=True
    )
    return full.view(batch, count, 2, config.height, config.width).permute(0, 1, 3, 4, 2)
