"""Rendering of clips from canvases and paths."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.synthetic import camera, optics
from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.draws import Draws
from vidtok.synthetic.textures import (
    BACKGROUND_PASSES,
    DENSITY,
    OBJECT_PASSES,
    SIDE_UNIT,
    dead_leaves,
    screens,
    shaded,
    silhouettes,
)

# Reach of the background beyond the frame before it repeats, and side of the canvas of one object, in pixels.
_MARGIN = 64
_OBJECT = 144
# On the CPU few clips at a time stay in its caches; a GPU wants many, and has the memory for this many.
_CPU_ROWS, _GPU_ROWS = 2, 32


@dataclass
class _Scenes:
    """Canvases of some scenes; row `starts[i, slot]` of `objects` (N, 4, h, w) is the object of scene i in a slot."""

    background: Tensor
    screen: Tensor
    has_screen: Tensor
    objects: Tensor
    counts: Tensor
    starts: Tensor


def synthetic_batch(
    config: SyntheticConfig, seed: int, indices: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Render clips of an endless sequence on `device`.

    Args:
        config: the look of the clips.
        seed: the sequence of clips; another seed gives other clips at every index.
        indices: clips of the sequence, in any order.
        device: renders the clips.

    Returns:
        (B, 3, T, H, W) float32 in -1..1. A clip depends on config, seed and its index alone: neither on the other
        indices nor, up to rounding, on the device.
    """
    device = torch.device(device)
    indices = [int(index) for index in indices]
    rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS
    rows = max(rows, config.clips_per_scene)
    with _one_thread(device):
        chunks = [_render(config, seed, indices[i : i + rows], device) for i in range(0, len(indices), rows)]
    if not chunks:
        return torch.empty(0, 3, config.frames, config.height, config.width, device=device)
    return torch.cat(chunks) if len(chunks) > 1 else chunks[0]


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Keep PyTorch to one CPU thread: rendering is many small operations, between which threads would mostly wait.

    On a machine whose cores are all busy, that waiting made rendering 30 times as slow. Loader workers have one thread
    anyway.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _render(config: SyntheticConfig, seed: int, indices: Sequence[int], device: torch.device) -> Tensor:
    numbers = [index // config.clips_per_scene for index in indices]
    unique = list(dict.fromkeys(numbers))
    scenes = _scenes(Draws.of(seed, unique, device), config)
    which = torch.tensor([unique.index(number) for number in numbers])
    # Clips draw from another sequence than scenes: the same key would tie a path to a palette.
    clips = Draws.of(seed, indices, device).fork("clip")

    shots = camera.shots(clips.fork("shots"), config)
    eye = camera.camera(clips.fork("camera"), config, shots.times)
    cut = clips.fork("cut")
    eye_after = camera.Path(
        eye.position + shots.shot[..., None] * cut.uniform(1, 2, low=40.0, high=150.0),
        eye.angle + shots.shot * cut.normal(1) * 0.2,
        eye.zoom + shots.shot * cut.normal(1) * 0.3,
    )
    video = _background(scenes, which, clips, config, eye, eye_after, shots)
    for slot in range(config.max_objects):
        seen = torch.nonzero(scenes.counts[which] > slot)[:, 0]
        if len(seen):
            layer = _object(scenes, which, seen, slot, clips, config, eye, shots)
            video = _over(video, layer, seen)
    framed = torch.nonzero(scenes.has_screen[which])[:, 0]
    if len(framed):
        video = _over(video, _screen(scenes, which, framed, clips, config, eye, shots), framed)
    return _develop(video, clips, config, shots)


def _develop(video: Tensor, clips: Draws, config: SyntheticConfig, shots: camera.Shots) -> Tensor:
    """Add light, exposure, noise, captions and bars; takes 0..1 with highlights above, gives -1..1."""
    video = optics.relight(video, clips.fork("light"), config, shots.times, shots.shot)
    film = clips.fork("film")
    exposure = (film.normal(1, 1, 1, 1) * 0.12 - 0.05).exp()
    pedestal = film.normal(1, 1, 1, 1) * 0.03
    video = video.mul_(exposure).add_(pedestal)
    video = optics.fade_contrast(video, clips.fork("contrast"), config)
    noisy = film.happens(0.35) * film.uniform().square() * config.max_noise
    video = optics.sensor_noise(video, clips.fork("noise"), noisy)
    video = optics.caption(video, clips.fork("overlay"), config)
    video = optics.letterbox(video, clips.fork("bars"), config)
    return video.mul_(2).sub_(1).clamp_(-1, 1)


def _scenes(draws: Draws, config: SyntheticConfig) -> _Scenes:
    height, width = (_side(size + _MARGIN) for size in (config.height, config.width))
    background = dead_leaves(draws.fork("background"), config, height, width, BACKGROUND_PASSES).colour
    layout = draws.fork("layout")
    # From none to all the objects, few more often than many; a screen in front of one scene in twelve.
    counts = (layout.uniform().pow(1.3) * (config.max_objects + 1)).long().clamp_max(config.max_objects).cpu()
    has_screen = (layout.uniform() < (0.08 if config.max_objects else 0.0)).cpu()

    side = _side(_OBJECT)
    things = []
    for slot in range(config.max_objects):
        rows = torch.nonzero(counts > slot)[:, 0]
        if len(rows):
            things.append((rows, _thing(draws.fork(f"object{slot}").select(rows), config, side)))
    starts = torch.full((len(draws), max(config.max_objects, 1)), -1)
    offset = 0
    for slot, (rows, canvas) in enumerate(things):
        starts[rows, slot] = torch.arange(offset, offset + len(rows))
        offset += len(canvas)
    objects = torch.cat([canvas for _, canvas in things]) if things else background.new_empty(0, 4, side, side)
    framed = torch.nonzero(has_screen)[:, 0]
    screen = background.new_zeros(len(draws), 4, side, side) if len(framed) else background.new_empty(0, 4, side, side)
    if len(framed):
        chosen = draws.fork("screen").select(framed)
        leaves = dead_leaves(chosen, config, side, side, OBJECT_PASSES)
        alpha = screens(chosen.fork("holes"), leaves)
        screen[framed] = torch.cat([leaves.colour * alpha, alpha], 1)
    return _Scenes(background, screen, has_screen, objects, counts, starts)


def _thing(draws: Draws, config: SyntheticConfig, side: int) -> Tensor:
    canvas = dead_leaves(draws, config, side, side, OBJECT_PASSES)
    return shaded(canvas, silhouettes(draws.fork("shape"), canvas), draws.fork("shading"))


def _side(pixels: int) -> int:
    return math.ceil(pixels * DENSITY / (2 * SIDE_UNIT)) * 2 * SIDE_UNIT if pixels > _OBJECT else 3 * SIDE_UNIT


def _background(
    scenes: _Scenes,
    which: Tensor,
    clips: Draws,
    config: SyntheticConfig,
    eye: camera.Path,
    eye_after: camera.Path,
    shots: camera.Shots,
) -> Tensor:
    canvas = scenes.background if len(which) == len(scenes.background) else scenes.background[which]
    canvas = _expose(canvas, clips.fork("focus"), config, eye.matrix(), eye.zoom)
    return _wrapped(canvas, eye_after.matrix(), config, _bend(clips.fork("bend"), config, shots))


def _object(
    scenes: _Scenes,
    which: Tensor,
    seen: Tensor,
    slot: int,
    clips: Draws,
    config: SyntheticConfig,
    eye: camera.Path,
    shots: camera.Shots,
) -> Tensor:
    """(rows, 4, T, H, W) of the clips that have an object in this slot."""
    draws = clips.fork(f"object{slot}").select(seen)
    rows = seen.to(clips.device)
    times, shot = shots.times[rows], shots.shot[rows]
    near = camera.Path(eye.position[rows], eye.angle[rows], eye.zoom[rows])
    path = camera.object_path(draws.fork("path"), config, times)
    depth = draws.log_uniform(low=0.7, high=1.8)
    matrix = camera.seen_by(near, path, depth)
    canvas = scenes.objects[scenes.starts[which[seen], slot]]
    canvas = _expose(canvas, draws.fork("focus"), config, matrix, near.zoom + path.zoom)
    jump = draws.uniform(1, 2, low=-1.0, high=1.0) * config.width
    matrix = torch.cat([matrix[..., :2], (matrix[..., 2] + shot[..., None] * jump)[..., None]], -1)
    grid = _grid(matrix, config, canvas.shape[-2:], 2 * DENSITY)
    grid = _bent(grid, _bend(draws.fork("bend"), config, camera.Shots(times, shot)), canvas.shape[-2:])
    return _sample(canvas, grid, config, align_corners=False)


def _screen(
    scenes: _Scenes,
    which: Tensor,
    framed: Tensor,
    clips: Draws,
    config: SyntheticConfig,
    eye: camera.Path,
    shots: camera.Shots,
) -> Tensor:
    draws = clips.fork("screen").select(framed)
    rows = framed.to(clips.device)
    near = camera.Path(eye.position[rows], eye.angle[rows], eye.zoom[rows])
    path = camera.object_path(draws.fork("path"), config, shots.times[rows])
    # A screen hangs still in the world; only the wind bends it.
    zeros = torch.zeros_like(path.angle)
    path = camera.Path(torch.zeros_like(path.position), zeros, zeros + path.zoom[:, :1].clamp_min(0.2))
    matrix = camera.seen_by(near, path, draws.uniform(low=1.2, high=2.5))
    canvas = _expose(scenes.screen[which[framed]], draws.fork("focus"), config, matrix, near.zoom + path.zoom)
    bend = _bend(draws.fork("bend"), config, camera.Shots(shots.times[rows], shots.shot[rows]))
    return _wrapped(canvas, matrix, config, bend)


def _expose(canvas: Tensor, draws: Draws, config: SyntheticConfig, matrix: Tensor, zoom: Tensor) -> Tensor:
    """The canvas as lens and shutter leave it: blurred once, by the mean movement, for the whole clip."""
    scale = DENSITY * (-zoom.mean(1)).exp()
    sigma, disc, sharpening = optics.lens(draws, config, scale)
    shutter = draws.uniform(low=-0.4, high=1.0).clamp_min(0) * config.motion_blur
    streak = camera.drift(matrix) * DENSITY * shutter[:, None]
    return optics.blur(canvas, sigma, disc, streak, sharpening)


def _bend(draws: Draws, config: SyntheticConfig, shots: camera.Shots) -> tuple[Tensor, Tensor] | None:
    """Rows of the clips that bend, and their displacements."""
    rows = torch.nonzero(draws.happens(config.warp_share).cpu())[:, 0]
    if not len(rows):
        return None
    times = shots.times[rows.to(shots.times.device)]
    return rows, camera.bending(draws.fork("bending").select(rows), config, times)


def _grid(matrix: Tensor, config: SyntheticConfig, size: torch.Size, unit: float) -> Tensor:
    """(B, T, H, W, 2): canvas coordinates (x, y) of every output pixel, in pixels times `unit` / side of the canvas."""
    frame = torch.tensor([config.width / 2, config.height / 2, 1.0], device=matrix.device)
    side = torch.tensor([size[1], size[0]], device=matrix.device).view(2, 1)
    theta = matrix * frame * (unit / side)
    shape = [theta.shape[0] * theta.shape[1], 1, config.height, config.width]
    return F.affine_grid(theta.flatten(0, 1), shape, align_corners=False).view(*theta.shape[:2], *shape[2:], 2)


def _bent(grid: Tensor, bend: tuple[Tensor, Tensor] | None, size: torch.Size, unit: float = 2 * DENSITY) -> Tensor:
    if bend is not None:
        rows, displacement = bend
        side = torch.tensor([size[1], size[0]], device=grid.device)
        if len(rows) == len(grid):
            return grid.add_(displacement * (unit / side))
        grid[rows] += displacement * (unit / side)
    return grid


def _wrapped(canvas: Tensor, matrix: Tensor, config: SyntheticConfig, bend: tuple[Tensor, Tensor] | None) -> Tensor:
    """Sample the canvas as a torus: (B, C, T, H, W)."""
    size = canvas.shape[-2:]
    # Whole turns are taken off in advance, and a few added, so that the rest is positive and keeps its precision.
    side = torch.tensor([size[1], size[0]], device=matrix.device)
    start = matrix[:, :1, :, 2] * DENSITY / side
    centre = (matrix[..., 2] * DENSITY / side - start.floor() + 64) * side / DENSITY
    matrix = torch.cat([matrix[..., :2], centre[..., None]], -1)
    grid = _bent(_grid(matrix, config, size, DENSITY), bend, size, DENSITY)
    grid = grid.frac_().mul_(2).sub_(1)
    return _sample(F.pad(canvas, (0, 1, 0, 1), mode="circular"), grid, config, align_corners=True)


def _sample(canvas: Tensor, grid: Tensor, config: SyntheticConfig, align_corners: bool) -> Tensor:
    flat = grid.view(len(grid), config.frames * config.height, config.width, 2)
    seen = F.grid_sample(canvas, flat, mode="bilinear", padding_mode="zeros", align_corners=align_corners)
    return seen.view(len(grid), canvas.shape[1], config.frames, config.height, config.width)


def _over(video: Tensor, layer: Tensor, rows: Tensor) -> Tensor:
    """Lay premultiplied colour and opacity (rows, 4, T, H, W) over the clips of `rows`."""
    below = video if len(rows) == len(video) else video[rows]
    below = torch.addcmul(layer[:, :3] + below, below, layer[:, 3:], value=-1)
    if len(rows) == len(video):
        return below
    video[rows] = below
    return video
