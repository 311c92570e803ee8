"""Reading checkpoints, strictly and as data: a file from a stranger can fail to load, and can do nothing else."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidtok.errors import CheckpointError
from vidtok.fields import shown
from vidtok.models.base import VideoModel, plain_name
from vidtok.text import reason, shortened
from vidtok.zoo.archive import ArchiveError
from vidtok.zoo.head import ZIP, head_of, kind_of
from vidtok.zoo.int8 import restored
from vidtok.zoo.matching import fitting_models
from vidtok.zoo.pickled import ForeignError, load_pickled

_NOT_OURS = "loss."
_EMA = "model_ema."
_NAMED = 3
"""The most keys of one kind that an error lists."""
_REASON = 160
"""The most characters of another library's message that an error repeats."""


def read_checkpoint(path: str | PathLike[str], *, ema: bool = False, objective: bool = False) -> dict[str, Tensor]:
    """The model's weights in a checkpoint: parameter name -> tensor, on the CPU, mapped from the file where possible.

    Reads `.safetensors`, and what `torch.save` wrote (`.ckpt`, `.pt`, `.pth`): a state dict, or one under `state_dict`
    as Lightning writes it. The objective's weights (`loss.*`) and the moving averages (`model_ema.*`) are left out;
    with `ema` the averages take the weights' place, and with `objective` the objective's weights stay. Prefixes that
    `torch.compile` and data parallelism add to names are removed, and weights saved in int8 are float32 again.

    Raises `CheckpointError` if the file is missing, damaged, of another kind or holds pickled code, which is never run.
    """
    path = Path(path)
    state = _whole_state(path)
    averages = {name: value for name, value in state.items() if name.startswith(_EMA)}
    state = {name: value for name, value in state.items() if not name.startswith(_EMA)}
    if ema:
        state = _averaged(state, averages, path)
    return {name: value for name, value in state.items() if objective or not name.startswith(_NOT_OURS)}


def read_files(paths: Iterable[Path], *, ema: bool = False) -> dict[str, Tensor]:
    """The weights in all the checkpoints `paths`, such as those of the parts of one model; see `read_checkpoint`."""
    state: dict[str, Tensor] = {}
    for path in paths:
        state.update(read_checkpoint(path, ema=ema))
    return state


def holds_averages(path: str | PathLike[str]) -> bool:
    """True if the checkpoint holds moving averages (`model_ema.*`). Raises as `read_checkpoint` does."""
    return any(name.startswith(_EMA) for name in _whole_state(Path(path)))


def read_content(path: str | PathLike[str]) -> dict[str, Any]:
    """The whole content of a file of `torch.save`, on the CPU: tensors and plain values, by name.

    Raises `CheckpointError` as `read_checkpoint` does, and if the file holds no mapping.
    """
    path = Path(path)
    head = head_of(path)
    if not head.startswith(ZIP):
        raise CheckpointError(f"{path} is not a checkpoint of training{kind_of(head)}; expected a .ckpt file")
    content = _load_torch(path, mapped=False)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a mapping")
    return content


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Give `model` the weights `state`, which came from `source`, strictly; dtype and device stay the model's.

    Weights on the meta device are replaced by CPU tensors of the model's dtype, others are copied into, so that nothing
    keeps pointing into the checkpoint's file. Raises a `CheckpointError` that lists all missing, unexpected and
    misshapen weights, or the ones with NaN, infinity or values beyond the model's dtype; the model is then untouched.
    """
    own = model.state_dict(keep_vars=True)
    state = without_derived(state, model)
    check_fit(own, state, source)
    _check_finite(own, state, source)
    on_meta = {name: weight for name, weight in own.items() if weight.is_meta}
    if on_meta:
        given = {name: state[name].to(weight.dtype, copy=True) for name, weight in on_meta.items()}
        model.load_state_dict(given, strict=False, assign=True)
    _copy({name: weight for name, weight in own.items() if not weight.is_meta}, state)


def take_weights(
    model: nn.Module, path: str | PathLike[str], ignore_keys: Sequence[str] = (), *, ema: bool = False
) -> None:
    """Give `model` the weights in the checkpoint at `path`; weights whose names match one of `ignore_keys` stay.

    `ignore_keys` are regular expressions, matched from the start of a name on. Raises `CheckpointError` as
    `read_checkpoint` and `load_state` do, and for an invalid expression.
    """
    try:
        ignored = [re.compile(key) for key in ignore_keys]
    except re.error as error:
        raise CheckpointError(
            f"ignore_keys has {error.pattern!r}, which is no regular expression ({error}); expected some such as "
            "'decoder'"
        ) from error
    state = read_checkpoint(path, ema=ema)
    own = model.state_dict(keep_vars=True)
    for name in {*own, *state}:
        if any(key.match(name) for key in ignored):
            state.pop(name, None)
            if name in own:
                state[name] = own[name]
    load_state(model, state, str(path))


def without_derived(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`state` without the tensors that `model` derives from its configuration; some checkpoints hold them too."""
    derived = model.derived if isinstance(model, VideoModel) else ()
    return {name: value for name, value in state.items() if name not in derived}


