"""The figures of a reconstruction as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidtok.jobs.reconstruct import Reconstruction
    from vidtok.tokenizer import Tokenizer
    from vidtok.video import Fit

_LITTLE_KEPT = 2 / 3
"""The share of the picture below which a hint says how to keep more."""


def size_text(height: int, width: int, source: tuple[int, int] | None, fit: Fit | None) -> str:
    """The size of frames, and the larger picture of size `source` that they were cut from or scaled from."""
    text = f"{width} x {height} pixels"
    if source is None or fit is None or source == (height, width):
        return text
    how = "cropped" if fit.kept < 1 and fit.resized != fit.cropped else "scaled"
    return f"{text}, {how} from {source[1]} x {source[0]}"


def crop_hint(source: tuple[int, int] | None, fit: Fit | None) -> str:
    """Advice for a crop that loses much of the picture; empty for others."""
    if source is None or fit is None or fit.kept >= _LITTLE_KEPT:
        return ""
    height, width = fit.cropped[0], -(-fit.resized[1] // 8) * 8
    wide = f"--height {height} --width {width} or " if fit.resized[0] == fit.cropped[0] else ""
    return f"the crop leaves {fit.kept:.0%} of the picture; {wide}--size original keeps all of it"


def summary(result: Reconstruction, model: Tokenizer) -> str:
    """The figures of `result` as lines of text."""
    from vidtok.cli.info import tiles
    from vidtok.metrics.image import SSIM_SMALLEST_SIDE
    from vidtok.metrics.rate import LATENT_BITS

    channels, frames, height, width = result.latent_shape
    streams = ", ".join(f"{s.name} {' x '.join(map(str, (s.channels, *s.positions)))}" for s in model.config.parts)
    grid = f"{frames} x {height} x {width}"
    if streams:
        size = ("latent", f"{frames} clips of {channels:,} values ({streams}), counted as {LATENT_BITS} bits each")
    elif result.tokens is None:
        values = f"{channels * frames * height * width:,} values, counted as {LATENT_BITS} bits each"
        size = ("latent", f"{channels} channels x {grid} (T x H x W), {values}")
    else:
        size = ("tokens", f"{result.tokens:,} ({grid}, T x H x W), each one of {result.codebook_size:,}")
    undefined = f"not defined below {SSIM_SMALLEST_SIDE} pixels a side"
    pixels = size_text(result.height, result.width, result.source_size, result.fit)
    rate = "" if result.output.suffix.lower() == ".png" else f", {float(result.fps):.6g} a second"
    rows = [
        ("output", str(result.output)),
        ("model", f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}"),
        ("decoder", model.decoder_name),
        ("frames", f"{result.frames:,}{rate}, {pixels}"),
        ("PSNR", f"{result.psnr:.2f} dB"),
        ("SSIM", undefined if result.ssim is None else f"{result.ssim:.4f}"),
        size,
        ("rate", f"{result.bits_per_pixel:.4f} bits per pixel, {result.compression:.1f} times smaller than 24-bit RGB"),
        ("time", f"{result.seconds:.2f} s, {result.frames_per_second:.2f} frames a second"),
    ]
    at = 4  # further rows follow on the frames
    grid_of_tiles = result.tiling and result.tiling.grid((result.height, result.width), model.config.spatial_factor)
    if grid_of_tiles:
        rows.insert(at, tiles(grid_of_tiles))
    if result.truncated:
        rows.insert(at, ("damage", f"the input is damaged after {result.frames:,} frames; the rest is left out"))
    if result.sound_left_out:
        rows.insert(at, ("sound", "left out, since only a part of the video was asked for"))
    if result.output.suffix.lower() != ".png" and (result.height % 2 or result.width % 2):
        rows.insert(at, ("file", "one pixel larger where a side is odd: H.264 wants even sides"))
    return "\n".join(f"{name:<8}{value}" for name, value in rows)
