"""The options of procedural clips."""

from dataclasses import dataclass
from typing import Annotated

from vidtok.errors import ConfigError
from vidtok.fields import Within, check

_Count = Annotated[int, Within(1, 1 << 20)]
_Side = Annotated[int, Within(16, 1 << 14)]
_Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class SyntheticConfig:
    """The clips that `synthetic_batch` and `SyntheticClips` make.

    Lengths are in output pixels and do not follow the frame's size: the pixel statistics match video whose
    shorter side is about 256 pixels, so a clip of 128 x 128 looks like a crop of such a video.

    Attributes:
        frames, height, width: the clip's shape (T, H, W); height and width from 16 up.
        clips_per_scene: successive indices that share the rendered textures, each with its own camera, objects' paths,
            light and crop. Above 1 is cheaper and less varied.
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
        low_contrast_share: share of clips that keep 4% to 60% of their contrast (blank walls, haze, dark rooms).

    Raises:
        ConfigError: a value is out of its range.
    """

    frames: _Count = 17
    height: _Side = 128
    width: _Side = 128
    clips_per_scene: _Count = 1
    max_objects: Annotated[int, Within(0, 8)] = 3
    static_share: Annotated[float, Within(0, 0.5)] = 0.25
    cut_share: _Share = 0.05
    max_speed: Annotated[float, Within(0.1, 100)] = 16.0
    warp_share: _Share = 0.2
    clutter: _Share = 0.4
    saturation: Annotated[float, Within(0, 4)] = 1.0
    text_share: _Share = 0.12
    light_share: _Share = 0.3
    max_defocus: Annotated[float, Within(0, 32)] = 6.0
    motion_blur: _Share = 0.8
    max_noise: _Share = 0.02
    overlay_share: _Share = 0.06
    letterbox_share: _Share = 0.05
    low_contrast_share: _Share = 0.0

    def __post_init__(self) -> None:
        try:
            check(self)
        except ConfigError as error:
            raise ConfigError(f"synthetic clips: {error}. Change it in the data section.") from None
