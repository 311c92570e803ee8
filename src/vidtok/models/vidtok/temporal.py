"""Layers that mix frames, with their padding and memory in time.

Streaming is the definition here: a layer that looks back takes the last frames of the chunk before from the stream's
state and leaves its own there, and a whole clip is a stream of one chunk. The padding before the first frame is zeros
or copies of that frame. With copies (VidTok v1.1), the f frames that the first latent frame stands for are equal
through every layer, so that the first frame is computed once and counts for all of them.

Activations are channels-last, (B, T, H, W, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.models.plain import in_eager, in_eager_inference, is_plain, plain_layer
from vidtok.models.state import StreamState
from vidtok.models.vidtok import winograd
from vidtok.models.vidtok.config import TemporalPadding
from vidtok.models.vidtok.spatial import Wrapped, as_clip, as_images, init_convolution


@plain_layer
class Taps(nn.Module):
    """A convolution over time without padding, or over time and over space, there with zero padding.

    `weight` is (out, in, k) for time alone, which a 2D convolution over (time, H W) computes, or (out, in, k, k, k).
    """

    reach = 2
    """Number of input frames beyond the number of output frames, at stride 1."""
    by_frames = False
    """In graphs, compute a 3D convolution as a 2D one over the channels of three frames: not every runtime has 3D."""

    def __init__(self, in_channels: int, out_channels: int, *, spatial: bool, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, *[3] * (2 if spatial else 0)))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.stride = stride
        init_convolution(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, in) -> (B, 1 + (T - 3) // stride, H, W, out)."""
        batch, _, height, width, _ = x.shape
        weight, bias = self.weight, self.bias
        if weight.dim() == 3:
            out = F.conv2d(x.flatten(2, 3).permute(0, 3, 1, 2), weight.unsqueeze(-1), bias)
            out = out.permute(0, 2, 3, 1).contiguous()
            return out.view(batch, out.shape[1], height, width, out.shape[3])
        if self.by_frames and not in_eager():
            return self._by_joined_frames(x)
        if x.device.type == "cpu" and in_eager_inference():
            run = self._by_winograd if winograd.pays(x, weight) else self._by_frame_taps
            clips = [run(x[i : i + 1], weight, bias) for i in range(batch)]
            return clips[0] if batch == 1 else torch.cat(clips)
        out = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, stride=(self.stride, 1, 1), padding=(0, 1, 1))
        return out.permute(0, 2, 3, 4, 1).contiguous()

    def _by_winograd(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The 3D convolution of one clip, with fewer multiplications within the frames."""
        time = winograd.single_frames(self.stride)
        return winograd.convolve(x[0], weight, bias, winograd.three_taps(), time).unsqueeze(0)

    def in_pairs(self, x: Tensor, lead: int) -> Tensor:
        """The 3D convolution of one clip (1, 2 + T, H, W, in) -> (1, T, H, W, out), by pairs of frames after `lead`.

        Pairs take fewer multiplications over time too. They round differently from single frames, so their places must
        follow from the stream and not from its chunks.
        """
        _, frames, height, width, _ = x.shape
        frames -= self.reach
        last = lead + (frames - lead) // 2 * 2
        out = x.new_empty(1, frames, height, width, self.weight.shape[0])
        for start, stop, time in (
            (0, lead, winograd.single_frames()),
            (lead, last, winograd.PAIR_OF_FRAMES),
            (last, frames, winograd.single_frames()),
        ):
            if start < stop:
                winograd.convolve(
                    x[0, start : stop + self.reach], self.weight, self.bias, winograd.three_taps(), time,
                    out=out[0, start:stop],
                )  # fmt: skip
        return out

    def of_doubled(self, x: Tensor) -> Tensor:
        """The 3D convolution of a clip in which every frame of `x` comes twice, with fewer multiplications still.

        (B, 1 + T, H, W, in) -> (B, 2 T, H, W, out): for neighbours x and y, the outputs for x x y and for x y y.
        """
        space, time = winograd.three_taps(), winograd.DOUBLED_FRAMES
        return torch.stack([winograd.convolve(clip, self.weight, self.bias, space, time) for clip in x.unbind()])

    def _by_joined_frames(self, x: Tensor) -> Tensor:
        """The 3D convolution as one 2D convolution, of three frames at a time as channels."""
        batch, frames = x.shape[0], 1 + (x.shape[1] - 3) // self.stride
        seen = [x[:, tap : tap + self.stride * (frames - 1) + 1 : self.stride] for tap in range(3)]
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        return as_clip(F.conv2d(as_images(torch.cat(seen, -1)), weight, self.bias, padding=1), batch)

    def _by_frame_taps(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The 3D convolution as a sum of 2D convolutions, one per tap in time: faster than a 3D one on a CPU."""
        frames = 1 + (x.shape[1] - 3) // self.stride
        out: Tensor | None = None
        for tap in range(3):
            seen = as_images(x[:, tap : tap + self.stride * (frames - 1) + 1 : self.stride])
            if out is None:
                out = F.conv2d(seen, weight[:, :, tap], bias, padding=1)
            else:
                out += F.conv2d(seen, weight[:, :, tap], padding=1)
        assert out is not None
        return as_clip(out, 1)


class TimeLayer(nn.Module):
    """A layer with a place in the stream's state; its owner numbers the places (`number_slots`)."""

    _slot: int | None = None

    @property
    def slot(self) -> int:
        """The number of that place. Raises `RuntimeError` if there is none: two such layers would share their past."""
        if self._slot is None:
            raise RuntimeError(
                f"this {type(self).__name__} has no place in the stream's state; expected the module that holds all "
                "time layers of a stream to call number_slots(self) at the end of its constructor"
            )
        return self._slot

    @slot.setter
    def slot(self, slot: int) -> None:
        self._slot = slot

    def _with_past(self, x: Tensor, state: StreamState, padding: TemporalPadding, *, keep: int, start: int) -> Tensor:
        """`x` with earlier frames in front: those kept of the chunk before, or `start` frames of padding at the start.

        The last `keep` frames are kept for the next chunk.
        """
        past = state.past.get(self.slot)
        if past is None:
            before = x[:, :1] if padding == "first_frame" else torch.zeros_like(x[:, :1])
            past = before.expand(-1, start, -1, -1, -1)
        extended = torch.cat([past, x], 1)
        state.keep(self.slot, extended[:, -keep:].clone())
        return extended


def number_slots(module: nn.Module) -> None:
    """Give every time layer below `module` a place of its own in a stream's state."""
    layers = [layer for layer in module.modules() if isinstance(layer, TimeLayer)]
    for slot, layer in enumerate(layers):
        layer.slot = slot


@plain_layer
class CausalConv(TimeLayer):
    """A convolution over time that sees the past only."""

    reach = Taps.reach
    """Number of frames that it looks back."""

    def __init__(self, in_channels: int, out_channels: int, *, spatial: bool, padding: TemporalPadding) -> None:
        super().__init__()
        self.conv = Taps(in_channels, out_channels, spatial=spatial)
        self.padding = padding

    def forward(self, x: Tensor, state: StreamState, *, activate: bool = False) -> Tensor:
        """(B, T, H, W, in) -> (B, T, H, W, out); if `activate`, of SiLU(x), without gradients."""
        out: Tensor = self.conv(self._activated(x, state) if activate else self.extended(x, state))
        return out

    def extended(self, x: Tensor, state: StreamState) -> Tensor:
        """`x` with the `reach` frames before it in front: (B, reach + T, H, W, C)."""
        return self._with_past(x, state, self.padding, keep=self.reach, start=self.reach)

    def _activated(self, x: Tensor, state: StreamState) -> Tensor:
        """SiLU(x) with the frames before it in front, written straight into one buffer."""
        reach = self.reach
        batch, frames, *rest = x.shape
        buffer = x.new_empty(batch, reach + frames, *rest)
        torch.ops.aten.silu.out(x, out=buffer[:, reach:])
        past = state.past.get(self.slot)
        if past is not None:
            buffer[:, :reach] = past
        elif self.padding == "first_frame":
            buffer[:, :reach] = buffer[:, reach : reach + 1]
        else:
            buffer[:, :reach] = 0
        state.keep(self.slot, buffer[:, -reach:].clone())
        return buffer


@plain_layer
class CenteredConv(Taps):
    """A convolution over time that sees one frame before and one after, with zeros beyond both ends."""

    def forward(self, x: Tensor, state: StreamState | None = None, *, activate: bool = False) -> Tensor:
        """(B, T, H, W, in) -> (B, T, H, W, out); if `activate`, of SiLU(x)."""
        if activate:
            x = F.silu(x)
        return super().forward(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)))


