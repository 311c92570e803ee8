"""Identity of the model that made a file: hashes of its configuration and of its weights.

The hashes tell models apart, whatever their names. They depend on neither the file that the weights came from nor the
device that they are on:

- `config`: SHA-256 of the configuration as JSON with sorted keys, without the fields that the `training_only` of its
  class, and of its bottleneck's class, names.
- `weights`: SHA-256 over the weights sorted by name: for each weight its name, a zero byte, its shape as decimal
  numbers joined by commas, a zero byte, and its values as little-endian float32 in C order. The dtype in memory is
  noted beside it, since rounding to another dtype changes values.
- `signs`: the same, but with one bit for each value, 1 if it is negative (eight to a byte, the first in the highest
  bit, zeros at the end of the last byte). Rounding changes no sign, not even of zero, so that this hash is the same in
  any dtype.

A decoder of its own notes the identity of the model that its latents come from, its origin, and with it `encoder`: as
`signs`, of the weights that encode alone. So a token file is decoded by either, and no decoder is put behind another
encoder.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import TokenFileError
from vidtok.fields import build, plain
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig
from vidtok.tokens.header import LatentLayout, ModelIdentity

_UNORDERED = {"spatial_ds", "spatial_us", "tempo_ds", "tempo_us"}
_SHOWN = 12
ENCODER = "encoder"
"""Key of an origin: the hash of the encoding weights."""
_BLOCK = 1 << 22

_known: weakref.WeakKeyDictionary[VideoModel, tuple[object, str, str]] = weakref.WeakKeyDictionary()


def model_identity(model: VideoModel) -> ModelIdentity:
    """The identity of `model`; with a decoder of its own or without some parts, of the model whose latents it has.

    Hashing takes about a second for 600 MB of weights; it is done again only if the weights change.
    """
    if model.origin is not None:
        return build(ModelIdentity, model.origin, "origin", ignore_unknown=True)
    weights, signs = _weight_hashes(model)
    return _identity(model.name, model.config, weights, signs, model.dtype)


def origin_of(model: VideoModel) -> dict[str, str]:
    """The identity of `model` as plain values, with `encoder`, the hash of its encoding weights (`encoder_hash`)."""
    if model.origin is not None:
        return dict(model.origin)
    return {**plain(model_identity(model)), ENCODER: encoder_hash(model.named_weights(), model)}


def origin_of_weights(model: VideoModel, name: str, state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, str]:
    """`origin_of` a model like `model`, called `name`, with all the weights `state` in `dtype`."""
    weights, signs = _hashes({key: value.to(dtype) for key, value in state.items()})
    found = plain(_identity(name, model.config, weights, signs, dtype))
    return {**found, ENCODER: encoder_hash(state, model)}


def encoder_hash(state: Mapping[str, Tensor], model: VideoModel) -> str:
    """The hash of the signs of the weights in `state` that encode, in a model like `model`: its latent's identity."""
    return _hashes({name: value for name, value in state.items() if encodes(name, model)})[1]


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """The hash `weights` of `state`."""
    return _hashes(state)[0]


def encodes(name: str, model: VideoModel) -> bool:
    """True if the weight called `name` belongs to the encoder or the bottleneck of `model`."""
    return name.partition(".")[0] not in model.decoding_modules


def _identity(name: str, config: ModelConfig, weights: str, signs: str, dtype: torch.dtype) -> ModelIdentity:
    kind = str(dtype).removeprefix("torch.")
    return ModelIdentity(name=name, config=config_hash(config), weights=weights, weights_dtype=kind, signs=signs)


def config_hash(config: ModelConfig) -> str:
    """The hash of all values of `config` that a trained model's output depends on: 64 hexadecimal digits."""
    unused = config.bottleneck.training_only
    values = {key: value for key, value in config.to_dict().items() if key not in config.training_only}
    values["bottleneck"] = {key: value for key, value in values["bottleneck"].items() if key not in unused}
    for key in _UNORDERED & values.keys():
        values[key] = sorted(values[key])
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_model(wanted: ModelIdentity, model: VideoModel, path: object, *, allow_other: bool = False) -> None:
    """Raise `TokenFileError` unless `model` is the model `wanted`, which made the file at `path`.

    With `allow_other`, other weights are accepted, such as a decoder that was trained further; another configuration is
    not.
    """
    own = model_identity(model)
    same_weights = own.weights == wanted.weights if own.weights_dtype == wanted.weights_dtype else True
    if own.config == wanted.config and (allow_other or (own.signs == wanted.signs and same_weights)):
        return
    if own.config != wanted.config:
        difference = f"configurations {wanted.config[:_SHOWN]} and {own.config[:_SHOWN]}"
        mend = "give the model that it was made with (--model, --checkpoint)"
    else:
        hashes = (wanted.weights, own.weights) if not same_weights else (wanted.signs, own.signs)
        difference = f"weights {hashes[0][:_SHOWN]} and {hashes[1][:_SHOWN]}"
        mend = (
            "give the weights that it was made with (--model, --checkpoint), or, if these are meant for its latents, "
            "--allow-other-weights (allow_other=True)"
        )
    raise TokenFileError(f"{path} was made with {wanted.name}, which is not this {own.name} ({difference}); {mend}")


def check_layout(latent: LatentLayout, model: VideoModel, path: object) -> None:
    """Raise `TokenFileError` unless `latent`, of the file at `path`, is of the form that `model` makes.

    The hashes cannot show this, since a file may state any.
    """
    config = model.config
    of_file = (latent.channels, latent.temporal_factor, latent.spatial_factor, latent.causal, latent.levels,
               latent.streams)  # fmt: skip
    of_model = (config.z_channels, config.temporal_factor, config.spatial_factor, config.is_causal,
                config.bottleneck.token_levels, config.parts)  # fmt: skip
    if of_file != of_model:
        raise TokenFileError(f"{path} has a latent of another form than {model.name} makes; get an undamaged copy")


def _weight_hashes(model: VideoModel) -> tuple[str, str]:
    state = model.named_weights()
    version = _version(state)
    known = _known.get(model)
    if known is not None and version is not None and known[0] == version:
        return known[1], known[2]
    result = _hashes(state)
    if version is not None:
        _known[model] = (version, *result)
    return result


def _hashes(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """The hashes `weights` and `signs` of `state`."""
    weights, signs = hashlib.sha256(), hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach()
        label = name.encode() + b"\0" + ",".join(map(str, value.shape)).encode() + b"\0"
        weights.update(label)
        signs.update(label)
        # In blocks of whole bytes of signs, so that a large weight needs no large copies.
        for block in torch.split(value.reshape(-1), _BLOCK):
            values = np.ascontiguousarray(block.float().cpu().numpy(), dtype="<f4")
            weights.update(values.data)
            signs.update(np.packbits(np.signbit(values)).data)
    return weights.hexdigest(), signs.hexdigest()


def _version(state: dict[str, Tensor]) -> Any:
    """A value that changes when a weight does; None if changes cannot be detected."""
    if any(value.is_inference() for value in state.values()):
        return None
    return tuple((name, value.data_ptr(), value._version, value.dtype) for name, value in state.items())
