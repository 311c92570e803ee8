"""The way from the scene to the file: focus, shutter, light, sensor, captions and black bars."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.draws import Draws
from vidtok.synthetic.textures import frequencies, text


def blur(planes: Tensor, sigma: Tensor, disc: Tensor, streak: Tensor, sharpening: Tensor) -> Tensor:
    """Blur toroidal planes (B, C, h, w) in the Fourier domain.

    Args:
        sigma: (B,) standard deviation of a Gaussian (lens, anti-aliasing), in texels.
        disc: (B,) radius of a disc (defocus), in texels.
        streak: (B, 2) path (x, y) during the exposure, in texels.
        sharpening: (B,) strength of unsharp masking, as cameras apply it; 0 for none.
    """
    height, width = planes.shape[-2:]
    fy, fx = frequencies(height, width, planes.device)
    square = fy.square() + fx.square()
    transfer = torch.exp((-2 * math.pi**2) * sigma.square()[:, None, None] * square)
    if bool((disc > 0).any()):
        argument = (2 * math.pi) * disc[:, None, None] * square.sqrt()
        small = argument < 1e-3
        airy = 2 * torch.special.bessel_j1(argument) / torch.where(small, torch.ones_like(argument), argument)
        transfer = transfer * torch.where(small, torch.ones_like(airy), airy)
    if bool((streak != 0).any()):
        transfer = transfer * torch.sinc(fx * streak[:, 0, None, None] + fy * streak[:, 1, None, None])
    if bool((sharpening > 0).any()):
        mask = 1 - torch.exp((-2 * math.pi**2 * 1.5**2) * square)
        transfer = transfer * (1 + sharpening[:, None, None] * mask)
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(planes) * transfer[:, None], s=(height, width))
    return blurred


def lens(draws: Draws, config: SyntheticConfig, texels_per_pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sigma, disc and sharpening (B,) for `blur`, in texels, of canvases seen at `texels_per_pixel` (B,)."""
    softness = draws.uniform(low=0.4, high=1.0) + draws.happens(0.2) * draws.uniform(high=1.0)
    # Bilinear sampling itself blurs by about half a texel; a reduced picture is blurred so as not to alias.
    aliasing = 0.5 * (texels_per_pixel - 1).clamp_min(0)
    sigma = torch.maximum(softness * texels_per_pixel.clamp_max(1.6) - 0.35, aliasing)
    defocused = draws.happens(0.3)
    disc = defocused * draws.uniform().square() * config.max_defocus * texels_per_pixel
    sharpening = draws.happens(0.2) * draws.uniform(high=0.8) * (1 - defocused)
    return sigma, disc, sharpening


def relight(video: Tensor, draws: Draws, config: SyntheticConfig, times: Tensor, shot: Tensor) -> Tensor:
    """Brightness and colour over time, and shadows; `video` is (B, 3, T, H, W), `times` and `shot` are (B, T)."""
    count = times.shape[1]
    changing = draws.happens(config.light_share, 1)
    drifting = draws.normal(1) * 0.015 * times
    flicker = draws.happens(0.3, 1) * draws.uniform(1, high=0.06) * draws.normal(count)
    flash = draws.happens(0.08, 1) * draws.uniform(1, low=0.2, high=1.0)
    flash = flash * (times - draws.uniform(1, low=-0.5, high=0.5) * count).abs().lt(1.0)
    fade = draws.happens(0.06, 1) * (times / max(count, 2) + 0.5).clamp(0, 1)
    gain = changing * (drifting + flicker + flash) + draws.normal(1) * 0.35 * shot
    gain = gain.clamp(-1.5, 1.0).exp() * (1 - changing * fade)
    warmth = (
        changing[..., None] * draws.normal(1, 1) * 0.006 * times[..., None] + draws.normal(1, 1) * 0.1 * shot[..., None]
    )
    tint = 1 + warmth.clamp(-0.25, 0.25) * torch.tensor([1.0, 0.0, -1.0], device=video.device)
    video = video * (gain[..., None] * tint).permute(0, 2, 1)[..., None, None]

    shaded = torch.nonzero((draws.uniform() < config.light_share).cpu())[:, 0]
    if len(shaded):
        chosen = draws.fork("shadow").select(shaded)
        video[shaded] = video[shaded] * _shadow(chosen, video.shape[2:])
    return video


