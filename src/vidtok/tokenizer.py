"""`Tokenizer`, the public face of a model of any family: loading, saving, and reconstruction from file to file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidtok.config.dialect import frozen_parts
from vidtok.config.families import family_of
from vidtok.config.read import read_config
from vidtok.device import choose_device
from vidtok.errors import ConfigError, VidTokError
from vidtok.jobs.reconstruct import Reconstruction, ReconstructOptions, reconstruct
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig
from vidtok.models.padding import Padding
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtwin.autoencoder import TwinLatent, VidTwinAutoencoder
from vidtok.models.vidtwin.config import VidTwinConfig
from vidtok.zoo.checkpoint import load_state, read_checkpoint, take_weights
from vidtok.zoo.folder import save_folder
from vidtok.zoo.hub import upload
from vidtok.zoo.int8 import quantized
from vidtok.zoo.latents import LatentScale
from vidtok.zoo.source import locate

__all__ = ["Tokenizer", "TwinLatent", "VidTok", "VidTwin", "VidTwinConfig", "load"]


log = logging.getLogger(__name__)


class Tokenizer(VideoModel):
    """A video tokenizer: `encode`, `decode`, a call for both in a row, streams for either, and work on files.

    `Tokenizer(config)` makes an instance of the class for the configuration's family, such as `VidTok`, with random
    weights; `vidtok.load` makes one with trained weights.

    Attributes:
        config: the model's configuration.
        name: the model's name, or the name of the file or folder it was loaded from.
        tiling: the tiles (`vidtok.Tiling`) that large frames are cut into for encoding and decoding; None: frames are
            not cut. `with_tiling` returns a model with tiles.
        latents: mean and standard deviation of the model's latents by channel, as `vidtok stats` found them and its
            folder holds them; None: unknown.
    """

    latents: LatentScale | None = None

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
        self, save_directory: str | PathLike[str], *, int8: bool = False, push_to_hub: bool = False, **hub: Any
    ) -> Path:
        """Write `config.json` and `model.safetensors` to a folder, whole or not at all, and return the folder.

        `vidtok.load(save_directory)` reads them back. With `int8`, weights are stored in 8 bits, a quarter of float32's
        bytes, and are floats again when loaded (`vidtok.zoo.int8`). With `push_to_hub`, the folder is uploaded too, and
        `hub` holds the arguments of `Tokenizer.push_to_hub`. Raises `CheckpointError` if the folder cannot be written.
        """
        state = self.named_weights()
        folder = save_folder(save_directory, self.config, quantized(state) if int8 else state, self.name, self.latents)
        if push_to_hub:
            upload(folder, **{"repo_id": folder.name, **hub})
        return folder

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

    Raises:
        ConfigError: unknown name, unreadable or contradictory configuration, a dtype that is not of floating point.
        CheckpointError: the weights cannot be had, read, or do not fit the model.
        VidTokError: this machine has no such device, or the model's clips are not padded in front.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype is {dtype!r}; expected torch.float32, torch.bfloat16 or torch.float16")
    place = None if device is None else choose_device(str(device))
    found = locate(source, checkpoint, revision)
    log.info("%s: weights in %s", found.name, found.weights)
    state = read_checkpoint(found.weights, ema=ema)
    with torch.device("meta"):
        model = Tokenizer(found.config, name=found.name).with_padding(padding)
    model.latents = found.latents
    model.to(dtype if dtype is not None else torch.float32)
    load_state(model, state, str(found.weights))
    if place is not None:
        model.to(place)
    return model.eval()
