"""The contract that every family of models meets, so that files, commands, evaluation and training know no family.

A family brings a configuration (`ModelConfig`), a model (`VideoModel`) and an entry in the table of families. A model
with a latent (B, z, T', H', W') needs only `encoder` and `decoder` (`Coder`); everything else is written here, once,
against them. A model whose latent has another form overrides `encode`, `decode`, `pack` and `unpack`, and refuses
tiles with a reason.

::

    video -> pad -> encoder -> moments -> bottleneck -> latent (or tokens) -> decoder -> crop -> video
                    |__ whole, in tiles, or as a stream __|                   |__ likewise __|
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any, ClassVar, Literal, TypeVar, get_args, overload

import torch
from torch import Tensor, nn

from vidtok.errors import VidTokError
from vidtok.models.bottleneck import Bottleneck, RegLog
from vidtok.models.config import ModelConfig
from vidtok.models.padding import (
    Padding,
    Size,
    check_latent,
    check_video,
    crop,
    front_copies,
    pad_clip,
    pad_frame_size,
    pad_front,
)
from vidtok.models.state import StreamState
from vidtok.models.streams import DecodeStream, EncodeStream, in_chunks
from vidtok.models.tiles import TiledCoder, Tiling

M = TypeVar("M", bound="VideoModel")


class VideoModel(nn.Module):
    """A model of any family. Parameters have the names and shapes of the published checkpoints.

    Subclasses are built as `Model(config)` and set `config`, `encoder`, `decoder` and `regularization`.
    `encoder(x, state)` turns a padded clip, or the next frames of a stream, into moments (B, C, T', H', W');
    `decoder(z, state)` turns a latent into video. `state` is None for a clip in one piece.
    """

    config: ModelConfig
    encoder: nn.Module
    decoder: nn.Module
    regularization: Bottleneck
    name: str = "model"
    """The model's name in the family, or the name of the file or folder it was loaded from."""
    tiling: Tiling | None = None
    """Tiles that large frames are cut into, wherever the model encodes or decodes; None: frames are left whole."""
    padding: Padding = "end"
    """End of a clip at which it is filled up to whole latent frames; `with_padding` gives a model with the other."""
    origin: Mapping[str, str] | None = None
    """Identity of the model whose latents these are (`vidtok.tokens.identity`), where its weights are not all here."""

    encoding_modules: ClassVar[tuple[str, ...]] = ("encoder",)
    """Children that encode: frozen by `fix_encoder` in training."""
    decoding_modules: ClassVar[tuple[str, ...]] = ("decoder",)
    """Children that decode: frozen by `fix_decoder` in training."""
    derived: ClassVar[tuple[str, ...]] = ()
    """Names in checkpoints whose values follow from the configuration; loading skips them."""
    sharded_blocks: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Classes of modules in encoder and decoder that sharded training shards one by one."""

    # Properties of the model.

    @property
    def is_causal(self) -> bool:
        """True if no frame depends on a later one, beyond the decoder's delay; such a model streams."""
        return self.config.is_causal

    @property
    def temporal_factor(self) -> int:
        """Frames of video per latent frame, f."""
        return self.config.temporal_factor

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, in height and in width."""
        return self.config.spatial_factor

    @property
    def z_channels(self) -> int:
        """Values per latent position, z."""
        return self.config.z_channels

    @property
    def codebook_size(self) -> int | None:
        """Number of codes that a token can be; None for a continuous (KL) model."""
        return self.config.bottleneck.codebook_size

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    # Answers that a family gives, with defaults.

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes the video, at which training balances its losses."""
        return list(self.decoder.parameters())[-1]

    @property
    def published_padding(self) -> Padding:
        """End at which the published code pads clips of any length; "end" if it takes only whole groups."""
        return "end"

    @property
    def delay(self) -> int:
        """Frames of video by which a decoding stream is behind its latent, because the decoder looks ahead."""
        return 0

    @property
    def encoder_look_back(self) -> int | None:
        """Largest number of latent frames that differ from a video's if encoding starts inside of it; None: all."""
        return None

    @property
    def decoder_look_back(self) -> int | None:
        """Frames of video, counted from frame L f on, that are not exact if decoding starts at latent frame L > 0.

        None: all frames depend on the whole past.
        """
        return None

    def decoder_stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The video of a whole latent, and the decoder's features (B, T, H, W, C) on the way to it, if it tells them.

        A decoder that is trained from this one learns to have them too.
        """
        return self.decode(z), []

    def start_latent(self, frame: int) -> int:
        """The last latent frame at which decoding can start and still give `frame`, and all after it, exactly."""
        look_back = self.decoder_look_back
        return 0 if look_back is None else max(0, (frame - look_back) // self.temporal_factor)

    def check_tiles(self) -> None:
        """Raise `VidTokError`, with the reason, if the model does not take frames in tiles."""
        if self.config.frame_size is not None:
            height, width = self.config.frame_size
            raise VidTokError(
                f"{self.name} takes frames of {width} x {height} pixels only and cannot take them in tiles; leave out "
                "--tile and --max-memory (tile, max_memory)"
            )

    def rescale(self, video: Tensor) -> None:
        """Change weights in place so that large activations become small and the output stays the same.

        `video` (B, 3, T, H, W) in -1..1 is an example of the input. Raises `VidTokError` if the family has no
        activations to rescale.
        """
        raise VidTokError(f"{self.name} has no residual stream to rescale; leave --rescale out")

    def recombine(self, structure: Any | None, dynamics: Any | None) -> Any:
        """A latent with the structure of one latent and the dynamics of another, or one of them alone.

        Raises `VidTokError` if the family does not keep structure and dynamics apart.
        """
        raise VidTokError(
            f"{self.name} does not keep structure and dynamics apart; give a VidTwin, such as "
            "vidtwin_structure_7_7_8_dynamics_7_8"
        )

    # Encoding and decoding.

    @overload
    def encode(
        self, video: Tensor, return_reg_log: Literal[False] = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def encode(
        self, video: Tensor, return_reg_log: Literal[True], *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> tuple[Tensor, RegLog]: ...  # fmt: skip

    def encode(
        self, video: Tensor, return_reg_log: bool = False, *, sample: bool | None = None,
        generator: torch.Generator | None = None, step: int = 0,
    ) -> Tensor | tuple[Tensor, RegLog]:  # fmt: skip
        """Encode a clip.

        Args:
            video: (B, 3, T, H, W), float in -1..1, T, H, W >= 1.
            return_reg_log: return the bottleneck's log too: "indices" (B, T', H', W') int32 for tokens, "kl_loss",
                summed over everything and divided by B, for KL, and in training mode a quantizer's losses.
            sample: KL: draw from the posterior (True) or take its mode (False); None: as `regularization.sample` says.
            generator: source of the noise; the same seed gives the same latent.
            step: FSQ in training mode: optimizer steps of the model so far.

        Returns:
            The latent (B, z, T', H', W'), or it and the log.

        Raises:
            ValueError: the video has another shape or dtype.
        """
        z, log = self.regularization(self.moments(video), sample=sample, generator=generator, step=step)
        return (z, log) if return_reg_log else z

    def decode(self, z: Tensor, decode_from_indices: bool = False, *, size: Size | None = None) -> Tensor:
        """Decode a latent, or token indices.

        Args:
            z: (B, z, T', H', W'), or with `decode_from_indices` (B, T', H', W') whole numbers.
            decode_from_indices: `z` holds indices (of a model with tokens).
            size: frames, height and width of the clip that was encoded, to crop to; None: all that is decoded,
                1 + (T' - 1) f frames if causal, else T' f; T' f too where clips are padded in front.

        Returns:
            (B, 3, T, H, W), about -1..1.

        Raises:
            ValueError: `z` has a shape, dtype or values that this model cannot decode, or `size` is too large.
        """
        z = self.latent(z, decode_from_indices=decode_from_indices)
        at_a_time = self._frames_at_a_time(encodes=False)
        if at_a_time is not None and z.shape[2] > at_a_time:
            stream = DecodeStream(self, at_a_time=at_a_time)
            video = in_chunks(z, at_a_time, stream.push, stream.flush)
        else:
            video = self._coder(encodes=False)(z)
        if self.padding == "front":  # all f frames of the first latent frame are equal, so it is decoded to one
            video = pad_front(video, self.temporal_factor - 1)
        return video if size is None else crop(video, size, self.padding)

    def forward(
        self, video: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Any, Tensor, RegLog]:
        """Latent, reconstruction in the size of `video`, and the bottleneck's log; arguments as for `encode`."""
        z, log = self.encode(video, True, sample=sample, generator=generator, step=step)
        frames, height, width = video.shape[2:]
        return z, self.decode(z, size=(frames, height, width)), log

    def moments(self, video: Tensor) -> Tensor:
        """The encoder's output for `video` (B, 3, T, H, W), of any size: (B, C, T', H', W'), before the bottleneck.

        Mean and log-variance of the posterior (C = 2 z) for KL, unbounded values (C = z) for FSQ. Raises `ValueError`
        if the video has another shape or dtype.
        """
        check_video(video, self.config)
        copies, factor = front_copies(video.shape[2], self.config), self.temporal_factor
        # With f - 1 copies in front, the first frame stands for a group by itself, as it does with padding at the end.
        grouped = self.padding == "front" and copies != factor - 1
        if grouped:
            video = pad_front(video, copies)
        at_a_time = self._frames_at_a_time(encodes=True)
        if at_a_time is not None and video.shape[2] > at_a_time:
            stream = EncodeStream(self, moments_only=True, at_a_time=at_a_time, midway=grouped)
            return in_chunks(video, at_a_time, stream.push, stream.flush)
        video, coder = video.to(self.device, self.dtype), self._coder(encodes=True)
        moments: Tensor
        if not grouped:
            moments = coder(pad_clip(video, self.config))
            return moments
        state = coder.new_state() if isinstance(coder, TiledCoder) else StreamState()
        state.started = state.end = True
        moments = coder(pad_frame_size(video, self.spatial_factor), state)
        return moments

    def latent(self, z: Tensor, *, decode_from_indices: bool = False) -> Tensor:
        """The latent (B, z, T', H', W') `z`, or the one of the indices `z`, in the decoder's dtype and on its device.

        Raises `ValueError` if this model cannot decode `z`.
        """
        if not isinstance(z, Tensor):
            raise ValueError(f"the latent is a {type(z).__name__}; expected a tensor")
        # The decoder may be elsewhere than the encoder, or in another dtype.
        first = next(self.decoder.parameters(), None)
        device, dtype = (self.device, self.dtype) if first is None else (first.device, first.dtype)
        if decode_from_indices:
            if z.dim() != 4:
                raise ValueError(f"the indices have shape {tuple(z.shape)}; expected (B, T', H', W')")
            z = self.regularization.decode_indices(z.to(device))
        check_latent(z, self.config)
        return z.to(device, dtype)

    def indices_to_latent(self, indices: Tensor) -> Tensor:
        """The latent (B, z, T', H', W') of token indices (B, T', H', W'); the published name of `latent`."""
        return self.latent(indices, decode_from_indices=True)

    def _coder(self, *, encodes: bool) -> Any:
        """The encoder, or the decoder if not `encodes`; in tiles if the model has a tiling."""
        coder = self.encoder if encodes else self.decoder
        return coder if self.tiling is None else TiledCoder(coder, self.tiling, self.spatial_factor, encodes=encodes)

    def _frames_at_a_time(self, *, encodes: bool) -> int | None:
        """Frames of a long clip to compute at a time, latent frames if not `encodes`; None: the clip in one piece."""
        return None

    # Streams and tiles.

    def encode_stream(self, *, sample: bool | None = None, generator: torch.Generator | None = None) -> EncodeStream:
        """A stream that encodes one video as it comes, with the result of `encode` on all of it.

        `push` takes (B, 3, T, H, W) in -1..1 of any T and returns the latent frames that are complete; `flush` ends
        the stream. `stream.log` has the bottleneck's log of the frames returned last, such as the token indices.
        `sample` and `generator` are as for `encode`. Raises `ValueError` for a non-causal model, and for one that pads
        in front.
        """
        self._check_streams()
        return EncodeStream(self, sample=sample, generator=generator)

    def decode_stream(self, *, decode_from_indices: bool = False, size: Size | None = None) -> DecodeStream:
        """A stream that decodes one latent as it comes, with the result of `decode` on all of it.

        `push` takes latents (B, z, T', H', W') or, with `decode_from_indices`, indices (B, T', H', W') of any T' and
        returns the video that is ready, `stream.delay` frames behind; `flush` returns the rest. `size` is the encoded
        clip's (frames, height, width), to crop to. Raises `ValueError` for a non-causal model, and for one that pads
        in front.
        """
        self._check_streams()
        return DecodeStream(self, decode_from_indices=decode_from_indices, size=size)

    def _check_streams(self) -> None:
        if self.padding == "front":
            raise ValueError(
                "padding in front depends on the video's length, which a stream does not know; take a stream of "
                'with_padding("end")'
            )

    def with_padding(self: M, padding: Padding) -> M:
        """This model with `padding`: a copy that shares the parameters, or the model itself if nothing changes.

        Padded in front, a clip of T frames has ceil(T / f) latent frames, `decode` gives T' f frames, and the clip is
        the last T of them. Raises `VidTokError` if the published code does not pad such a model's clips in front.
        """
        if padding not in get_args(Padding):
            raise VidTokError(f"padding is {padding!r}; expected {' or '.join(get_args(Padding))}")
        if padding == self.padding:
            return self
        if padding == "front" != self.published_padding:
            raise VidTokError(
                f"{self.name} is not of version 1.1, and only its clips are padded in front; leave padding out"
            )
        padded = copy(self)
        padded.padding = padding
        return padded

    def note_frozen(self, parts: Collection[str]) -> None:
        """Set the published attributes `encoder.fix_encoder` and `decoder.fix_decoder`; this freezes nothing.

        An attribute is True if `parts` has its name, "fix_encoder" or "fix_decoder": training leaves that part alone.
        """
        for part in ("encoder", "decoder"):
            setattr(getattr(self, part), f"fix_{part}", f"fix_{part}" in parts)

    def with_tiling(self: M, tiling: Tiling | None) -> M:
        """This model with `tiling`: a copy that shares the parameters, or the model itself if nothing changes.

        Raises `VidTokError` if the model does not take frames in tiles.
        """
        if tiling is not None:
            self.check_tiles()
        if tiling == self.tiling:
            return self
        tiled = copy(self)
        tiled.tiling = tiling
        return tiled

    def named_weights(self) -> dict[str, Tensor]:
        """The state dict under published names, also where modules are compiled."""
        return {plain_name(name): value for name, value in self.state_dict().items()}

    # Latents as one tensor, for storing, counting and comparing.

    def pack(self, latent: Any) -> Tensor:
        """A latent or tokens as one tensor, (B, z, T', H', W') or (B, T', H', W'): unchanged, unless it has parts."""
        packed: Tensor = latent
        return packed

    def unpack(self, packed: Tensor) -> Any:
        """The latent that `pack` packed."""
        return packed

    def encode_packed(
        self, video: Tensor, *, sample: bool | None = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """The latent of a clip as one tensor (B, z, T', H', W'), or its tokens (B, T', H', W'); see `encode`."""
        z, log = self.encode(video, True, sample=sample, generator=generator)
        return log["indices"] if self.regularization.discrete else self.pack(z)

    def decode_packed(self, packed: Tensor, *, size: Size | None = None) -> Tensor:
        """Decode a result of `encode_packed`, for one clip or several in a row; `size` is as for `decode`."""
        if self.regularization.discrete:
            return self.decode(packed, True, size=size)
        return self.decode(self.unpack(packed), size=size)


def plain_name(name: str) -> str:
    """The published name of a weight, without the marks of `torch.compile` and data parallelism."""
    return name.removeprefix("module.").replace("_orig_mod.", "")