def _shadow(draws: Draws, shape: torch.Size) -> Tensor:
    """(B, 1, T, H, W): soft light and shade, still or moving, and darker corners."""
    pattern = draws.normal(1, 2, 4, 4) * draws.uniform(1, 1, 1, 1, high=0.35)
    moving = draws.happens(0.5, 1, 1, 1, 1)
    pattern = torch.cat([pattern[:, :, :1], torch.lerp(pattern[:, :, :1], pattern[:, :, 1:], moving)], 2)
    return F.interpolate(pattern.clamp(-1, 0.5).exp(), size=tuple(shape), mode="trilinear", align_corners=True)


def sensor_noise(video: Tensor, draws: Draws, sigma: Tensor) -> Tensor:
    """Add noise of standard deviation `sigma` (B,) to `video` (B, 3, T, H, W) in 0..1; 0 leaves a clip unchanged."""
    rows = torch.nonzero((sigma > 0).cpu())[:, 0]
    if not len(rows):
        return video
    count, height, width = video.shape[2:]
    slack = 32
    plane = draws.select(rows).pairs(2, height + slack, width + slack)
    light, colour = plane[:, 0, :, :, :1], plane[:, 1]
    field = torch.cat([light + 0.5 * colour[..., :1], light, light + 0.5 * colour[..., 1:]], -1).permute(0, 3, 1, 2)
    # One field, cut out elsewhere for each frame, costs less than a field for each frame and looks the same.
    cuts = [((7 * t) % slack, (13 * t + 5 * (t // slack)) % slack) for t in range(count)]
    frames = torch.stack([field[:, :, top : top + height, left : left + width] for top, left in cuts], 2)
    strength = sigma.to(video.device)[rows.to(video.device)].view(-1, 1, 1, 1, 1) * math.sqrt(3)
    if len(rows) == len(video):
        return video.addcmul_(frames, strength)
    video[rows] = video[rows].addcmul_(frames, strength)
    return video


def fade_contrast(video: Tensor, draws: Draws, config: SyntheticConfig) -> Tensor:
    """Reduce the contrast of a share `low_contrast_share` of the clips (B, 3, T, H, W), around a new level."""
    rows = torch.nonzero(draws.happens(config.low_contrast_share).cpu())[:, 0]
    if not len(rows):
        return video
    draws = draws.fork("faded").select(rows)
    contrast = draws.log_uniform(1, 1, 1, 1, low=0.04, high=0.6)
    level = draws.uniform(1, 1, 1, 1, low=0.06, high=0.94) + draws.normal(3, 1, 1, 1) * 0.03
    rows = rows.to(video.device)
    clips = video[rows]
    video[rows] = (clips - clips.mean((1, 2, 3, 4), keepdim=True)) * contrast + level
    return video


def caption(video: Tensor, draws: Draws, config: SyntheticConfig) -> Tensor:
    """A still caption or logo over some of the clips (B, 3, T, H, W)."""
    rows = torch.nonzero(draws.happens(config.overlay_share).cpu())[:, 0]
    if len(rows):
        ink, alpha = text(draws.fork("caption").select(rows), config.height, config.width)
        video[rows] = torch.lerp(video[rows], ink[:, :, None], alpha[:, None, None])
    return video


def letterbox(video: Tensor, draws: Draws, config: SyntheticConfig) -> Tensor:
    """Black bars above, below or at the sides of some of the clips (B, 3, T, H, W)."""
    boxed, upright = draws.happens(config.letterbox_share), draws.uniform() < 0.3
    low, high = draws.uniform(2, low=-0.05, high=0.2).clamp_min(0).unbind(1)
    rows = torch.nonzero(boxed.cpu())[:, 0].tolist()
    for row in rows:
        axis, length = (-1, config.width) if bool(upright[row]) else (-2, config.height)
        first, last = round(float(low[row]) * length), round(float(high[row]) * length)
        video[row].narrow(axis, 0, first).zero_()
        video[row].narrow(axis, length - last, last).zero_()
    return video