def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into the tensors `own`, by name and as strictly as `load_state` does."""
    check_fit(own, state, source)
    _check_finite(own, state, source)
    _copy(own, state)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, weight in own.items():
        weight.copy_(state[name])


def _check_finite(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    bad = [name for name, weight in own.items() if not _finite_as(state[name], weight.dtype)]
    if bad:
        dtype = str(own[bad[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{source} holds NaN, infinity or values beyond {dtype} in {_some(bad, _NAMED)}; "
            "the training that wrote it had diverged, or the file is damaged"
        )


def _whole_state(path: Path) -> dict[str, Tensor]:
    """All the weights in a checkpoint."""
    head = head_of(path)
    if head[8:9] == b"{":
        state = _state_dict(_load_safetensors(path), path)
    elif head.startswith(ZIP):
        state = _state_dict(_load_torch(path), path)
    else:
        raise CheckpointError(f"{path} is not a checkpoint{kind_of(head)}; expected a .safetensors or .ckpt file")
    return restored({plain_name(name): value for name, value in state.items()}, str(path))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        raise _damaged(path, reason(error)) from error


def _load_torch(path: Path, *, mapped: bool = True) -> Any:
    """The content of a file of `torch.save`, tensors and plain containers only."""
    try:
        return load_pickled(path, mapped=mapped)
    except ForeignError as error:
        raise CheckpointError(
            f"the checkpoint {path} holds pickled code or objects ({shortened(str(error))}) and was refused; nothing "
            "in it was run. If you trust its source, save its state dict alone, with `torch.save` or as safetensors"
        ) from error
    except ArchiveError as error:
        raise _damaged(path, reason(error)) from error
    # A damaged pickle surfaces as whatever its first unreadable byte leads to.
    except (
        RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
        ArithmeticError, MemoryError, pickle.UnpicklingError, struct.error,
    ) as error:  # fmt: skip
        raise _damaged(path, "its table of weights cannot be read") from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {path} is damaged or truncated, or no file of weights ({shortened(reason, _REASON)}); "
        "fetch it again"
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict that `content` is or has under `state_dict`."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}; expected a state dict, or one under 'state_dict'"
        )
    odd = [name for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if odd or not content:
        places = [shown(name) if isinstance(name, str) else _label(name) for name in odd]
        holds = f"under {_some(places, _NAMED)} no tensors" if odd else "nothing"
        raise CheckpointError(
            f"{path} holds {holds}; expected a state dict (name -> tensor), or one under 'state_dict'"
        )
    return dict(content)


def _is_plain(value: Any) -> bool:
    """True for a tensor of real numbers in memory: not sparse, not quantized, not a shape alone."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def _averaged(state: dict[str, Tensor], averages: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`state` with the moving averages in place of the weights; weights that were not trained have none and stay.

    An average bears the weight's name without its dots, behind `model_ema.`.
    """
    if not averages:
        raise CheckpointError(f"{path} holds no moving averages ({_EMA}*); load its weights without asking for them")
    return {name: averages.get(_EMA + name.replace(".", ""), value) for name, value in state.items()}


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise one `CheckpointError` for all weights that `state` lacks, has in another form or has beyond `own`."""
    missing = [_label(name) for name in own if name not in state]
    unexpected = [_label(name) for name in state if name not in own]
    misshapen = [
        f"{_label(name)} is {shown(list(state[name].shape))}, not {list(weight.shape)}"
        for name, weight in own.items()
        if name in state and state[name].shape != weight.shape
    ]
    whole = [
        f"{_label(name)} is {str(state[name].dtype).removeprefix('torch.')}"
        for name, weight in own.items()
        if name in state and weight.is_floating_point() and not state[name].is_floating_point()
    ]
    kinds = (
        ("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen), ("of whole numbers", whole)
    )  # fmt: skip
    problems = [f"{len(names)} {kind} ({_some(names, _NAMED)})" for kind, names in kinds if names]
    if not problems:
        return
    raise CheckpointError(f"{source} does not fit the model: {', '.join(problems)}{_hint(own, state)}")


def _hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The models that the checkpoint fits, as the end of a sentence."""
    fitting = fitting_models({name: tuple(value.shape) for name, value in state.items()})
    if not fitting:
        return "; it is of none of the published models"
    if fitting == fitting_models({name: tuple(value.shape) for name, value in own.items()}):
        return "; it is of this model, but lacks some weights or has others besides"
    return f"; it is of {' or '.join(fitting)}: load it with that configuration"


def _finite_as(value: Tensor, dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point or bool(value.to(dtype).isfinite().all())


def _label(name: Any) -> str:
    """The name of a weight in a message; of what is no name, and may be as large as a weight, the type."""
    if not isinstance(name, str):
        return shown(name) if isinstance(name, int | float | None) else f"a {type(name).__name__}"
    return shortened(name) if name.isprintable() else shown(name)


def _some(items: Iterable[str], count: int) -> str:
    """The first `count` items, and how many more there are."""
    items = list(items)
    rest = len(items) - count
    return ", ".join(items[:count]) + (f" and {rest} more" if rest > 0 else "")
