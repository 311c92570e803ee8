"""The contract of decoders of their own, and the models that have one in place of their family's."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, cast

from torch import Tensor, nn

from vidtok.errors import VidTokError
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.config import DecoderConfig
from vidtok.models.state import StreamState

M = TypeVar("M", bound=VideoModel)


class OwnDecoder(nn.Module):
    """A decoder that is made for latents (B, z, T', H', W') of given factors, and knows nothing of the encoder.

    `class Name(OwnDecoder, config=NameConfig)` declares the module of a configuration; `make_decoder` (`make.py`)
    builds it as `Name(config, latent)`. It has no delay: no frame depends on later latent frames. In a causal model,
    the first latent frame stands for one frame of video, and every other one for f.
    """

    config: DecoderConfig
    look_back: int
    """Frames of video, counted from frame L f on, that are not exact if decoding starts at latent frame L > 0."""

    modules_of: ClassVar[dict[type[DecoderConfig], type[OwnDecoder]]] = {}

    def __init__(self, config: DecoderConfig, latent: ModelConfig) -> None:
        super().__init__()
        config.check_latent(latent)
        self.config = config
        self.spatial_factor = latent.spatial_factor

    def __init_subclass__(cls, config: type[DecoderConfig] | None = None, **named: Any) -> None:
        super().__init_subclass__(**named)
        if config is not None:
            cls.modules_of[config] = cls

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes the video."""
        raise NotImplementedError

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        """Video (B, 3, T, H, W) of the latent `z` (B, z, T', H', W'), or of the next latent frames of a stream.

        T' may be 0 at a stream's end. `state` is advanced; None for a latent in one piece.
        """
        raise NotImplementedError

    def stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The video of a whole latent, and the features (B, T, H, W, C) on the way to it, from the deepest on."""
        return self(z), []

    def nothing(self, z: Tensor) -> Tensor:
        """The video of no latent frames."""
        rows, columns = (side * self.spatial_factor for side in z.shape[3:])
        return z.new_empty(z.shape[0], 3, 0, rows, columns)


def own_decoder(model: VideoModel) -> DecoderConfig | None:
    """The configuration of the decoder that `model` has in place of its family's; None if it has its family's."""
    return model.decoder.config if isinstance(model.decoder, OwnDecoder) else None


def with_decoder(model: M, decoder: OwnDecoder) -> M:
    """`model` with `decoder` in place of its own: a copy that shares all other parts."""
    cls = type(model)
    kind = cls if issubclass(cls, _DecodesApart) else _kinds.get(cls)
    if kind is None:
        kind = _kinds[cls] = cast("type[VideoModel]", type(cls.__name__, (_DecodesApart, cls), {}))
        kind.__module__ = cls.__module__
    twin = object.__new__(kind)
    twin.__dict__.update(model.__dict__)
    twin._modules = {name: part for name, part in model._modules.items() if name not in model.decoding_modules}
    twin.decoder = decoder.train(model.training)
    return cast(M, twin)


def without_parts(model: M, parts: tuple[str, ...], advice: str) -> M:
    """A copy of `model` without the children named `parts`, which raises `VidTokError` with `advice` for their use."""
    twin = object.__new__(type(model))
    twin.__dict__.update(model.__dict__)
    twin._modules = {name: AbsentPart(name, advice) if name in parts else part for name, part in model._modules.items()}
    return twin


class AbsentPart(nn.Module):
    """Stands for a part of a model that was not loaded, and has no weights."""

    def __init__(self, name: str, advice: str) -> None:
        super().__init__()
        self._problem = f"the model's {name} was not loaded; {advice}"

    def forward(self, *_: Any, **__: Any) -> Tensor:
        raise VidTokError(self._problem)


class _DecodesApart(VideoModel):
    """The answers about decoding that a model with a decoder of its own gives in place of its family's."""

    decoding_modules = ("decoder",)
    decoder: OwnDecoder

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.last_layer

    @property
    def delay(self) -> int:
        return 0

    @property
    def decoder_look_back(self) -> int:
        return self.decoder.look_back

    def decoder_stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.decoder.stages(z)

    def rescale(self, video: Tensor) -> None:
        raise VidTokError(f"{self.name} has a decoder of its own, which needs no rescaling; leave --rescale out")


_kinds: dict[type[VideoModel], type[VideoModel]] = {}
"""For each class of models, the one whose models decode apart."""