def time_conv(in_channels: int, out_channels: int, *, spatial: bool, padding: TemporalPadding) -> nn.Module:
    """The convolution over time of a variant, with the parameter names of that variant."""
    if padding == "both_sides":
        return CenteredConv(in_channels, out_channels, spatial=spatial)
    return CausalConv(in_channels, out_channels, spatial=spatial, padding=padding)


class TemporalDownsample(TimeLayer):
    """Half as many frames: s * mean of three frames + (1 - s) * 3x3x3 convolution, both with stride 2 in time.

    s = sigmoid(mix_factor). One frame of padding comes in front, or behind if the variant pads both sides.
    """

    def __init__(self, channels: int, *, padding: TemporalPadding) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))
        conv = Taps(channels, channels, spatial=True, stride=2)
        self.conv = conv if padding == "both_sides" else Wrapped(conv)
        self.padding = padding

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, T, H, W, C), T even -> T / 2 frames; the first chunk after a first frame: 1 + T frames -> 1 + T / 2."""
        if self.padding == "both_sides":
            x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1))
        else:
            # A first frame that stands for f equal ones fills a window of three frames by itself.
            alone = self.padding == "first_frame" and not state.started
            x = self._with_past(x, state, self.padding, keep=1, start=2 if alone else 1)
        last = x.shape[1] - 2
        mean = (x[:, 0:last:2] + x[:, 1 : last + 1 : 2] + x[:, 2::2]) / 3
        return mix(mean, self.conv(x), self.mix_factor, self.conv)


class TemporalUpsample(TimeLayer):
    """Twice as many frames: s * u + (1 - s) * 3x3x3 convolution of u, where u is every frame twice.

    s = sigmoid(mix_factor).
    """

    delay = 0

    def __init__(self, channels: int, *, padding: TemporalPadding) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))
        self.conv = time_conv(channels, channels, spatial=True, padding=padding)

    def interpolate(self, x: Tensor, state: StreamState) -> Tensor:
        """u, the upsampled `x`: (B, T, H, W, C) -> (B, 2 T, H, W, C) over the length of a stream."""
        return x.repeat_interleave(2, 1)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, T, H, W, C) -> (B, 2 T, H, W, C) over the length of a stream."""
        seen = state.past.get(self.slot)
        u = self.interpolate(x, state)
        return mix(u, self._convolved(x, u, state, seen), self.mix_factor, self.conv) if u.shape[1] else u

    def _convolved(self, x: Tensor, u: Tensor, state: StreamState, seen: Tensor | None) -> Tensor:
        """The convolution of `u`, the upsampled `x`; `seen` is the state of the interpolation before `x`."""
        if not is_plain(self.conv):
            return cast(Tensor, self.conv(u, state))
        taps = cast(Taps, self.conv.conv if isinstance(self.conv, CausalConv) else self.conv)
        if not winograd.pays(x, taps.weight):
            return cast(Tensor, self.conv(u, state))
        if not isinstance(self.conv, CausalConv):
            return taps.of_doubled(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)))[:, 1:-1]
        slot, padding = self.conv.slot, self.conv.padding
        past = state.past.get(slot)
        if past is None:
            past = x[:, :1] if padding == "first_frame" else torch.zeros_like(x[:, :1])
        state.keep(slot, x[:, -1:].expand(-1, taps.reach, -1, -1, -1).contiguous())
        return taps.of_doubled(torch.cat([past[:, -1:], x], 1))


