"""Checks for the shortcuts of inference: layers as they were built, and calls whose values nobody else sees.

Without gradients, a layer may be computed from its weights without a call, and may write into the tensor that the layer
before it returned. Both are right only for layers as they were built: a hook may look at the output of its layer and
keep it, a wrapper (an adapter, a parametrization) has to act as it does with gradients, and transforms
(`torch.compile`, `torch.func`) take only plain operations.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _hooks_of_all

L = TypeVar("L", bound=type[nn.Module])

_PLAIN: set[type[nn.Module]] = {nn.LayerNorm, nn.Linear, nn.Conv1d, nn.Conv3d}


def plain_layer(cls: L) -> L:
    """Class decorator: layers of exactly this class return new tensors, which may be written to."""
    _PLAIN.add(cls)
    return cls


def in_eager_inference() -> bool:
    """True without gradients, graphs and transforms of `torch.func`: memory may be reused and values may be read."""
    return not torch.is_grad_enabled() and in_eager()


def in_eager() -> bool:
    """True if operations run as they are called, on tensors that hold values."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def has_values(x: Tensor) -> bool:
    """True if the values of `x` can be read here: not in a graph, a transform, a CUDA capture or on the meta device."""
    if not in_eager() or type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def is_plain(module: nn.Module) -> bool:
    """True if `module` and its parts are as they were built: plain layers, with no hook and no other `forward`."""
    if _hooks_of_all._global_forward_hooks or _hooks_of_all._global_forward_pre_hooks:
        return False
    return _is_as_built(module)


def _is_as_built(module: nn.Module) -> bool:
    own = module.__dict__
    return (
        type(module) in _PLAIN
        and not own["_forward_hooks"]
        and not own["_forward_pre_hooks"]
        and "forward" not in own
        and own.get("_compiled_call_impl") is None
        and all(map(_is_as_built, own["_modules"].values()))
    )
