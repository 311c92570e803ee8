"""The knobs of the procedural clips."""

import math
from dataclasses import dataclass, fields

from vidtok.errors import ConfigError

_COUNTS = ("frames", "height", "width", "clips_per_scene", "max_objects")


@dataclass(frozen=True)
class SyntheticConfig:
    """What `synthetic_batch` and `SyntheticClips` make.

    Lengths are in output pixels and do not follow the frame's size: the pixel statistics are those of video whose
    shorter side is about 256 pixels, so a clip of 128 x 128 looks like a crop of such a video.

    Attributes:
        frames, height, width: the clip's shape (T, H, W); height and width from 16 up.
        clips_per_scene: how many successive indices share the rendered textures, each with its own camera, objects'
            paths, light and crop. Above 1 is cheaper and less varied.
        max_objects: the most moving objects in front of the background (0 to 8).
        static_share: share of clips whose camera stands still; as many again are nearly still (hand-held).
        cut_share: share of clips with a cut to another view.
        max_speed: fastest pan or object, in pixels a frame; speeds are spread evenly over its logarithm.
        warp_share: share of layers that bend (water, cloth, faces).
        clutter: 0 for bare scenes, 1 for crowded ones; scenes vary around it.
        saturation: multiplies the palettes' saturation; 0 makes them nearly grey.
        text_share: share of textures that carry text-like strokes.
        light_share: share of clips whose light changes (drift, flicker, flash, fade, moving shadow).
        max_defocus: largest defocus radius.
        motion_blur: largest share of the frame interval during which the shutter is open.
        max_noise: largest standard deviation of sensor noise, for a signal of 0..1.
        overlay_share: share of clips with a still caption on top.
        letterbox_share: share of clips with black bars.
        low_contrast_share: share of clips of 4% to 60% of their contrast (blank walls, haze, dark rooms).

    Raises:
        ConfigError: a value is out of its range.
    """

    frames: int = 17
    height: int = 128
    width: int = 128
    clips_per_scene: int = 1
    max_objects: int = 3
    static_share: float = 0.25
    cut_share: float = 0.05
    max_speed: float = 16.0
    warp_share: float = 0.2
    clutter: float = 0.4
    saturation: float = 1.0
    text_share: float = 0.12
    light_share: float = 0.3
    max_defocus: float = 6.0
    motion_blur: float = 0.8
    max_noise: float = 0.02
    overlay_share: float = 0.06
    letterbox_share: float = 0.05
    low_contrast_share: float = 0.0

    def __post_init__(self) -> None:
        lowest = {"height": 16, "width": 16, "max_objects": 0}
        highest = {"max_objects": 8, "static_share": 0.5, "max_speed": 100, "saturation": 4, "max_defocus": 32}
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _COUNTS:
                if isinstance(value, bool) or not isinstance(value, int) or value < lowest.get(name, 1):
                    _refuse(name, value, f"a whole number from {lowest.get(name, 1)} up")
                if value > highest.get(name, value):
                    _refuse(name, value, f"at most {highest[name]}")
                continue
            least, most = (0.1 if name == "max_speed" else 0), highest.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                _refuse(name, value, f"a number from {least} to {most}")
            if not least <= value <= most:
                _refuse(name, value, f"a number from {least} to {most}")


def _refuse(name: str, value: object, expected: str) -> None:
    raise ConfigError(f"synthetic clips: {name} is {value!r}; expected {expected}. Change it in the data section.")