class LinearTemporalUpsample(TemporalUpsample):
    """Temporal upsampling by linear interpolation, out[2i] = x[i-1]/4 + 3 x[i]/4, out[2i+1] = 3 x[i]/4 + x[i+1]/4.

    The stream's first frame stands for itself alone: it stays one frame and is not interpolated. The ends of the rest
    are clamped. As out[2i+1] needs the frame after x[i], it comes one input frame later, and the last one at the
    stream's end.
    """

    delay = 1
    """Output frames held back until the next input frame, or the end, is known."""

    def interpolate(self, x: Tensor, state: StreamState) -> Tensor:
        held = state.past.get(self.slot)  # None: no frame seen; 0 frames: only the first; else the last of the rest
        parts = []
        if held is None:
            parts.append(x[:, :1])
            held, x = x[:, :0], x[:, 1:]
        if held.shape[1] == 0:
            parts.append(x[:, :1])  # out[0] of the rest, clamped
        rest = x if held.shape[1] == 0 else held if x.shape[1] == 0 else torch.cat([held, x], 1)
        before, after = rest[:, :-1], rest[:, 1:]
        if before.shape[1]:
            parts.append(_between(before, after))
        if state.end:
            parts.append(rest[:, -1:])
        state.keep(self.slot, rest[:, -1:].clone())
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0] if parts else x

    def _convolved(self, x: Tensor, u: Tensor, state: StreamState, seen: Tensor | None) -> Tensor:
        conv = cast(CausalConv, self.conv)
        if u.shape[0] != 1 or not is_plain(conv) or not winograd.pays(u, conv.conv.weight):
            return cast(Tensor, conv(u, state))
        # The first frame and the clamped one after it are single; then each input frame adds a pair, and the end one.
        lead = min(u.shape[1], 2 if seen is None else 1 if seen.shape[1] == 0 else 0)
        return conv.conv.in_pairs(conv.extended(u, state), lead)


def _between(before: Tensor, after: Tensor) -> Tensor:
    """Two frames for each pair of `before` and `after`, at a quarter and at three quarters of the way between them."""
    if not in_eager_inference():
        return torch.stack([before.lerp(after, 0.25), before.lerp(after, 0.75)], 2).flatten(1, 2)
    out = before.new_empty(before.shape[0], 2 * before.shape[1], *before.shape[2:])
    for i, weight in enumerate((0.25, 0.75)):
        torch.lerp(before, after, weight, out=out[:, i::2])
    return out


def mix(x: Tensor, y: Tensor, mix_factor: Tensor, maker: nn.Module) -> Tensor:
    """s x + (1 - s) y, s = sigmoid(mix_factor); written into `y`, the output of `maker`, if nobody else can see it."""
    share = torch.sigmoid(mix_factor).to(x.dtype)
    if in_eager_inference() and y.dtype == x.dtype and is_plain(maker):
        return y.lerp_(x, share)
    return torch.lerp(y.to(x.dtype), x, share)


def total_delay(upsamples: Sequence[TemporalUpsample]) -> int:
    """Frames of video that a decoder holds back until the next latent frame, or the end, is known."""
    held = 0
    for layer in upsamples:
        held = 2 * held + layer.delay
    return held
