"""The VidTwin autoencoder (Wang et al., arXiv 2412.17726), for clips of one length and frames of one size.

::

    video (B, 3, T, H, W)
      |
    space-time transformer -> features (B, T, S, C), S = H' W'
      |                                     |
    Q-Former over the frames              stride-2 convolutions in every frame
    of each position                        |                    |
      |                                   mean over height     mean over width
    stride-2 convolutions                   |                    |
      |                                     |                    |
    structure (B, Q, h, w, z)             dynamics_x           dynamics_y (B, z', T, h)
      |                                     |                    |
    convolutions, Q tokens to T frames    linear layers        linear layers
      |                                     |                    |
      +------------------ sum, repeated over height and width ---+
                                  |
                      space-time transformer -> video

Parameter names and shapes are as in the published checkpoint. Features are channels-last, (B, T, H', W', C).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor, nn

from vidtok.models.base import VideoModel
from vidtok.models.bottleneck import DiagonalGaussian, RegLog
from vidtok.models.padding import Size, check_video, crop, pad_frames, padded_frames
from vidtok.models.plain import is_plain
from vidtok.models.vidtwin.config import VidTwinConfig
from vidtok.models.vidtwin.qformer import QFormer, QFormerLayer
from vidtok.models.vidtwin.resize import fit_frames
from vidtok.models.vidtwin.transformer import Decoder, Encoder, SpaceTimeBlock


class TwinLatent(NamedTuple):
    """The latent of a video of n clips; decoding leaves out a part that is None."""

    structure: Tensor | None
    """(B, n Q, h, w, z): content and overall motion; Q tokens for each clip."""
    dynamics_x: Tensor | None
    """(B, z', n T, w): changes from frame to frame, by column."""
    dynamics_y: Tensor | None
    """(B, z', n T, h): changes from frame to frame, by row."""


class VidTwinAutoencoder(VideoModel):
    """Encoder of structure and dynamics, and decoder, as a checkpoint of the family holds them.

    Videos of any length are taken in clips of `config.frames` frames, the last one filled up with its last frame.
    Frames of another size are resized by the shorter side and cropped in the centre to the model's own size.
    """

    encoding_modules = (
        "encoder", "temporal_qformer", "conv_in", "content_downsample_blocks", "bottle_down",
        "downsample_motion_module", "motion_head",
    )  # fmt: skip
    decoding_modules = (
        "bottle_up", "content_upsample_blocks", "conv_out", "cont_emb", "motion_emb", "up_motion", "decoder",
    )  # fmt: skip
    derived: ClassVar[tuple[str, ...]] = tuple(
        f"{part}.{name}" for part in ("encoder", "decoder") for name in ("pos_embed", "pos_embed_temporal")
    )
    sharded_blocks = (SpaceTimeBlock, QFormerLayer)

    config: VidTwinConfig
    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: VidTwinConfig) -> None:
        super().__init__()
        self.config = config
        channels, query, init = config.hidden_size, config.qformer.hidden_size, config.init_ch
        widths = [init << i for i in range(config.cont_num_blocks + 1)]
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.regularization = DiagonalGaussian(config.bottleneck)
        self.temporal_qformer = QFormer(config.qformer, channels)
        self.conv_in = _conv(query, init)
        self.content_downsample_blocks = nn.Sequential(*_down(widths))
        self.bottle_down = _conv(widths[-1], 2 * config.expect_ch)
        self.bottle_up = nn.Sequential(_conv(config.expect_ch, widths[-1]), nn.ReLU())
        self.content_upsample_blocks = nn.Sequential(*_up(widths[::-1]))
        self.conv_out = _conv(init, query)
        self.cont_emb = nn.Sequential(
            nn.Linear(query, channels), nn.ReLU(), nn.Conv1d(config.qformer.num_queries, config.frames, 1), nn.ReLU()
        )
        self.downsample_motion_module = nn.Sequential(*_down([channels] * (config.motion_num_blocks + 1)))
        self.motion_head = _conv(channels, 2 * config.d_dim)
        self.motion_emb = nn.Sequential(
            nn.Linear(config.d_dim, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU()
        )
        self.up_motion = nn.Sequential(
            nn.Linear(config.dynamics_grid, config.grid), nn.ReLU(), nn.Linear(config.grid, config.grid), nn.ReLU()
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes the video."""
        return cast(nn.Parameter, self.decoder.final_layer.linear.weight)

    def moments(self, video: Tensor) -> TwinLatent:  # type: ignore[override]  # of three parts
        """The posteriors of the three parts: a latent with twice the channels, means before log-variances.

        `video` is (B, 3, T, H, W) in -1..1 of any size; raises `ValueError` if it has another shape or dtype.
        """
        check_video(video, self.config)
        video = pad_frames(video, padded_frames(video.shape[2], self.config))
        parts = [self._clip_moments(clip) for clip in torch.split(video, self.config.frames, 2)]
        structure, dynamics_x, dynamics_y = (
            torch.cat(part, dim) for part, dim in zip(zip(*parts, strict=True), _TIME, strict=True)
        )
        return TwinLatent(structure, dynamics_x, dynamics_y)

    @overload  # type: ignore[override]  # the latent has parts
    def encode(
        self, video: Tensor, return_reg_log: Literal[False] = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> TwinLatent: ...  # fmt: skip

    @overload
    def encode(
        self, video: Tensor, return_reg_log: Literal[True], *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> tuple[TwinLatent, RegLog]: ...  # fmt: skip

    def encode(
        self, video: Tensor, return_reg_log: bool = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> TwinLatent | tuple[TwinLatent, RegLog]:  # fmt: skip
        """Encode a video.

        Args:
            video: (B, 3, T, H, W), float in -1..1, T, H, W >= 1.
            return_reg_log: return the log too: "kl_loss", summed over everything in the three parts and divided by B.
            sample: draw from the posteriors (True) or take their modes (False); None: as `regularization.sample` says.
            generator: source of the noise; the same seed gives the same latent.
            step: has no effect here.

        Returns:
            The `TwinLatent`, or it and the log.

        Raises:
            ValueError: the video has another shape or dtype.
        """
        drawn: list[Tensor] = []
        kl = torch.zeros((), device=self.device)
        for moments, order in zip(cast("tuple[Tensor, ...]", self.moments(video)), _CHANNELS_FIRST, strict=True):
            z, log = self.regularization(moments.permute(order), sample=sample, generator=generator)
            drawn.append(z.permute(_inverse(order)))
            kl = kl + log["kl_loss"]
        latent = TwinLatent(*drawn)
        return (latent, {"kl_loss": kl}) if return_reg_log else latent

    def decode(  # type: ignore[override]  # the latent has parts
        self, z: TwinLatent, decode_from_indices: bool = False, *, size: Size | None = None
    ) -> Tensor:
        """Decode a latent. Parts that are None are left out, for structure alone or dynamics alone.

        Args:
            z: the latent that `encode` returned; its parts may be of different videos of one length.
            decode_from_indices: must be False, since there are no token indices here.
            size: frames, height and width to crop to; None: all that is decoded.

        Returns:
            (B, 3, T, H, W), about -1..1, of whole clips in the model's own frame size.

        Raises:
            ValueError: the parts have shapes or dtypes that this model cannot decode, or do not fit each other.
        """
        if decode_from_indices:
            raise ValueError("VidTwin has no token indices; decode the latent that encode returned")
        parts = TwinLatent(*z)
        check_latent(parts, self.config)
        clips = [self.decoder(self._features(part)) for part in _clips(parts, self.config)]
        video = torch.cat(clips, 2)
        return video if size is None else crop(video, size)

    def forward(
        self, video: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[TwinLatent, Tensor, RegLog]:
        """Latent, reconstruction of as many frames as `video` in the model's own frame size, and the log."""
        latent, log = self.encode(video, True, sample=sample, generator=generator, step=step)
        return latent, self.decode(latent)[:, :, : video.shape[2]], log

    def recombine(self, structure: TwinLatent | None, dynamics: TwinLatent | None) -> TwinLatent:
        return TwinLatent(
            structure=None if structure is None else structure.structure,
            dynamics_x=None if dynamics is None else dynamics.dynamics_x,
            dynamics_y=None if dynamics is None else dynamics.dynamics_y,
        )

    def pack(self, latent: TwinLatent) -> Tensor:
        """A whole latent of n clips as one tensor (B, z, n, 1, 1). Raises `ValueError` if it does not fit."""
        check_latent(latent, self.config)
        flat = []
        for part, order, stream in zip(latent, _CHANNELS_FIRST, self.config.parts, strict=True):
            if part is None:
                raise ValueError("a latent without structure or without dynamics cannot be packed; expected both")
            clips = torch.unflatten(part.permute(order), 2, (-1, stream.positions[0]))
            flat.append(clips.movedim(2, 1).flatten(2))
        return torch.cat(flat, 2).movedim(1, 2)[..., None, None]

    def unpack(self, packed: Tensor) -> TwinLatent:
        """The latent that `pack` packed. Raises `ValueError` for another shape."""
        z = self.config.z_channels
        if packed.dim() != 5 or packed.shape[1] != z or tuple(packed.shape[3:]) != (1, 1):
            raise ValueError(f"the packed latent has shape {tuple(packed.shape)}; expected (B, {z}, clips, 1, 1)")
        parts = []
        flat = torch.split(packed[..., 0, 0].movedim(1, 2), [stream.values for stream in self.config.parts], 2)
        for values, order, stream in zip(flat, _CHANNELS_FIRST, self.config.parts, strict=True):
            clips = torch.unflatten(values, 2, (stream.channels, *stream.positions)).movedim(1, 2).flatten(2, 3)
            parts.append(clips.permute(_inverse(order)))
        return TwinLatent(*parts)

    def _clip_moments(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of one clip (B, 3, T, H, W): (B, Q, h, w, 2 z), (B, 2 z', T, w), (B, 2 z', T, h)."""
        clip = fit_frames(clip.to(self.device), self.config.frame_size).to(self.dtype)
        features = cast(Tensor, self.encoder(clip))
        return self._structure_moments(features), *self._dynamics_moments(features)

    def query_tokens(self, features: Tensor) -> Tensor:
        """The Q-Former's tokens (B S, Q, D) for features (B, T, S, C)."""
        return cast(Tensor, self.temporal_qformer(features.transpose(1, 2).flatten(0, 1)))

    def _structure_moments(self, features: Tensor) -> Tensor:
        batch, grid = len(features), self.config.grid
        tokens = torch.unflatten(self.query_tokens(features), 0, (batch, grid, grid))
        # The tokens of each query make an image over the grid.
        pictures = tokens.permute(0, 3, 4, 1, 2).flatten(0, 1)
        h = self.bottle_down(self.content_downsample_blocks(self.conv_in(pictures)))
        return torch.unflatten(h, 0, (batch, -1)).permute(0, 1, 3, 4, 2)

    def _dynamics_moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        batch, grid = len(features), self.config.grid
        frames = torch.unflatten(features, 2, (grid, grid)).flatten(0, 1).permute(0, 3, 1, 2)
        h = torch.unflatten(self.downsample_motion_module(frames), 0, (batch, -1))
        x, y = (self.motion_head(h.mean(dim).transpose(1, 2)) for dim in (3, 4))
        return x, y

    def _features(self, latent: TwinLatent) -> Tensor:
        """The decoder's input for the latent of one clip: (B, T, S, C)."""
        # Equal latents must decode to equal video, whatever their strides.
        parts = (None if part is None else part.to(self.device, self.dtype).contiguous() for part in latent)
        latent = TwinLatent(*parts)
        maps: list[Tensor] = []
        if latent.structure is not None:
            maps.append(self._structure_map(latent.structure))
        if latent.dynamics_x is not None:
            maps.append(self._dynamics_map(latent.dynamics_x).unsqueeze(2))
        if latent.dynamics_y is not None:
            maps.append(self._dynamics_map(latent.dynamics_y).unsqueeze(3))
        total = maps[0]
        for each in maps[1:]:
            total = total + each
        grid = self.config.grid
        return total.expand(-1, -1, grid, grid, -1).flatten(2, 3)

    def _structure_map(self, structure: Tensor) -> Tensor:
        """(B, Q, h, w, z) -> (B, T, H', W', C)."""
        batch, grid = len(structure), self.config.grid
        pictures = structure.permute(0, 1, 4, 2, 3).flatten(0, 1)
        h = self.conv_out(self.content_upsample_blocks(self.bottle_up(pictures)))
        first = (h.shape[2] - grid) // 2
        h = h[:, :, first : first + grid, first : first + grid].permute(0, 2, 3, 1)
        linear, relu, to_frames, last = (cast(Any, layer) for layer in self.cont_emb)
        tokens = torch.unflatten(relu(linear(h)), 0, (batch, -1)).flatten(2)
        if is_plain(to_frames):  # one matrix product, faster than its convolution
            frames = torch.matmul(to_frames.weight[..., 0], tokens) + to_frames.bias[:, None]
        else:
            frames = to_frames(tokens)
        return cast(Tensor, last(frames)).view(batch, -1, grid, grid, self.config.hidden_size)

    def _dynamics_map(self, dynamics: Tensor) -> Tensor:
        """(B, z', T, w) -> (B, T, W', C)."""
        h = self.motion_emb(dynamics.permute(0, 2, 3, 1))
        for linear, relu in ((cast(Any, self.up_motion[i]), self.up_motion[i + 1]) for i in (0, 2)):
            if is_plain(linear):  # along the positions as they lie
                h = relu(torch.matmul(linear.weight, h) + linear.bias[:, None])
            else:
                h = relu(linear(h.transpose(2, 3)).transpose(2, 3))
        return cast(Tensor, h)


_TIME = (1, 2, 2)
"""Dimension of each part of a latent that runs from clip to clip."""
_CHANNELS_FIRST = ((0, 4, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3))
"""Permutation of each part of a latent to (B, z, time, rows, columns) or (B, z, time, positions)."""


def _inverse(order: tuple[int, ...]) -> list[int]:
    """The permutation that undoes `order`."""
    return [order.index(i) for i in range(len(order))]


def check_latent(latent: TwinLatent, config: VidTwinConfig) -> None:
    """Raise `ValueError` if `latent` is not one that a model of `config` can decode."""
    h, d = config.structure_grid, config.dynamics_grid
    expected = {
        "structure": (config.qformer.num_queries, 1, (h, h, config.expect_ch), (2, 3, 4)),
        "dynamics_x": (config.frames, 2, (config.d_dim, d), (1, 3)),
        "dynamics_y": (config.frames, 2, (config.d_dim, d), (1, 3)),
    }
    counts: dict[str, tuple[int, int]] = {}
    for (name, (unit, time, sizes, dims)), part in zip(expected.items(), latent, strict=True):
        if part is None:
            continue
        fits = part.dim() == max(*dims, time) + 1 and tuple(part.shape[i] for i in dims) == sizes
        if not fits or part.shape[time] % unit or 0 in part.shape or not part.is_floating_point():
            shape = ["B", *(f"{unit} n" if i == time else sizes[dims.index(i)] for i in sorted((*dims, time)))]
            raise ValueError(
                f"{name} is {part.dtype} of shape {tuple(part.shape)}; expected float of shape "
                f"({', '.join(map(str, shape))}) for n clips"
            )
        counts[name] = (part.shape[0], part.shape[time] // unit)
    if not counts:
        raise ValueError("the latent has no part to decode: structure, dynamics_x and dynamics_y are all None")
    if len(set(counts.values())) > 1:
        held = ", ".join(f"{name} of {batch} x {clips}" for name, (batch, clips) in counts.items())
        raise ValueError(f"the parts are of different numbers of videos x clips: {held}; expected the same")


def _clips(latent: TwinLatent, config: VidTwinConfig) -> Iterator[TwinLatent]:
    """The latents of the single clips."""
    units = (config.qformer.num_queries, config.frames, config.frames)
    parts = [
        None if part is None else torch.split(part, unit, dim)
        for part, unit, dim in zip(latent, units, _TIME, strict=True)
    ]  # fmt: skip
    count = next(len(part) for part in parts if part is not None)
    for i in range(count):
        yield TwinLatent(*(None if part is None else part[i] for part in parts))


def _conv(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1)


def _down(widths: list[int]) -> Iterator[nn.Module]:
    for channels_in, channels in pairwise(widths):
        yield _conv(channels_in, channels, stride=2)
        yield nn.ReLU()


def _up(widths: list[int]) -> Iterator[nn.Module]:
    for channels_in, channels in pairwise(widths):
        yield _conv(channels_in, channels)
        yield nn.ReLU()
        yield nn.Upsample(scale_factor=2, mode="nearest")
