"""`Tokenizer`, the public face of a model of any family: loading, saving, and reconstruction from file to file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from vidtok.config.dialect import frozen_parts
from vidtok.config.families import family_of
from vidtok.config.read import read_config
from vidtok.device import choose_device
from vidtok.errors import CheckpointError, ConfigError, VidTokError
from vidtok.fields import shown
from vidtok.jobs.reconstruct import Reconstruction, ReconstructOptions, reconstruct
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.base import AbsentPart, OwnDecoder, own_decoder, with_decoder, without_parts
from vidtok.models.decoders.make import make_decoder
from vidtok.models.padding import Padding
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtwin.autoencoder import TwinLatent, VidTwinAutoencoder
from vidtok.models.vidtwin.config import VidTwinConfig
from vidtok.tokens.identity import ENCODER, config_hash, encoder_hash, encodes, origin_of, origin_of_weights
from vidtok.zoo.checkpoint import holds_averages, load_state, read_files, take_weights, without_derived
from vidtok.zoo.folder import save_folder
from vidtok.zoo.hub import upload
from vidtok.zoo.int8 import quantized
from vidtok.zoo.latents import LatentScale
from vidtok.zoo.source import FULL, Located, locate, locate_decoder

T = TypeVar("T", bound="Tokenizer")
Part = Literal["encoder", "decoder"]

__all__ = ["Tokenizer", "TwinLatent", "VidTok", "VidTwin", "VidTwinConfig", "load"]


log = logging.getLogger(__name__)


class Tokenizer(VideoModel):
    """A video tokenizer: `encode`, `decode`, a call for both in a row, streams for either, and work on files.

    `Tokenizer(config)` makes an instance of the class for the configuration's family, such as `VidTok`, with random
    weights; `vidtok.load` makes one with trained weights.

    Attributes:
        config: the model's configuration.
        name: the model's name, or the name of the file or folder it was loaded from.
        decoder_name: "full" with the family's decoder, else the name of the decoder in its place.
        tiling: the tiles (`vidtok.Tiling`) that large frames are cut into for encoding and decoding; None: frames are
            not cut. `with_tiling` returns a model with tiles.
        latents: mean and standard deviation of the model's latents by channel, as `vidtok stats` found them and its
            folder holds them; None: unknown.
    """

    latents: LatentScale | None = None
    decoder_name: str = FULL

    _kinds: ClassVar[dict[type[VideoModel], type[Tokenizer]]] = {}

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        Tokenizer._kinds.setdefault(_model_class(cls), cls)

    def __new__(cls, config: ModelConfig | None = None, *, name: str = "") -> Tokenizer:
        """An instance of the class for `config`; copying gives no `config` and keeps the class."""
        kind = _kind_of(config) if cls is Tokenizer and config is not None else cls
        return object.__new__(kind)

    def __init__(self, config: ModelConfig, *, name: str | None = None) -> None:
        super().__init__(config)  # the family's model, which comes next in every subclass
        self.name = config.family if name is None else name
        self.note_frozen(())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> Tokenizer:
        """The model of a name, in a folder or on the Hub; arguments as for `vidtok.load`."""
        return load(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_config(cls, source: str | PathLike[str]) -> Tokenizer:
        """A model with random weights, of the configuration in a YAML file or of a model's name; a start for training.

        Raises `ConfigError` for an unknown name and for a configuration that cannot be used.
        """
        run = read_config(source)
        model = Tokenizer(run.model, name=run.name)
        model.note_frozen(frozen_parts(run.raw["model"]["params"]))
        return model

    def init_from_ckpt(self, path: str | PathLike[str], ignore_keys: Sequence[str] = ()) -> None:
        """Take the weights in the checkpoint at `path`; weights whose names match one of `ignore_keys` stay.

        `ignore_keys` are regular expressions, matched from the start of a name on. Raises `CheckpointError`, with the
        model untouched, if other weights are missing, unexpected or misshapen.
        """
        take_weights(self, path, ignore_keys)
        self.latents = None  # they were of other weights

    @property
    def latents_mean(self) -> tuple[float, ...] | None:
        """Mean of the latents, z values; None if unknown."""
        return None if self.latents is None else self.latents.mean

    @property
    def latents_std(self) -> tuple[float, ...] | None:
        """Standard deviation of the latents, z values above 0; None if unknown."""
        return None if self.latents is None else self.latents.std

    def normalize(self, z: Any) -> Any:
        """The latent `z`, as `encode` returns it, with mean 0 and variance 1 in each channel.

        The statistics are `latents_mean` and `latents_std`. Raises `VidTokError` if they are unknown.
        """
        mean, std = self._scale(z)
        return self.unpack((self.pack(z) - mean) / std)

    def denormalize(self, z: Any) -> Any:
        """The latent that `normalize` made `z` of, for `decode`; see there."""
        mean, std = self._scale(z)
        return self.unpack(self.pack(z) * std + mean)

    def _scale(self, z: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (z, 1, 1, 1), where and in the dtype that the latent `z` is in."""
        if self.latents is None:
            raise VidTokError(
                f"the statistics of {self.name}'s latents are unknown; `vidtok stats FOLDER DATA` computes them and "
                "writes them into a model's folder, which `vidtok export` makes"
            )
        packed = self.pack(z)
        mean, std = (packed.new_tensor(values).view(-1, 1, 1, 1) for values in (self.latents.mean, self.latents.std))
        return mean, std

    def save_pretrained(
        self, save_directory: str | PathLike[str], *, int8: bool = False, parts: Part | Literal["both"] | None = None,
        push_to_hub: bool = False, **hub: Any,
    ) -> Path:  # fmt: skip
        """Write `config.json` and `model.safetensors` to a folder, whole or not at all, and return the folder.

        `vidtok.load(save_directory)` reads them back. With `parts` "both", encoder and decoder have files of their own,
        so that either can be fetched and loaded alone; "encoder" or "decoder" writes that part alone, as is done for a
        model that was loaded without the other. With `int8`, weights are stored in 8 bits, a quarter of float32's
        bytes, and are floats again when loaded (`vidtok.zoo.int8`). With `push_to_hub`, the folder is uploaded too, and
        `hub` holds the arguments of `Tokenizer.push_to_hub`. Raises `CheckpointError` if the folder cannot be written.
        """
        state = self.named_weights()
        state = quantized(state) if int8 else state
        own = own_decoder(self)
        here = {"encoder": self._has(self.encoding_modules), "decoder": self._has(self.decoding_modules)}
        apart = parts is not None or not all(here.values())
        here = {part: is_here and parts in (None, "both", part) for part, is_here in here.items()}
        if not any(here.values()):
            raise CheckpointError(f"the model was loaded without its {parts}; load it whole to save that part")
        origin = origin_of(self) if apart or own is not None else None
        folder = save_folder(
            save_directory, self.config, _apart(state, self, here) if apart else state, self.name, self.latents,
            decoder=own, origin=origin,
        )  # fmt: skip
        if push_to_hub:
            upload(folder, **{"repo_id": folder.name, **hub})
        return folder

    def with_decoder(self: T, decoder: OwnDecoder, name: str) -> T:
        """A copy with the decoder of its own `decoder`, called `name`; all other parts are shared."""
        twin = with_decoder(self, decoder)
        twin.origin, twin.decoder_name = origin_of(self), name
        return twin

    def _has(self, parts: Sequence[str]) -> bool:
        """True if the parts called `parts` were loaded."""
        return not any(isinstance(self.get_submodule(name), AbsentPart) for name in parts)

    def push_to_hub(self, repo_id: str, **hub: Any) -> str:
        """Upload the model to the Hugging Face Hub as `repo_id` and return its address.

        `hub`: `private`, `token`, `commit_message`, as for `huggingface_hub.HfApi`.
        """
        with tempfile.TemporaryDirectory() as folder:
            return upload(self.save_pretrained(Path(folder) / "model"), repo_id=repo_id, **hub)

    def reconstruct(
        self,
        input: str | PathLike[str],
        output: str | PathLike[str],
        *,
        progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Write to the file `output` this model's reconstruction of the video, picture or folder of pictures `input`.

        Memory stays constant for videos of any length. `options` are the fields of
        `vidtok.jobs.reconstruct.ReconstructOptions`, such as `height`, `max_frames`, `side_by_side` and `max_memory`;
        everything else is as for `vidtok.jobs.reconstruct.reconstruct`.
        """
        return reconstruct(self, input, output, ReconstructOptions(**options), progress=progress)


def _model_class(tokenizer: type[Tokenizer]) -> type[VideoModel]:
    """The model class that `tokenizer` joins with `Tokenizer`."""
    return next(c for c in tokenizer.__mro__ if issubclass(c, VideoModel) and not issubclass(c, Tokenizer))


def _apart(state: Mapping[str, Tensor], model: VideoModel, here: Mapping[str, bool]) -> dict[str, dict[str, Tensor]]:
    """The weights of each part that is `here`."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in here}
    for name, value in state.items():
        parts["encoder" if encodes(name, model) else "decoder"][name] = value
    return {part: weights for part, weights in parts.items() if here[part]}


def _kind_of(config: ModelConfig) -> type[Tokenizer]:
    """The tokenizer class for the family of `config`; it is made here for a family that brings only a model."""
    model = family_of(config).model()
    return Tokenizer._kinds.get(model) or type(model.__name__, (Tokenizer, model), {})


class VidTok(Tokenizer, VideoAutoencoder):
    """A tokenizer of the family VidTok (arXiv 2412.13061). `VideoAutoencoder` lists its attributes."""

    config: AutoencoderConfig


class VidTwin(Tokenizer, VidTwinAutoencoder):
    """A tokenizer of the family VidTwin (arXiv 2412.17726).

    It takes videos in clips of 16 frames (`config.frames`) of 224 x 224 pixels (`config.frame_size`). `encode` gives a
    `TwinLatent` of structure and dynamics, which `decode` takes; a latent with the structure of one video and the
    dynamics of another makes a video of both.
    """

    config: VidTwinConfig


def load(
    source: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    ema: bool = False,
    revision: str | None = None,
    padding: Padding = "end",
    decoder: str | PathLike[str] | None = None,
    parts: Part | None = None,
) -> Tokenizer:
    """Load a tokenizer, ready to encode and decode (in evaluation mode).

    Args:
        source: a model's name (`vidtok models` lists them; weights come from the package, the Hub's cache or the Hub),
            a YAML file of the published schema, a folder that `save_pretrained` wrote, the folder of a training run,
            whose newest checkpoint is taken, or a Hub repository `owner/name` that `save_pretrained` wrote or that
            publishes a single model, such as `microsoft/vidtwin`.
        checkpoint: weights to use, `.safetensors`, `.ckpt` or `.pt`, instead of those that `source` leads to.
        device: where to put the model; None: the CPU.
        dtype: floating-point type of the weights and the computation, whatever the file holds; None: float32.
        ema: take the moving averages that a training checkpoint holds beside the weights.
        revision: branch, tag or commit of a Hub repository.
        padding: the end of a clip that is filled up to whole latent frames. "end" works in streams too. "front" is
            for models of version 1.1, as published: T frames make T' = ceil(T / f) latent frames for the temporal
            factor f, these decode to T' f frames, and the clip is the last T of them. Clips of 1 + k f frames give the
            same latent either way.
        decoder: a decoder in place of the model's own: a folder that `vidtok distill` or `vidtok preview` wrote, or the
            name of one that comes with the model, such as "fast"; "full" or None: the model's own.
        parts: "decoder" or "encoder" loads that part alone, with the bottleneck; the other one then raises
            `VidTokError`. A decoder of its own needs no weights of `source` at all.

    Raises:
        ConfigError: unknown name, unreadable or contradictory configuration, a dtype that is not of floating point.
        CheckpointError: the weights cannot be had, read, or do not fit the model.
        VidTokError: this machine has no such device, or the model's clips are not padded in front.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype is {dtype!r}; expected torch.float32, torch.bfloat16 or torch.float16")
    if parts is not None and parts not in get_args(Part):
        raise ConfigError(f"parts is {shown(parts)}; expected {' or '.join(get_args(Part))}, or None for both")
    place = None if device is None else choose_device(str(device))
    apart = decoder is not None and str(decoder) != FULL
    found = locate(source, checkpoint, revision, weights=not (apart and parts == "decoder"))
    own = locate_decoder(decoder, found) if decoder is not None else None
    files = " and ".join(map(str, [*found.weights, *(own.weights if own else ())]))
    log.info("%s: weights in %s", found.name, files)
    model, origin = _built(found, own, padding), None
    state = _weights(model, found, own, parts, ema)
    if own is not None or parts is not None or found.decoder is not None:
        origin = _origin(model, state, found, own, dtype or torch.float32)
    if parts is not None:
        left = model.decoding_modules if parts == "encoder" else model.encoding_modules
        advice = f"load the model without parts={parts!r} for it"
        model = without_parts(model, left, advice)
        state = {name: value for name, value in state.items() if name.partition(".")[0] not in left}
    model.to(dtype if dtype is not None else torch.float32)
    load_state(model, state, files)
    model.origin = origin
    model.latents = found.latents or (None if own is None else own.latents)
    if place is not None:
        model.to(place)
    return model.eval()


def _built(found: Located, own: Located | None, padding: Padding) -> Tokenizer:
    """The model that was found, without weights, with the decoder `own` in place of its own."""
    with torch.device("meta"):
        model = Tokenizer(found.config, name=found.name).with_padding(padding)
        if own is not None:
            _check_latent(own, found)
        config = found.decoder if own is None else own.decoder
        if config is not None:
            model = with_decoder(model, make_decoder(config, found.config))
            model.decoder_name = (found if own is None else own).name
    return model


def _weights(model: Tokenizer, found: Located, own: Located | None, parts: Part | None, ema: bool) -> dict[str, Tensor]:
    """The weights of the model, and of its decoder `own`, as far as they are at hand and wanted."""
    for here, wanted in ((found, "encoder" if own is not None else parts), (own, "decoder")):
        if here is not None and len(here.parts) == 1 and here.weights and here.parts != (wanted,):
            raise CheckpointError(
                f"{here.folder} has the {here.parts[0]} alone; load it with parts={here.parts[0]!r}"
                + (", or give it as the decoder of its model" if here.parts == ("decoder",) else "")
            )
    state: dict[str, Tensor] = {}
    if not (own is not None and parts == "decoder"):
        files = [path for path in found.weights if parts is None or not found.parts or path.stem == parts]
        state = without_derived(read_files(files, ema=ema), model)
    if own is not None:
        state = {name: value for name, value in state.items() if encodes(name, model)}
        averaged = any(path.suffix == ".ckpt" and holds_averages(path) for path in own.weights)
        new = read_files(own.weights, ema=averaged)
        state |= {name: value for name, value in new.items() if not encodes(name, model)}
    return state


def _origin(
    model: Tokenizer, state: Mapping[str, Tensor], found: Located, own: Located | None, dtype: torch.dtype
) -> Mapping[str, str]:
    """The identity of the model whose latents these are.

    Raises `CheckpointError` if the decoder `own` was made for another encoder than the one in `state`.
    """
    noted = own.origin if own is not None else found.origin
    if noted is None:
        return origin_of_weights(model, found.name, state, dtype)
    encoding = [name for name in state if encodes(name, model)]
    if own is not None and encoding and encoder_hash(state, model) != noted.get(ENCODER):
        raise CheckpointError(
            f"the decoder {own.name} is for latents of {noted.get('name')} with the encoder "
            f"{str(noted.get(ENCODER))[:12]}; {found.name} has the encoder {encoder_hash(state, model)[:12]}: give the "
            "decoder of this model, or that model"
        )
    return noted


def _check_latent(own: Located, found: Located) -> None:
    """Raise `CheckpointError` unless the decoder `own` was made for models of the configuration of `found`."""
    if config_hash(own.config) != config_hash(found.config):
        raise CheckpointError(
            f"the decoder {own.name} is for latents of {_described(own.config)}; {found.name} has latents of "
            f"{_described(found.config)}: give a decoder that was made for it"
        )


def _described(config: ModelConfig) -> str:
    """The latent of a model of `config` in words."""
    kind = "a causal" if config.is_causal else "a non-causal"
    codes = config.bottleneck.codebook_size
    values = f"{config.z_channels} channels" + ("" if codes is None else f", a codebook of {codes:,}")
    factors = f"{config.temporal_factor} x {config.spatial_factor} x {config.spatial_factor}"
    return f"{kind} {config.family} ({values}, factors {factors}, configuration {config_hash(config)[:12]})"
