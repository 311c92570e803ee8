"""The tokenizer that users hold: a model of the family with streams, chunked processing, loading and saving."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidtok.config.families import family_of
from vidtok.config.read import read_config
from vidtok.config.registry import entry, fetch_weights, models, named_by_repo
from vidtok.device import choose_device
from vidtok.errors import CheckpointError, ConfigError, VidTokError
from vidtok.models.base import ModelConfig, VideoModel
from vidtok.models.padding import Size, check_video, crop, pad_clip
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.runtime.streams import NOT_A_STREAM, DecodeStream, EncodeStream, in_chunks
from vidtok.runtime.tiles import TiledCoder, Tiling
from vidtok.text import near
from vidtok.zoo.checkpoint import load_state, read_checkpoint
from vidtok.zoo.folder import read_folder, save_folder
from vidtok.zoo.hub import resolve_hub_repo
from vidtok.zoo.int8 import quantized
from vidtok.zoo.runs import is_run, run_checkpoint, run_config, run_model_name

if TYPE_CHECKING:
    from vidtok.jobs.reconstruct import Reconstruction


class Tokenizer(VideoModel):
    """A video tokenizer: `encode`, `decode`, both at once by calling it, and streams of either.

    `Tokenizer(config)` makes the kind that belongs to the configuration's family, such as a `VidTok`, with random
    weights; `vidtok.load` makes one that has them. What all families share is described in `vidtok.models.base`.

    Attributes:
        config: what the model is made of.
        name: the model's name in the family, or that of the file or folder it was loaded from.
        tiling: how large frames are cut into tiles, wherever the model encodes or decodes; None: not at all.
    """

    name: str
    tiling: Tiling | None = None

    def __new__(cls, config: ModelConfig | None = None, *, name: str = "vidtok") -> Tokenizer:
        """An instance of the class that belongs to `config`; copies, which give none, are of their own class."""
        kind = family_of(config).tokenizer() if cls is Tokenizer and config is not None else cls
        return object.__new__(kind)

    def with_tiling(self, tiling: Tiling | None) -> Tokenizer:
        """This model, with another `tiling`: a copy that shares the parameters, or itself if that is its own.

        Raises `VidTokError` if the model takes frames of one size only, which are not to be cut.
        """
        if tiling is not None and self.config.frame_size is not None:
            height, width = self.config.frame_size
            raise VidTokError(
                f"{self.name} takes frames of {width} x {height} pixels only and cannot take them in tiles; leave out "
                "--tile and --max-memory (tile, max_memory)"
            )
        if tiling == self.tiling:
            return self
        tiled = copy(self)
        tiled.tiling = tiling
        return tiled

    def encode_stream(self, *, sample: bool | None = None, generator: torch.Generator | None = None) -> EncodeStream:
        """A stream that encodes one video as it comes, with the result of `encode` on all of it.

        `push` takes (B, 3, T, H, W) in -1..1 of any T and returns the latent frames that are complete; `flush` ends
        the stream. `stream.log` has the bottleneck's log of what was returned last, such as the token indices.
        `sample` and `generator` are as for `encode`. Raises `ValueError` for a non-causal model.
        """
        raise ValueError(NOT_A_STREAM)

    def decode_stream(self, *, decode_from_indices: bool = False, size: Size | None = None) -> DecodeStream:
        """A stream that decodes one latent as it comes, with the result of `decode` on all of it.

        `push` takes latents (B, z, T', H', W') or, with `decode_from_indices`, indices (B, T', H', W') of any T' and
        returns the video that is ready, `stream.delay` frames behind; `flush` returns the rest. `size` is the encoded
        clip's (frames, height, width), to crop to. Raises `ValueError` for a non-causal model.
        """
        raise ValueError(NOT_A_STREAM)

    def reconstruct(
        self,
        input: str | PathLike[str],
        output: str | PathLike[str],
        *,
        progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Write to the file `output` what this model makes of the video, picture or folder of pictures `input`.

        In constant memory for videos of any length. `options` are the fields of
        `vidtok.jobs.reconstruct.ReconstructOptions`, such as `height`, `max_frames`, `side_by_side` and `max_memory`;
        everything else is as for `vidtok.jobs.reconstruct.reconstruct`.
        """
        from vidtok.jobs.reconstruct import ReconstructOptions, reconstruct

        return reconstruct(self, input, output, ReconstructOptions(**options), progress=progress)

    def save_pretrained(
        self, save_directory: str | PathLike[str], *, int8: bool = False, push_to_hub: bool = False, **hub: Any
    ) -> Path:
        """Write `config.json` and `model.safetensors` to a folder, whole or not at all, and return the folder.

        `vidtok.load(save_directory)` reads them back. With `int8`, weights are stored in 8 bits, a quarter of float32's
        bytes, and are floats again when loaded (`vidtok.zoo.int8`). With `push_to_hub`, the folder is uploaded too:
        `hub` are the arguments of `Tokenizer.push_to_hub`.
        """
        state = {key.replace("_orig_mod.", ""): value for key, value in self.state_dict().items()}
        folder = save_folder(save_directory, self.config, quantized(state) if int8 else state, self.name)
        if push_to_hub:
            _upload(folder, **{"repo_id": folder.name, **hub})
        return folder

    def push_to_hub(self, repo_id: str, **hub: Any) -> str:
        """Upload the model to the Hugging Face Hub as `repo_id` and return its address.

        `hub`: `private`, `token`, `commit_message`, as for `huggingface_hub.HfApi`.
        """
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return _upload(self.save_pretrained(Path(folder) / "model"), repo_id=repo_id, **hub)

    @classmethod
    def from_config(cls, source: str | PathLike[str]) -> Tokenizer:
        """A model with random weights, as a name of the family or a YAML file describes it; a start for training."""
        run = read_config(source)
        return Tokenizer(run.model, name=run.name)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> Tokenizer:
        """The model in a folder, on the Hub, or of the family by name; arguments as for `vidtok.load`."""
        return load(pretrained_model_name_or_path, **kwargs)


