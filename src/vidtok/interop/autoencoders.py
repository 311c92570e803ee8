"""Autoencoders of diffusers (0.42.1) behind the protocol of `vidtok.evaluation.autoencoders`, to be measured.

Every class has its own lengths, sizes and results. `RULES` holds what its configuration does not say; everything else
is found by encoding and decoding one small clip. A class that is not in `RULES` is tried in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidtok.errors import VidTokError
from vidtok.evaluation.autoencoders import Description, Sizes, size_above
from vidtok.fields import shown
from vidtok.text import reason, shortened
from vidtok.tokens.identity import weights_hash
from vidtok.zoo.diffusers_format import ADAPTER_NAME, PREFIX

LARGEST_WHOLE = 512 * 512
"""Pixels of a frame up to which it is computed whole; larger ones in the class's own tiles, if it has some."""
_PICTURES_AT_ONCE = 8
_REASON = 200


@dataclass(frozen=True)
class Rule:
    """The handling of one class of diffusers. Functions take the model."""

    frames: Callable[[Any], Sizes] = lambda model: (1, _time(model))
    """Numbers of frames that it takes, as (first, step)."""
    height: Callable[[Any], Sizes] | None = None
    width: Callable[[Any], Sizes] | None = None
    """Sizes that it takes, where they are not the multiples of its ratio."""
    side: int = 64
    """Pixels a side of the clip that it is tried on; rounded up to a size that it takes."""
    pictures: bool = False
    """It takes pictures (B, 3, H, W)."""
    tiles_always: bool = False
    """It computes nothing without `enable_tiling`."""
    copies_in_front: bool = False
    """It wants `temporal_factor` - 1 copies of the first frame in front, and drops as many when it decodes."""
    frames_first: bool = False
    """It decodes to (B, T, 3, H, W)."""
    codebook_size: Callable[[Any], int | None] = lambda model: None


def _time(model: Any) -> int:
    """Frames of video per latent frame, by the class's own account."""
    # diffusers warns where an attribute is asked for that only the configuration has.
    for holder in (model.__dict__, model.config):
        for name in ("temporal_compression_ratio", "temporal_compress_times", "scale_factor_temporal"):
            if holder.get(name) is not None:
                return int(holder[name])
    steps = model.config.get("temperal_downsample")
    return 4 if steps is None else 1 << sum(map(bool, steps))


def _tokens(model: Any) -> int | None:
    return int(model.config.codebook_size) if model.config.regularizer == "fsq" else None


def _pairs_of_latents(model: Any) -> Sizes:
    # Its decoder takes latent frames in pairs, and an even number of them would be one frame group too many.
    return 1, 2 * _time(model)


def _kernel(axis: int) -> Callable[[Any], Sizes]:
    return lambda model: (int(model.kernel[axis]), int(model.stride[axis]))


def _overlapping_clips(model: Any) -> Sizes:
    return int(model.config.clip_length + model.frame_overlap), int(model.config.clip_length)


_PICTURES = Rule(frames=lambda model: (1, 1), pictures=True)
RULES: dict[str, Rule] = {
    "AutoencoderKLWan": Rule(),
    "AutoencoderKLQwenImage": Rule(),
    "AutoencoderKLCosmos": Rule(),
    "AutoencoderKLCogVideoX": Rule(frames=_pairs_of_latents),
    "AutoencoderKLHunyuanVideo": Rule(),
    "AutoencoderKLHunyuanVideo15": Rule(),
    "AutoencoderKLLTXVideo": Rule(),
    "AutoencoderKLLTX2Video": Rule(),
    "AutoencoderKLMochi": Rule(),
    "AutoencoderKLAllegro": Rule(
        frames=_kernel(0), height=_kernel(1), width=_kernel(2), tiles_always=True, frames_first=True
    ),
    "AutoencoderKLMagvit": Rule(),
    "AutoencoderKLKVAEVideo": Rule(frames=lambda model: (1, 16)),  # a shorter segment loses frames
    "AutoencoderKLMiniMaxH3": Rule(frames=_overlapping_clips),
    "AutoencoderVidTok": Rule(copies_in_front=True, codebook_size=_tokens),
    ADAPTER_NAME: Rule(codebook_size=lambda model: model.tokenizer.codebook_size),
    "AutoencoderKLTemporalDecoder": _PICTURES,
    "AutoencoderKL": _PICTURES,
    "AutoencoderDC": _PICTURES,
    "AutoencoderTiny": _PICTURES,
    "VQModel": replace(_PICTURES, codebook_size=lambda model: int(model.config.num_vq_embeddings)),
}
"""By the name of the class. Sizes are multiples of the ratio that a small clip shows, unless a rule says otherwise."""
_UNKNOWN = (
    Rule(), Rule(frames=lambda model: (1, 16)), Rule(frames=lambda model: (16, 16)), _PICTURES,
)  # fmt: skip
"""Rules that a class without one is tried with, in this order."""


