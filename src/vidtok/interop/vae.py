"""`VidTokVAE`, a model of this package as the `vae=` of a diffusers pipeline, which needs diffusers: docs/diffusers.md.

Pipelines read ratios and statistics of a VAE under many names. `describe` gives all of them, from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch

try:
    import diffusers  # noqa: F401
except ImportError as error:
    raise ImportError("vidtok.interop.vae needs diffusers: pip install 'vidtok[diffusers]'") from error
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from vidtok.errors import ConfigError, VidTokError
from vidtok.fields import shown
from vidtok.files import write_whole
from vidtok.models.config import ModelConfig
from vidtok.models.streams import DecodeStream, EncodeStream, in_chunks
from vidtok.models.tiles import SMALLEST_TILE, Tiling
from vidtok.runtime.limits import frames_at_a_time
from vidtok.tokenizer import Tokenizer, load
from vidtok.zoo.diffusers_format import TOKENIZER, adapter_values, tokenizer_of

Scaling = Literal["channels", "whole"]
_LOADER = "from vidtok.interop.vae import VidTokVAE\n"


class Posterior(DiagonalGaussianDistribution):  # type: ignore[misc]  # diffusers has no types
    """The posterior of latents (B, z, T', H', W'); its sums run over all dimensions but the first."""

    def kl(self, other: DiagonalGaussianDistribution | None = None) -> Tensor:
        """Divergence from `other`, or from a unit Gaussian: (B,)."""
        mean, var, logvar = (0.0, 1.0, 0.0) if other is None else (other.mean, other.var, other.logvar)
        terms: Tensor = (self.mean - mean) ** 2 / var + self.var / var - 1.0 - self.logvar + logvar
        return 0.5 * terms.flatten(1).sum(1)

    def nll(self, sample: Tensor, dims: Sequence[int] = (1, 2, 3, 4)) -> Tensor:
        """Negative log-likelihood of `sample`: (B,)."""
        found: Tensor = super().nll(sample, dims=list(dims))
        return found


class Point:
    """The posterior of a latent that is known exactly, such as one of tokens."""

    def __init__(self, latents: Tensor) -> None:
        self.parameters = self.mean = latents
        self.std = self.var = torch.zeros_like(latents)
        self.logvar = torch.full_like(latents, float("-inf"))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean

    def mode(self) -> Tensor:
        return self.mean

    def kl(self, other: Any = None) -> Tensor:
        """Zero: a point has no divergence that could be computed."""
        return self.mean.new_zeros(len(self.mean))


@dataclass
class TokensOutput(BaseOutput):  # type: ignore[misc]
    """The result of `VidTokVAE.encode` for a model with tokens."""

    latents: Tensor
    """(B, z, T', H', W')."""
    indices: Tensor
    """(B, T', H', W') int32, for `decode(indices, decode_from_indices=True)`."""
    latent_dist: Point
    """The latents as a distribution, which pipelines ask for."""


def describe(config: ModelConfig) -> dict[str, Any]:
    """The facts about a latent of `config` that pipelines read from a VAE's configuration, under all of their names.

    `temperal_downsample` (sic) and `block_out_channels` encode ratios in their lengths. They are left out of a model
    whose ratios are no powers of two.
    """
    time, space, channels = config.temporal_factor, config.spatial_factor, config.z_channels
    facts: dict[str, Any] = {
        "in_channels": config.in_channels, "out_channels": config.in_channels, "z_dim": channels,
        "latent_channels": channels, "scale_factor_temporal": time, "scale_factor_spatial": space,
        "temporal_compression_ratio": time, "spatial_compression_ratio": space, "shift_factor": None,
        "timestep_conditioning": False, "invert_scale_latents": False, "force_upcast": False, "patch_size": None,
    }  # fmt: skip
    steps_in_time, steps = time.bit_length() - 1, space.bit_length() - 1
    if time == 1 << steps_in_time and space == 1 << steps and steps_in_time <= steps:
        facts["temperal_downsample"] = [False] * (steps - steps_in_time) + [True] * steps_in_time
        widths = [getattr(config, "ch", 128) * multiplier for multiplier in getattr(config, "ch_mult", (1,))]
        facts["block_out_channels"] = [widths[min(i, len(widths) - 1)] for i in range(steps + 1)]
    return facts


class VidTokVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A tokenizer of this package with the interface of diffusers' video autoencoders.

    `VidTokVAE.load(NAME)` takes what `vidtok.load` takes; `save_pretrained` and `from_pretrained` are diffusers' own.
    Causal models take and give 1 + k f frames for the temporal factor f, as pipelines count them. Videos that are
    longer than 16 frames or so pass as a stream where no gradient is wanted, for the same result.

    Args:
        tokenizer: the model's configuration, as `adapter_values` gives it.
        latents_mean, latents_std: statistics of the latents, a value a channel; None: 0 and 1. A pipeline that reads
            them shows its transformer (z - mean) / std.
        scaling_factor: factor of latents for pipelines that read one number.
    """

    _mean: Tensor
    _std: Tensor
    _supports_gradient_checkpointing = True
    _no_split_modules: list[str] = []  # noqa: RUF012  # diffusers' name and type

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        tokenizer: dict[str, Any],
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        config, name = tokenizer_of(tokenizer)
        if config.parts or config.frame_size is not None:
            raise ConfigError(
                f"the model {name} of the family {config.family} takes clips of one size and its latent has no grid of "
                "positions, which pipelines need; take a VidTok, such as vidtok_kl_causal_488_16chn_v1_1"
            )
        mean = _per_channel(latents_mean, 0.0, config.z_channels, "latents_mean")
        std = _per_channel(latents_std, 1.0, config.z_channels, "latents_std")
        self.register_to_config(**describe(config), latents_mean=mean, latents_std=std)
        self._adopt(Tokenizer(config, name=name or config.family))
        self.register_buffer("_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("_std", torch.tensor(std), persistent=False)
        self.temporal_compression_ratio = config.temporal_factor
        self.spatial_compression_ratio = config.spatial_factor
        self.temperal_downsample = self.config.get("temperal_downsample")
        self.use_slicing = False

    def _adopt(self, tokenizer: Tokenizer) -> None:
        """Make the parts of `tokenizer` parts of this module, so that weights have their published names."""
        self.__dict__["_tokenizer"] = tokenizer
        for name, part in tokenizer.named_children():
            self.add_module(name, part)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model as `vidtok.load` gives it; it shares all weights, and parts that were replaced."""
        tokenizer: Tokenizer = self.__dict__["_tokenizer"]
        for name in tokenizer._modules:
            tokenizer._modules[name] = self._modules[name]
        return tokenizer

    @property
    def latents_mean(self) -> Tensor:
        """Mean of the latents, (z,)."""
        return self._mean

    @property
    def latents_std(self) -> Tensor:
        """Standard deviation of the latents, (z,)."""
        return self._std

    # Loading and saving.

    @classmethod
    def load(cls, source: str | PathLike[str], *, scaling: Scaling = "channels", **options: Any) -> VidTokVAE:
        """The VAE of a name, YAML file, folder, training run or Hub repository; `options` are those of `vidtok.load`.

        `scaling` is as for `from_tokenizer`.
        """
        return cls.from_tokenizer(load(source, **options), scaling=scaling)

    @classmethod
    def from_tokenizer(
        cls,
        model: Tokenizer,
        *,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        scaling: Scaling = "channels",
    ) -> VidTokVAE:
        """The VAE of a loaded model, which shares its weights.

        Args:
            model: a tokenizer whose latent is a grid.
            latents_mean, latents_std: statistics of the latents; None: those of the model's folder, if it has some.
            scaling: place of the statistics. "channels": in `latents_mean` and `latents_std`, for pipelines that read
                them (Wan, LTX, Cosmos). "whole": as one number in `scaling_factor`, for the others (CogVideoX,
                HunyuanVideo), which multiply latents by it.

        Raises:
            ConfigError: the latent is no grid, or the statistics do not fit.
        """
        if scaling not in get_args(Scaling):
            raise ConfigError(f"scaling is {shown(scaling)}; expected {' or '.join(map(repr, get_args(Scaling)))}")
        channels = model.z_channels
        mean = model.latents_mean if latents_mean is None else latents_mean
        std = model.latents_std if latents_std is None else latents_std
        factor = 1.0
        if scaling == "whole":
            whole = _per_channel(std, 1.0, channels, "latents_std")
            offsets = _per_channel(mean, 0.0, channels, "latents_mean")
            # The variance of all values together is the channels' mean variance and the variance of their means.
            middle = sum(offsets) / channels
            factor = (sum(s**2 + (m - middle) ** 2 for s, m in zip(whole, offsets, strict=True)) / channels) ** -0.5
            mean = std = None
        values = adapter_values(model.config, model.name)
        with torch.device("meta"):
            # By name: diffusers takes positional arguments for defaults.
            vae: VidTokVAE = cls(
                tokenizer=values, latents_mean=_plain(mean), latents_std=_plain(std), scaling_factor=float(factor)
            )
        vae._adopt(model)
        vae._mean = torch.tensor(vae.config.latents_mean, device=model.device)
        vae._std = torch.tensor(vae.config.latents_std, device=model.device)
        vae.train(model.training)
        return vae

    @classmethod
    def extract_init_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """diffusers' own, without the facts that follow from the model."""
        config, _ = tokenizer_of(config_dict.get(TOKENIZER))
        facts = {*describe(config), "auto_map"}
        return super().extract_init_dict({k: v for k, v in config_dict.items() if k not in facts}, **kwargs)

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """diffusers' own; after `register_for_auto_class` with the file that `AutoModel` loads the class from."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if getattr(self, "_auto_class", None) is not None:
            write_whole(Path(save_directory) / f"{type(self).__module__.rpartition('.')[2]}.py", _LOADER)

    # Settings.

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute activations in the backward pass; `enable_gradient_checkpointing` sets it."""
        return bool(getattr(self._recomputing()[0].config, "use_checkpoint", False)) if self._recomputing() else False

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        for part in self._recomputing():
            part.config = replace(part.config, use_checkpoint=enable)

    def _recomputing(self) -> list[Any]:
        """The parts whose configuration says whether they recompute."""
        parts = self.__dict__["_tokenizer"].modules() if "_tokenizer" in self.__dict__ else ()
        return [part for part in parts if hasattr(getattr(part, "config", None), "use_checkpoint")]

    @property
    def use_tiling(self) -> bool:
        return self.tokenizer.tiling is not None

    def enable_tiling(
        self,
        tile_sample_min_height: int | None = None,
        tile_sample_min_width: int | None = None,
        tile_sample_stride_height: float | None = None,
        tile_sample_stride_width: float | None = None,
        **others: Any,
    ) -> None:
        """Encode and decode large frames in overlapping tiles, so that memory depends on the tile alone.

        Tiles are squares: the smaller of the two sizes given counts, 256 by default, and the smaller stride. Pixels
        between two strides overlap, 64 by default. Other arguments of diffusers' classes have no effect. Raises
        `VidTokError` if the tiles are smaller than 64 pixels or overlap by more than half.
        """
        sides = [int(side) for side in (tile_sample_min_height, tile_sample_min_width) if side]
        strides = [int(stride) for stride in (tile_sample_stride_height, tile_sample_stride_width) if stride]
        size = min(sides, default=256)
        default = min(64, size // 4)
        overlap = size - min(strides) if strides else default
        if size < SMALLEST_TILE:
            raise VidTokError(f"a tile has {size} pixels a side; expected at least {SMALLEST_TILE}")
        self._tile(Tiling(size, max(0, overlap)))

    def disable_tiling(self) -> None:
        self._tile(None)

    def _tile(self, tiling: Tiling | None) -> None:
        self.__dict__["_tokenizer"] = self.tokenizer.with_tiling(tiling)

    def enable_slicing(self) -> None:
        """Take the clips of a batch one by one."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        self.use_slicing = False

    # Encoding and decoding.

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Encode clips (B, 3, T, H, W) in -1..1, of any size; pictures (B, 3, H, W) are clips of one frame.

        Returns:
            For KL an output with `latent_dist`, the posterior of latents (B, z, T', H', W'); for tokens one with
            `latents`, `indices` and `latent_dist`. Without `return_dict` a tuple: (posterior,) or (latents, indices).
        """
        x = x.unsqueeze(2) if x.dim() == 4 else x
        moments = self._by_clip(self._moments, x)
        bottleneck = self.tokenizer.regularization
        if not bottleneck.discrete:
            posterior = Posterior(moments)
            return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)
        latents, log = bottleneck(moments)
        indices = log["indices"]
        return TokensOutput(latents, indices, Point(latents)) if return_dict else (latents, indices)

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: Tensor, temb: Any = None, return_dict: bool = True, *, decode_from_indices: bool = False, **others: Any
    ) -> Any:
        """Decode latents (B, z, T', H', W'), or with `decode_from_indices` indices (B, T', H', W').

        `temb` and other arguments, such as `generator`, are taken for the pipelines that pass them and have no effect;
        True or False in the place of `temb` is `return_dict`, as in classes without it. Returns an output with
        `sample`, (B, 3, T, H, W) about -1..1; without `return_dict` the tuple (sample,).
        """
        return_dict = temb if isinstance(temb, bool) else return_dict
        sample = self._by_clip(self._video_of, self.tokenizer.latent(z, decode_from_indices=decode_from_indices))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Encode and decode clips; the result has their size."""
        found = self.encode(sample).latent_dist
        z = found.sample(generator=generator) if sample_posterior else found.mode()
        video = self.decode(z, return_dict=False)[0]
        shape = sample.shape[2:] if sample.dim() == 5 else (1, *sample.shape[2:])
        video = video[:, :, : shape[0], : shape[1], : shape[2]]
        video = video if sample.dim() == 5 else video[:, :, 0]
        return DecoderOutput(sample=video) if return_dict else (video,)

    def _by_clip(self, code: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.cat([code(clip) for clip in torch.split(x, 1)]) if self.use_slicing and len(x) > 1 else code(x)

    def _moments(self, x: Tensor) -> Tensor:
        model = self.tokenizer
        at_a_time = frames_at_a_time(model.config, (x.shape[3], x.shape[4]), None)
        if not model.is_causal or torch.is_grad_enabled() or x.shape[2] <= at_a_time + 1:
            return model.moments(x)
        stream = EncodeStream(model, moments_only=True, at_a_time=at_a_time)
        return in_chunks(x.to(model.device, model.dtype), at_a_time, stream.push, stream.flush)

    def _video_of(self, z: Tensor) -> Tensor:
        model = self.tokenizer
        size = (z.shape[3] * model.spatial_factor, z.shape[4] * model.spatial_factor)
        at_a_time = max(1, frames_at_a_time(model.config, size, None) // model.temporal_factor)
        if not model.is_causal or torch.is_grad_enabled() or z.shape[2] <= at_a_time + 1:
            return model.decode(z)
        stream = DecodeStream(model, at_a_time=at_a_time)
        return in_chunks(z, at_a_time, stream.push, stream.flush)


def _plain(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _per_channel(values: Sequence[float] | None, default: float, channels: int, name: str) -> list[float]:
    found = [default] * channels if values is None else [float(value) for value in values]
    if len(found) != channels or (name == "latents_std" and min(found) <= 0):
        above = ", all above 0" if name == "latents_std" else ""
        raise ConfigError(f"{name} is {shown(found)}; expected {channels} values, one a channel{above}")
    return found
