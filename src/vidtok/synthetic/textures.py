"""Still pictures with the statistics of photographs, as toroidal canvases that a camera then moves over.

A canvas is a scene of "dead leaves" (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001): opaque
shapes of random size, each pass of one size covering the same share of the area, so that sizes follow the power law
that makes the picture scale-invariant. Every leaf carries a colour of the scene's palette, a shading gradient and a
texture mixed from 1/f noise (Field, JOSA A 1987), oriented band-pass noise (grass, fur, water) and gratings (blinds,
bricks, fences).

Sizes inside this file are in texels of the canvas, `DENSITY` of which make one output pixel.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.draws import Draws

# Texels per output pixel at zoom 1: enough for bilinear sampling between texels not to blur or flicker visibly.
DENSITY = 1.25
# Canvas sides are multiples of this, so that every size of leaf below divides them.
SIDE_UNIT = 60
# Cell sizes of the passes from back to front; "1" and "2" stand for the whole canvas and half of it. Large leaves come
# mostly first, but not always: large objects also hide small ones.
BACKGROUND_PASSES = (1, 2, 60, 1, 30, 2, 60, 20, 12, 2, 60, 30, 10, 20, 60, 12)
OBJECT_PASSES = (2, 60, 30, 20, 60, 12, 30, 10)
PALETTE_SIZE = 6
_TEXTURES = 6
_SHAPE_DRAWS = 11


@dataclass
class Canvas:
    """`colour`: (B, 3, h, w), about 0..1, highlights above; `coarse`, `fine`: (B, h, w) noise of unit variance."""

    colour: Tensor
    coarse: Tensor
    fine: Tensor


def frequencies(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cycles per texel along y (h, 1) and x (1, w // 2 + 1) of a real 2D Fourier transform."""
    fy = torch.fft.fftfreq(height, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, device=device)[None, :]
    return fy, fx