class DiffusersAutoencoder:
    """A loaded autoencoder of diffusers, as the evaluation takes it.

    Args:
        model: the autoencoder, in the dtype and on the device that it computes with.
        name: its name in tables and files.

    Raises:
        VidTokError: the class is unknown and does not behave like an autoencoder.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._model = model.eval()
        self._class = type(model).__name__
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        known = RULES.get(self._class)
        failures: list[str] = []
        for rule in (known,) if known is not None else _UNKNOWN:
            try:
                self._rule, self.description = rule, self._described(rule, name)
                return
            # An unknown class may fail in any way, and a known one does so for a configuration that nobody has tried.
            except Exception as error:
                failures.append(shortened(reason(error), _REASON))
        hint = "" if known is not None else " (this vidtok does not know the class)"
        reasons = "; ".join(dict.fromkeys(failures))
        raise VidTokError(
            f"{name}, of the class {self._class}{hint}, does not code a small clip: {reasons}; wrap it as "
            "docs/evaluation.md says"
        )

    def _described(self, rule: Rule, name: str) -> Description:
        """The description, from the class's rule and one small clip. Raises whatever the model does."""
        frames = rule.frames(self._model)
        first, step = frames
        count = first if rule.tiles_always else first + step * (step > 1)
        rows, columns = (size_above(rule.side, sizes(self._model)) if sizes is not None else rule.side
                         for sizes in (rule.height, rule.width))  # fmt: skip
        self._rule, self.description = rule, None  # type: ignore[assignment]  # `encode` reads the rule alone
        clip = torch.zeros(1, 3, count, rows, columns, device=self._device)
        with torch.no_grad():
            code = self.encode(clip)
            decoded = self.decode(code)
        if decoded.dim() != 5 or decoded.shape[1] != 3 or decoded.shape[2] != count or decoded.shape[3] < rows:
            raise VidTokError(f"a clip of shape {tuple(clip.shape)} comes back as {tuple(decoded.shape)}")
        latents = code.shape[-3]
        alone = first == 1 and step > 1
        positions = code.shape[-2]
        values = self._model.config.get("z_channels", 1) if code.dim() == 4 else code.shape[1]
        found = max(1, (count - alone) // max(1, latents - alone))
        return Description(
            name=name,
            temporal_factor=found if alone or found * latents == count else _time(self._model),
            spatial_factor=rows // positions,
            values=int(values),
            codebook_size=rule.codebook_size(self._model),
            frames=frames,
            height=None if rule.height is None else rule.height(self._model),
            width=None if rule.width is None else rule.width(self._model),
            device=str(self._device),
            samples=True,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            dtype=str(self._dtype).removeprefix("torch."),
            identity=self._identity(),
        )

    def _identity(self) -> dict[str, Any]:
        import diffusers

        config = {k: v for k, v in dict(self._model.config).items() if not k.startswith("_")}
        text = json.dumps(config, sort_keys=True, default=str)
        return {
            "class": self._class,
            "diffusers": diffusers.__version__,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "weights_sha256": weights_hash(self._model.state_dict()),
            "tiles_above": LARGEST_WHOLE,
        }

    def encode(self, video: Tensor, *, sample: bool = False) -> Tensor:
        """The latent (1, z, T', H', W'), or tokens (1, T', H', W'), of `video` (1, 3, T, H, W) in -1..1."""
        rule, model = self._rule, self._model
        self._tile(video.shape[3] * video.shape[4])
        video = video.to(self._device, self._dtype)
        if rule.pictures:
            pictures = torch.split(video[0].transpose(0, 1), _PICTURES_AT_ONCE)
            codes = [self._code(model.encode(batch), sample=sample) for batch in pictures]
            return torch.cat(codes).movedim(0, -3).unsqueeze(0)
        if rule.copies_in_front:
            front = video[:, :, :1].expand(-1, -1, _time(model) - 1, -1, -1)
            video = torch.cat([front, video], 2)
        return self._code(model.encode(video), sample=sample)

    def _code(self, found: Any, *, sample: bool) -> Tensor:
        """The latent or the tokens in the result of a model's `encode`."""
        if self._class == "VQModel":
            return self._nearest(found.latents)
        if self._rule.codebook_size(self._model) is not None:
            indices = found.indices if hasattr(found, "indices") else found[1]
            return torch.as_tensor(indices)
        posterior = getattr(found, "latent_dist", None)
        if posterior is not None:
            return torch.as_tensor(posterior.sample() if sample else posterior.mode())
        for name in ("latents", "latent"):
            if isinstance(getattr(found, name, None), Tensor):
                return torch.as_tensor(getattr(found, name))
        if isinstance(found, tuple | list) and found and isinstance(found[0], Tensor):
            return found[0]
        if isinstance(found, Tensor):
            return found
        raise VidTokError(f"encode gives a {type(found).__name__}, without latent_dist, latents or latent")

    def _nearest(self, latents: Tensor) -> Tensor:
        """The indices (B, H', W') of the codes nearest to `latents` (B, z, H', W')."""
        indices = self._model.quantize(latents)[2][2]
        return torch.as_tensor(indices).reshape(latents.shape[0], *latents.shape[2:])

    def decode(self, code: Tensor) -> Tensor:
        """The video (1, 3, T, H, W), about -1..1, of a result of `encode`."""
        model = self._model
        if self._rule.pictures:
            batches = torch.split(code[0].movedim(-3, 0), _PICTURES_AT_ONCE)
            return torch.cat([self._decoded(batch) for batch in batches]).transpose(0, 1).unsqueeze(0)
        if self._class == "AutoencoderVidTok":  # its decode has another signature
            return torch.as_tensor(model.decode(code, decode_from_indices=not code.is_floating_point()))
        return self._decoded(code)

    def _decoded(self, code: Tensor) -> Tensor:
        model = self._model
        options: dict[str, Any] = {"return_dict": False}
        if self._class == "VQModel":
            size = (*code.shape, int(model.config.vq_embed_dim or model.config.latent_channels))
            code = model.quantize.get_codebook_entry(code.reshape(-1), size)
            options["force_not_quantize"] = True
        elif self._class == ADAPTER_NAME:
            options["decode_from_indices"] = not code.is_floating_point()
        elif self._class == "AutoencoderKLTemporalDecoder":
            options["num_frames"] = len(code)
        if model.config.get("timestep_conditioning"):  # LTX's decoders that remove noise: there is none
            options["temb"] = torch.zeros(len(code), device=self._device, dtype=self._dtype)
        try:
            found = model.decode(code, **options)
        except TypeError:
            found = model.decode(code)
        found = torch.as_tensor(found[0] if isinstance(found, tuple | list) else getattr(found, "sample", found))
        return found.transpose(1, 2) if self._rule.frames_first else found

    def _tile(self, pixels: int) -> None:
        """Have frames of `pixels` computed in tiles, if they are large and the class can."""
        wanted = self._rule.tiles_always or pixels > LARGEST_WHOLE
        if wanted != getattr(self._model, "use_tiling", wanted):
            switch = "enable_tiling" if wanted else "disable_tiling"
            getattr(self._model, switch, lambda: None)()


def split_source(text: str) -> tuple[str, str | None]:
    """The folder or repository and the subfolder of `diffusers:SOURCE[:SUBFOLDER]`."""
    source = text.removeprefix(PREFIX)
    if not source:
        raise VidTokError(f"{text} names no model; expected {PREFIX}FOLDER_OR_REPO[:SUBFOLDER]")
    if Path(source).expanduser().exists() or ":" not in source:
        return source, None
    source, _, subfolder = source.rpartition(":")
    return source, subfolder


def load_autoencoder(
    text: str, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> DiffusersAutoencoder:
    """The autoencoder that `diffusers:FOLDER_OR_REPO[:SUBFOLDER]` names, on `device` and in `dtype`.

    Without a subfolder, that of a whole pipeline is `vae`. Weights must be safetensors, and no code of a folder or
    repository is run. Raises `VidTokError` if it cannot be had or is no autoencoder.
    """
    try:
        import diffusers
    except ImportError as error:
        raise VidTokError(f"{text} needs diffusers: pip install 'vidtok[diffusers]'") from error

    source, subfolder = split_source(text)
    place = Path(source).expanduser()
    if place.is_dir():
        source = str(place)
        if subfolder is None and not (place / "config.json").is_file() and (place / "vae" / "config.json").is_file():
            subfolder = "vae"
    where = {} if subfolder is None else {"subfolder": subfolder}
    named = source + (f":{subfolder}" if subfolder else "")
    config = _tried(lambda: diffusers.AutoModel.load_config(source, **where), f"{named} cannot be read")
    kind = config.get("_class_name")
    model_class = _class_of(kind)
    if model_class is None:
        raise VidTokError(
            f"{named} is of the class {shown(kind)}; expected an autoencoder of diffusers {diffusers.__version__}, "
            f"such as {', '.join(list(RULES)[:3])}"
        )
    model = _tried(
        lambda: model_class.from_pretrained(source, **where, torch_dtype=dtype or torch.float32, use_safetensors=True),
        f"the weights of {named} cannot be loaded",
    )
    return DiffusersAutoencoder(model.to(device or torch.device("cpu")), _short_name(place, source, subfolder))


def _class_of(name: object) -> Any:
    """The autoencoder class called `name`; None if there is none."""
    import diffusers

    if name == ADAPTER_NAME:
        from vidtok.interop.vae import VidTokVAE

        return VidTokVAE
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    is_model = isinstance(found, type) and issubclass(found, nn.Module)
    return found if is_model and hasattr(found, "encode") and hasattr(found, "decode") else None


def _short_name(place: Path, source: str, subfolder: str | None) -> str:
    base = place.resolve().name if place.is_dir() else source
    return f"{base}:{subfolder}" if subfolder and subfolder != "vae" else base


def _tried(load: Callable[[], Any], problem: str) -> Any:
    try:
        return load()
    # diffusers and the Hub's client raise errors of many kinds, which share no base.
    except Exception as error:
        raise VidTokError(
            f"{problem}: {shortened(reason(error), _REASON)}; expected a folder or Hub repository of diffusers with "
            "config.json and safetensors weights"
        ) from error