class VidTok(VideoAutoencoder, Tokenizer):
    """A tokenizer of the first family (arXiv 2412.13061).

    Attributes:
        config: what the model is made of.
        name: the model's name in the family, or that of the file or folder it was loaded from.
        tiling: how large frames are cut into tiles (`vidtok.Tiling`), wherever the model encodes or decodes, whole or
            as a stream; None: not at all. It is about space alone.
        encoder, decoder, regularization: its parts; `encoder` and `decoder` may be replaced by compiled ones.
        use_tiling: pass long clips through in chunks of `t_chunk_enc` frames and `t_chunk_dec` latent frames.
            Activations are kept small either way; the result is that of the whole clip at once. It is about time
            alone.
        use_overlap: accepted for the published snippets. Chunks need no overlap here, since each goes on from the
            state that the one before has left.
    """

    def __init__(self, config: AutoencoderConfig, *, name: str = "vidtok") -> None:
        super().__init__(config)
        self.name = name
        self.use_tiling = False
        self.use_overlap = False
        self.t_chunk_enc = 16
        self.t_chunk_dec = max(1, self.t_chunk_enc // config.temporal_factor)

    def moments(self, video: Tensor) -> Tensor:
        chunked = self.use_tiling and self.is_causal and not torch.is_grad_enabled()
        if not chunked or video.dim() != 5 or video.shape[2] <= self.t_chunk_enc:
            if self.tiling is None:
                return super().moments(video)
            check_video(video, self.config)
            coder = TiledCoder(self.encoder, self.tiling, self.config.spatial_factor, encodes=True)
            return coder(pad_clip(video.to(self.device, self.dtype), self.config))
        stream = EncodeStream(self, moments_only=True, tiling=self.tiling)
        return in_chunks(video, self.t_chunk_enc, stream.push, stream.flush)

    def decode(self, z: Tensor, decode_from_indices: bool = False, *, size: Size | None = None) -> Tensor:
        chunked = self.use_tiling and self.is_causal and not torch.is_grad_enabled()
        if not chunked or z.dim() < 4 or z.shape[-3] <= self.t_chunk_dec:
            if self.tiling is None:
                return super().decode(z, decode_from_indices, size=size)
            coder = TiledCoder(self.decoder, self.tiling, self.config.spatial_factor, encodes=False)
            video = coder(self.latent(z, decode_from_indices=decode_from_indices))
            return video if size is None else crop(video, size)
        stream = self.decode_stream(decode_from_indices=decode_from_indices, size=size)
        return in_chunks(z, self.t_chunk_dec, stream.push, stream.flush)

    decode.__doc__ = VideoAutoencoder.decode.__doc__
    moments.__doc__ = VideoAutoencoder.moments.__doc__

    def encode_stream(self, *, sample: bool | None = None, generator: torch.Generator | None = None) -> EncodeStream:
        return EncodeStream(self, sample=sample, generator=generator, tiling=self.tiling)

    def decode_stream(self, *, decode_from_indices: bool = False, size: Size | None = None) -> DecodeStream:
        return DecodeStream(self, decode_from_indices=decode_from_indices, size=size, tiling=self.tiling)

    encode_stream.__doc__ = Tokenizer.encode_stream.__doc__
    decode_stream.__doc__ = Tokenizer.decode_stream.__doc__


def load(
    source: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    ema: bool = False,
    revision: str | None = None,
) -> Tokenizer:
    """Load a tokenizer, ready to encode and decode (in evaluation mode).

    Args:
        source: the name of a model of the family (`vidtok models` lists them; weights come from the package, the
            Hub's cache or the Hub), a YAML file of the published schema, a folder that `save_pretrained` wrote, the
            folder of a training run, whose newest checkpoint is taken, or a Hub repository `owner/name`: one that
            `save_pretrained` wrote, or the published one of a family of one model.
        checkpoint: weights to use, `.safetensors`, `.ckpt` or `.pt`, instead of those that `source` leads to.
        device: where to put the model; None: the CPU.
        dtype: of its weights and of what it computes, whatever they were saved in; None: float32.
        ema: take the moving averages that a training checkpoint holds beside the weights.
        revision: branch, tag or commit of a Hub repository.

    Raises:
        ConfigError: unknown name, unreadable or contradictory configuration, a dtype that is none of a float.
        CheckpointError: the weights cannot be had, read, or do not fit the model.
        VidTokError: this machine has no such device.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype is {dtype!r}; expected torch.float32, torch.bfloat16 or torch.float16")
    place = None if device is None else choose_device(str(device))
    config, name, weights = _resolve(source, checkpoint, revision)
    state = read_checkpoint(weights, ema=ema)
    with torch.device("meta"):
        model = Tokenizer(config, name=name)
    model.to(dtype if dtype is not None else torch.float32)
    load_state(model, state, str(weights))
    if place is not None:
        model.to(place)
    return model.eval()


def _resolve(
    source: str | PathLike[str], checkpoint: str | PathLike[str] | None, revision: str | None
) -> tuple[ModelConfig, str, Path]:
    """The configuration that `source` leads to, the model's name, and the file of its weights."""
    text = fspath(source)
    if not text:
        raise ConfigError("the model's name is empty; `vidtok models` lists the names")
    path = Path(text).expanduser()
    text = named_by_repo(text) if not path.exists() else text
    if text in models():
        weights = Path(checkpoint) if checkpoint is not None else fetch_weights(entry(text))
        return read_config(text).model, text, weights
    if path.is_dir() and is_run(path):
        run = read_config(run_config(path))
        weights = Path(checkpoint) if checkpoint is not None else run_checkpoint(path)
        return run.model, run_model_name(path), weights
    if path.is_dir():
        config, name, weights = read_folder(path)
    elif path.suffix.lower() in (".yaml", ".yml"):
        run = read_config(path)
        found = checkpoint or run.ckpt_path
        if not found:
            raise CheckpointError(f"{text} names no weights (model.params.ckpt_path); give a checkpoint for it")
        config, name, weights = run.model, run.name, Path(found)
    elif path.is_file():
        raise ConfigError(f"{text} is not a YAML file; give a checkpoint with the name or YAML file of its model")
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")):
        config, name, weights = read_folder(resolve_hub_repo(text, revision))
    else:
        raise ConfigError(
            f"{text!r} is no model's name, YAML file, folder or Hub repository{near(text, models())}; "
            "`vidtok models` lists the names"
        )
    return config, name, Path(checkpoint) if checkpoint is not None else weights


def _upload(folder: Path, *, repo_id: str, token: str | None = None, private: bool | None = None,
            commit_message: str = "Upload a vidtok model") -> str:  # fmt: skip
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=commit_message)
    return str(url)