def noise_fields(draws: Draws, height: int, width: int) -> Tensor:
    """Random fields of zero mean and unit variance over a torus.

    Returns:
        (B, 4, h, w): 1/f noise with a slope around the natural one; the same, steeper; two oriented band-pass fields.
    """
    device = draws.device
    fy, fx = frequencies(height, width, device)
    radius = (fy.square() + fx.square()).sqrt()
    radius[0, 0] = 1.0
    log_radius = radius.log()

    slope = torch.stack([draws.uniform(low=0.8, high=1.5), draws.uniform(low=1.6, high=2.4)], 1)
    cloudy = torch.exp(-slope[..., None, None] * log_radius)

    angle = draws.uniform(2, 1, 1, high=math.pi)
    # Half of the scenes have upright or level grain, as grass, fur, rain and water have.
    upright = draws.happens(0.5, 2, 1, 1)
    angle = torch.where(upright > 0, (angle / (math.pi / 2)).round() * (math.pi / 2) + 0.1 * angle - 0.15, angle)
    centre = draws.log_uniform(2, 1, 1, low=0.03, high=0.22).log()
    octaves = draws.uniform(2, 1, 1, low=0.3, high=0.9)
    spread = draws.log_uniform(2, 1, 1, low=0.08, high=1.5)
    across = (fx * angle.sin() - fy * angle.cos()) / radius
    grainy = torch.exp(-0.5 * ((log_radius - centre) / octaves).square() - 0.5 * (across / spread).square())

    amplitude = torch.cat([cloudy, grainy], 1)
    amplitude[..., 0, 0] = 0.0
    spectrum = torch.view_as_complex(draws.pairs(4, height, width // 2 + 1)) * amplitude
    fields: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return fields / fields.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-6)


def gratings(draws: Draws, height: int, width: int) -> Tensor:
    """Blinds, planks, tiles and bricks: (B, h, w) in -1..1, soft or hard, along one direction or two."""
    device = draws.device
    y = torch.arange(height, device=device).view(1, -1, 1) - height / 2
    x = torch.arange(width, device=device).view(1, 1, -1) - width / 2
    angle = draws.normal(1, 1) * 0.15 + draws.happens(0.4, 1, 1) * math.pi / 2
    period = draws.log_uniform(2, 1, 1, low=4.0, high=40.0)
    cos, sin = angle.cos(), angle.sin()
    waves = []
    for i, (along, across) in enumerate(((cos, sin), (-sin, cos))):
        phase = (x * along + y * across) * (2 * math.pi / period[:, i]) + draws.uniform(1, 1, high=2 * math.pi)
        edge = draws.log_uniform(1, 1, low=0.7, high=8.0)
        waves.append((phase.sin_() * edge + draws.uniform(1, 1, low=-0.9, high=0.9) * edge).clamp_(-1, 1))
    crossed = draws.happens(0.4, 1, 1)
    return torch.lerp(waves[0], torch.minimum(waves[0], waves[1]), crossed)


def palette(draws: Draws, saturation: float) -> Tensor:
    """(B, PALETTE_SIZE, 3) colours of one scene: a range of brightness, one or two hues, mostly little saturation."""
    key = draws.uniform(1, low=0.15, high=0.75)
    contrast = draws.uniform(1, low=0.1, high=0.6)
    light = (key + contrast * (draws.uniform(PALETTE_SIZE) * 2 - 1)).abs().clamp(0.02, 1.0)
    # Warm (skin, wood, earth, lamps) and its opposite (sky, shade) are the commonest hues, then foliage; others are
    # rare.
    warm = 0.08 + 0.04 * draws.normal(PALETTE_SIZE)
    hue = warm + 0.5 * draws.happens(draws.uniform(1, high=0.7), PALETTE_SIZE)
    green = draws.happens(0.25 * draws.happens(0.5, 1) + 0.1, PALETTE_SIZE)
    hue = torch.where(green > 0, 0.25 + 0.05 * draws.normal(PALETTE_SIZE), hue)
    hue = torch.where(draws.happens(0.08, PALETTE_SIZE) > 0, draws.uniform(PALETTE_SIZE), hue)
    strength = draws.uniform(1).pow(3) * 0.26 * (0.5 + draws.uniform(PALETTE_SIZE))
    strength = strength + draws.uniform(PALETTE_SIZE).pow(10) * 0.5
    phase = torch.tensor([0.0, 1 / 3, 2 / 3], device=draws.device)
    chroma = torch.cos(2 * math.pi * (hue[..., None] - phase))
    # A common cast, as of the light or the camera's white balance.
    cast = 1 + (draws.normal(1, 1) * 0.05) * torch.tensor([1.0, 0.0, -1.0], device=draws.device)
    return (
        light[..., None]
        * (1 + (strength * saturation).clamp(0, 0.95)[..., None] * chroma)
        * (1 + (cast - 1) * saturation)
    )


def _to_cells(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, cells, texels of a cell), contiguous."""
    batch, channels, height, width = planes.shape
    rows, columns = size
    grid = planes.view(batch, channels, height // rows, rows, width // columns, columns).transpose(3, 4)
    return grid.reshape(batch, channels, -1, rows * columns)


def _from_cells(cells: Tensor, size: tuple[int, int], height: int, width: int) -> Tensor:
    batch, channels = cells.shape[:2]
    rows, columns = size
    grid = cells.view(batch, channels, height // rows, width // columns, rows, columns).transpose(3, 4)
    return grid.reshape(batch, channels, height, width)


def _shapes(u: list[Tensor], size: tuple[int, int], present: Tensor) -> tuple[Tensor, Tensor]:
    """One leaf for each cell, from `_SHAPE_DRAWS` uniform numbers (B, cells) each.

    Returns:
        shade: (B, cells, texels), a brightness that grows in a random direction, 1 at the leaf's centre;
        alpha: (B, cells, texels), opacity, to be clamped to 0..1.
    """
    rows, columns = size
    device = present.device
    # The largest may outgrow their cell: its border is then a straight edge, as of a wall.
    largest = 0.55 if min(size) <= SIDE_UNIT else 0.9
    radius = (0.16 * min(size)) * (u[0] * math.log(largest / 0.16)).exp()
    # An eighth of the leaves are thin: poles, wires, stems, cracks.
    aspect = (u[1] * 1.1).exp() * (1 + 8 * (u[2] * 8 - 7).clamp_min(0))
    # Two fifths lie upright or level, as buildings do.
    level = u[3] * 5
    angle = torch.where(level < 2, (level > 1).float() * (math.pi / 2) + 0.1 * (u[4] - 0.5), u[4] * math.pi)
    centre_y = (u[5] - 0.5) * (rows - 1.4 * radius).clamp_min(0)
    centre_x = (u[6] - 0.5) * (columns - 1.4 * radius).clamp_min(0)
    cos, sin = angle.cos(), angle.sin()
    minor = (radius / aspect).clamp_min(0.5)
    slope = u[7].square() * 0.5 / radius
    slope_x, slope_y = slope * (u[8] * (2 * math.pi)).cos(), slope * (u[8] * (2 * math.pi)).sin()

    y = (torch.arange(rows, device=device) - (rows - 1) / 2).view(-1, 1).expand(rows, columns)
    x = (torch.arange(columns, device=device) - (columns - 1) / 2).view(1, -1).expand(rows, columns)
    basis = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    along = torch.stack([cos, sin, -(cos * centre_x + sin * centre_y)], -1) / radius[..., None]
    across = torch.stack([-sin, cos, sin * centre_x - cos * centre_y], -1) / minor[..., None]
    gradient = torch.stack([slope_x, slope_y, 1 - slope_x * centre_x - slope_y * centre_y], -1)
    major_axis, minor_axis, shade = (torch.stack([along, across, gradient], 1) @ basis).unbind(1)

    round_distance = torch.addcmul(major_axis.square(), minor_axis, minor_axis).sqrt_()
    square = (u[9] * 2.6 - 1).clamp(0, 1)[..., None]
    distance = round_distance.lerp_(torch.maximum(major_axis.abs_(), minor_axis.abs_()), square)
    blurred = (u[10] * 6 - 5).clamp_min(0)
    softness = 0.9 + blurred * blurred * 0.5 * min(rows, 60)
    # The offset keeps the opacity of an absent leaf at 0 everywhere.
    steep = minor / softness
    offset = steep + 0.5 - 1e4 * (1 - present)
    return shade, torch.addcmul(offset[..., None], distance, steep[..., None], value=-1)


def _leaf_pass(
    canvas: Tensor, texture: Tensor, coarse: Tensor, draws: Draws, colours: Tensor, size: tuple[int, int], share: Tensor
) -> Tensor:
    """Lay one leaf, with the given probability (B, 1), into each cell of the canvas (B, 3, h, w)."""
    height, width = canvas.shape[-2:]
    cells = (height // size[0]) * (width // size[1])
    u = list(draws.uniform(_SHAPE_DRAWS + 6, cells).unbind(1))
    wiggle = _to_cells(coarse[:, None], size)[:, 0]
    if min(size) < SIDE_UNIT:
        # Small leaves stand together and leave plain places between.
        share = (share * (0.4 + 1.2 * wiggle[..., size[0] * size[1] // 2])).clamp_max(0.8)
    shade, alpha = _shapes(u, size, (u[-1] < share).float())

    choice = (u[-2] * PALETTE_SIZE).long()
    colour = torch.gather(colours, 1, choice[..., None].expand(-1, -1, 3)) * (0.75 + 0.5 * u[-3])[..., None]
    # Most surfaces are nearly plain, a few are rough.
    strength = 0.002 * (u[-4] * math.log(120)).exp()
    value = shade.addcmul_(_to_cells(texture[:, None], size)[:, 0], strength[..., None])
    ragged = (u[-5] * 1.5 - 0.5).clamp_min(0).square() * 0.12 * min(size)
    alpha = alpha.addcmul_(wiggle, ragged[..., None]).clamp_(0, 1)
    # Large leaves are objects and mostly opaque; small ones are mostly detail on objects, of every contrast.
    faintest = 0.02 if min(size) < 30 else 0.05
    opacity = (u[-6] * 1.25).clamp_max(1) if min(size) >= SIDE_UNIT else faintest ** (u[-6] * 1.08 - 0.08).clamp_min(0)
    alpha = alpha * opacity[..., None]
    ground = _to_cells(canvas, size)
    painted = colour.transpose(1, 2)[..., None] * value[:, None]
    painted.sub_(ground)
    return _from_cells(ground.addcmul_(painted, alpha[:, None]), size, height, width)


def dead_leaves(draws: Draws, config: SyntheticConfig, height: int, width: int, passes: tuple[int, ...]) -> Canvas:
    """Scenes of textured leaves over a gradient: colour (B, 3, h, w) and the noise they were textured with.

    Height and width are multiples of SIDE_UNIT.
    """
    fields = noise_fields(draws.fork("noise"), height, width)
    look = draws.fork("look")
    colours = palette(look, config.saturation)
    coarse, fine = fields[:, 1], fields[:, 2]
    crowd = _clutter(look, config.clutter)

    materials = torch.cat([fields, gratings(look, height, width)[:, None]], 1)
    weights = look.uniform(_TEXTURES, materials.shape[1]).pow(4)
    weights[:, :, 4] *= look.happens(0.3, _TEXTURES)
    weights = weights / weights.square().sum(-1, keepdim=True).sqrt()
    textures = (weights @ materials.flatten(2)).view(len(draws), _TEXTURES, height, width)

    tone = torch.sigmoid(coarse * look.uniform(1, 1, low=0.1, high=2.0) + look.normal(1, 1))
    base = torch.lerp(colours[:, 0, :, None, None], colours[:, 1, :, None, None], tone[:, None])
    roughness = look.log_uniform(1, 1, low=0.002, high=0.2)
    canvas = base * (1 + roughness * textures[:, 0])[:, None]
    leaves = draws.fork("leaves")
    for number, cell in enumerate(passes):
        size = (cell, cell) if cell > 2 else (height // cell, width // cell)
        # The torus is turned before each pass, so that no two passes share the borders of their cells.
        turn = (number * 37 + 11) % height, (number * 53 + 29) % width
        canvas = torch.roll(canvas, turn, (-2, -1))
        share = crowd * (0.6 if cell >= SIDE_UNIT else 0.4) if cell > 2 else (0.35 + 0.4 * crowd)
        texture = textures[:, number % _TEXTURES]
        canvas = _leaf_pass(canvas, texture, coarse, leaves, colours, size, share)
    canvas = _finish(canvas, draws, config, coarse)
    return Canvas(canvas, coarse, fine)


def _clutter(draws: Draws, median: float) -> Tensor:
    """(B, 1) in 0..1: crowding of each scene, with a median of `median`."""
    exponent = math.log(max(median, 1e-3)) / math.log(0.5)
    return draws.uniform(1).pow(exponent)


def _finish(canvas: Tensor, draws: Draws, config: SyntheticConfig, coarse: Tensor) -> Tensor:
    """Chroma variation within surfaces, highlights and text."""
    look = draws.fork("finish")
    tint = look.normal(3, 1, 1) * 0.015
    canvas = canvas * (1 + tint * coarse[:, None])
    lamps = torch.nonzero(look.happens(0.05).cpu())[:, 0]
    if len(lamps):
        canvas[lamps] = _highlights(canvas[lamps], draws.fork("lamps").select(lamps))
    written = torch.nonzero(look.happens(config.text_share).cpu())[:, 0]
    if len(written):
        height, width = canvas.shape[-2:]
        ink, alpha = text(draws.fork("text").select(written), height, width)
        canvas[written] = torch.lerp(canvas[written], ink, alpha[:, None])
    return canvas


def _highlights(canvas: Tensor, draws: Draws) -> Tensor:
    """Small lamps and glints brighter than white, which defocus later turns into discs."""
    height, width = canvas.shape[-2:]
    size = (20, 20)
    cells = (height // 20) * (width // 20)
    u = list(draws.uniform(_SHAPE_DRAWS + 1, cells).unbind(1))
    present = (u[-1] < draws.uniform(1).square() * 0.4).float()
    _, alpha = _shapes(u, size, present)
    glow = _from_cells(alpha.clamp_(0, 1)[:, None], size, height, width)
    colour = draws.log_uniform(1, 1, 1, low=1.2, high=6.0) * draws.uniform(3, 1, 1, low=0.7, high=1.0)
    return torch.lerp(canvas, colour, glow)


def text(draws: Draws, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Lines of glyph-like strokes inside a rectangle.

    Returns:
        ink (B, 3, 1, 1) in 0..1 and alpha (B, h, w) in 0..1.
    """
    device = draws.device
    angle = draws.normal(1, 1) * 0.06
    y = torch.arange(height, device=device).view(1, -1, 1) - draws.uniform(1, 1, low=0.2, high=0.8) * height
    x = torch.arange(width, device=device).view(1, 1, -1) - draws.uniform(1, 1, low=0.2, high=0.8) * width
    cos, sin = angle.cos(), angle.sin()
    line = draws.log_uniform(1, 1, low=8.0, high=48.0)
    across = (x * cos + y * sin) / (0.55 * line)
    down = (y * cos - x * sin) / line
    column, row = across.floor(), down.floor()
    across = across - column - 0.5
    down = (down - row - 0.5) * 1.6

    # Glyphs repeat with a period of 16 cells each way, each three strokes between points of a 3 x 3 lattice.
    glyph = (row.long() & 15) * 16 + (column.long() & 15)
    strokes = (draws.uniform(3, 4, 256) * 3).floor() * 0.32 - 0.32
    blank = draws.happens(0.2, 256)
    nearest = torch.full_like(across, 1e3)
    picked = glyph.flatten(1)
    for ends in strokes.unbind(1):
        ax, ay, bx, by = (torch.gather(ends[:, i], 1, picked).view_as(across) for i in range(4))
        nearest = torch.minimum(nearest, _to_segment(across, down, ax, ay, bx, by))
    nearest += torch.gather(blank, 1, picked).view_as(across) * 1e3
    weight = draws.uniform(1, 1, low=0.04, high=0.12)
    sharp = 0.55 * line
    alpha = ((weight - nearest) * sharp + 0.5).clamp_(0, 1)
    lines = draws.log_uniform(1, 1, low=0.7, high=6.0)
    letters = draws.log_uniform(1, 1, low=3.0, high=16.0)
    inside = ((row + 0.5).abs() < lines) & ((column + 0.5).abs() < letters)
    ink = draws.happens(0.5, 1, 1, 1) * 0.9 + draws.uniform(3, 1, 1, high=0.1)
    return ink, alpha * inside * draws.uniform(1, 1, low=0.4, high=1.0)


def _to_segment(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor) -> Tensor:
    """Distance from (x, y) to the segment from a to b, elementwise."""
    dx, dy = bx - ax, by - ay
    along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).clamp_min(1e-6)
    along.clamp_(0, 1)
    return ((x - ax - along * dx).square() + (y - ay - along * dy).square()).sqrt()


def silhouettes(draws: Draws, canvas: Canvas) -> Tensor:
    """Shapes of objects in front of the background: (B, 1, h, w) opacity, 0 at the canvas's borders.

    Each is the union of up to four rounded parts; contours run from clean (made by hand) to ragged and furry.
    """
    height, width = canvas.coarse.shape[-2:]
    device = draws.device
    y = torch.linspace(-1, 1, height, device=device).view(1, -1, 1)
    x = torch.linspace(-1, 1, width, device=device).view(1, 1, -1)
    parts = 4
    shape = (parts, 1, 1)
    spread = draws.uniform(1, 1, 1, high=0.45)
    first = torch.tensor([0.0, 1.0, 1.0, 1.0], device=device).view(1, parts, 1, 1)
    centre_x, centre_y = ((draws.uniform(*shape) - 0.5) * 2 * spread * first for _ in range(2))
    radius = draws.log_uniform(*shape, low=0.12, high=0.5)
    radius = radius * (1 - first * (1 - draws.happens(0.7, *shape)) * 0.999)
    aspect = draws.log_uniform(*shape, low=0.3, high=1.0)
    angle = draws.uniform(*shape, high=math.pi)
    cos, sin = angle.cos(), angle.sin()
    dx, dy = x[:, None] - centre_x, y[:, None] - centre_y
    major = (dx * cos + dy * sin) / radius
    minor = (dy * cos - dx * sin) / (radius * aspect)
    square = draws.uniform(*shape, low=-1.0, high=1.5).clamp(0, 1)
    distance = torch.lerp((major.square() + minor.square()).sqrt(), torch.maximum(major.abs(), minor.abs()), square)
    inside = ((1 - distance) * radius * aspect).amax(1)
    natural = draws.happens(0.6, 1, 1)
    inside = inside + natural * (
        draws.uniform(1, 1, high=0.1) * canvas.coarse + draws.uniform(1, 1).pow(3) * 0.06 * canvas.fine
    )
    edge = draws.log_uniform(1, 1, low=0.9, high=2.5)
    alpha = (inside * (min(height, width) / 2) / edge + 0.5).clamp_(0, 1)
    margin = ((1 - torch.maximum(x.abs(), y.abs())) * 8).clamp_(0, 1)
    return (alpha * margin)[:, None]


def screens(draws: Draws, canvas: Canvas) -> Tensor:
    """Foliage, fences and the like, with holes, over the whole torus: (B, 1, h, w) opacity."""
    kind = draws.happens(0.5, 1, 1)
    field = torch.lerp(canvas.coarse, 0.5 * canvas.coarse + canvas.fine, kind)
    cover = draws.uniform(1, 1, low=0.4, high=1.4)
    alpha = (field - cover) * draws.log_uniform(1, 1, low=3.0, high=20.0)
    return alpha.clamp_(0, 1)[:, None]


def shaded(canvas: Canvas, alpha: Tensor, draws: Draws) -> Tensor:
    """(B, 4, h, w): colour multiplied by opacity, and opacity; with rim shading and a soft shadow behind the shape."""
    small = F.avg_pool2d(alpha, 4)
    small = F.avg_pool2d(small, 7, stride=1, padding=3, count_include_pad=False)
    soft = F.interpolate(small, size=alpha.shape[-2:], mode="bilinear", align_corners=False)
    rim = 1 - draws.uniform(1, 1, 1, high=0.7) * (1 - soft)
    reach = draws.uniform(1, 1, 1, high=0.45) * draws.happens(0.6, 1, 1, 1)
    opacity = draws.uniform(1, 1, 1, low=0.45, high=1.0)
    see_through = draws.happens(0.08, 1, 1, 1)
    alpha = alpha * torch.where(see_through > 0, opacity, torch.ones_like(opacity))
    shadow = torch.roll(soft, (6, 4), (-2, -1)) * reach
    return torch.cat([canvas.colour * rim * alpha, alpha + shadow * (1 - alpha)], 1)
