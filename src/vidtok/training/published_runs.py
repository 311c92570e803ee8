"""Checkpoints of runs of the original implementation, brought into the form that a run of this package goes on from.

Weights have the same names, and generator and discriminator an Adam state each. Of the rest

- states of Adam are in the order of the original's parameters, that of the weights in the checkpoint;
- moving averages are kept of the discriminator and of logvar too, and averages of LeCAM are not kept;
- the place in the data is not told: the epoch under way begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidtok.errors import CheckpointError
from vidtok.models.base import plain_name

_PLACE = "DataModule"
"""Key of the place in the data, which checkpoints of this package hold and those of the original do not."""
_AVERAGES = "model_ema."
_COUNTERS = (f"{_AVERAGES}decay", f"{_AVERAGES}num_updates")
_LOGVAR = "loss.logvar"
_DISCRIMINATOR = "loss.discriminator."
_OWN_AFFAIR = ("loss.lecam.", "loss.perceptual_loss.")
"""Parts of the objective that follow from the configuration where a checkpoint lacks them."""


@dataclass(frozen=True)
class Holding:
    """The names and values that a run of this package keeps."""

    weights: Mapping[str, Tensor]
    """Its state dict."""
    parameters: frozenset[str]
    """All parameters of model and objective, trained or not."""
    trained: Sequence[Sequence[str]]
    """Parameters of each optimiser, in its order: the generator's, and the discriminator's if there is one."""
    derived: Sequence[str] = ()
    """Names that checkpoints hold though they follow from the configuration."""
    optimizer: str = "adam"


def is_published(content: Mapping[str, Any]) -> bool:
    """True if the checkpoint of a run is one of the original's, and not of this package."""
    return _PLACE not in content


def taken_over(content: Mapping[str, Any], own: Holding, source: str) -> dict[str, Any]:
    """The content of a checkpoint of the original, in the form of this package's.

    Raises `CheckpointError`, naming `source`, if it holds no such run, or optimiser states of another model.
    """
    states = content["optimizer_states"]
    if not own.optimizer.startswith("adam"):
        raise CheckpointError(
            f"{source} is of a run of the original, whose optimiser is Adam, and model.params.optimizer_config asks "
            f"for another{_advice(source)}"
        )
    for key in ("global_step", "epoch"):
        if type(content.get(key)) is not int:
            raise CheckpointError(f"{source} holds no {key}{_advice(source)}")
    if len(states) < len(own.trained):
        raise CheckpointError(
            f"{source} holds {len(states)} optimiser states; expected {len(own.trained)}, of the autoencoder and the "
            f"discriminator{_advice(source)}"
        )
    given = {plain_name(name): value for name, value in content["state_dict"].items()}
    orders = [_generator_orders(given, own), _discriminator_orders(given, own)]
    batches = content["global_step"] // len(states)
    return {
        **content,
        "state_dict": _weights(given, own, batches),
        "optimizer_states": [
            _reordered(state, candidates, names, given, source)
            for state, candidates, names in zip(states, orders, own.trained, strict=False)
        ],
        "loops": {"fit_loop": _progress(content["epoch"], batches, batches * len(own.trained))},
        "callbacks": {},
        "lr_schedulers": [],
    }


def _weights(given: Mapping[str, Tensor], own: Holding, batches: int) -> dict[str, Tensor]:
    """The state dict; weights that are missing or not known stay so, for a strict comparison to tell."""
    ignored = (_AVERAGES, *_OWN_AFFAIR)
    known = {name: value for name, value in given.items() if name in own.weights}
    others = {name: value for name, value in given.items() if name not in own.weights and name not in own.derived}
    state = {name: value for name, value in others.items() if not name.startswith(ignored)}
    state |= {name: value for name, value in own.weights.items() if name.startswith(_OWN_AFFAIR)} | known
    averaged = {_AVERAGES + name.replace(".", ""): name for name in own.parameters}
    for name, value in own.weights.items():
        if not name.startswith(_AVERAGES):
            continue
        if name in _COUNTERS:
            state[name] = value
        elif name not in given and averaged.get(name) in given:
            state[name] = given[averaged[name]].clone()
    if _COUNTERS[1] in own.weights and _COUNTERS[1] in given:
        # The original counts no updates where its decay is constant from the start, and says -1.
        count = int(given[_COUNTERS[1]])
        state[_COUNTERS[1]] = own.weights[_COUNTERS[1]].new_tensor(count if count >= 0 else batches)
    return state


def _generator_orders(given: Mapping[str, Tensor], own: Holding) -> list[list[str]]:
    """The orders that the generator's parameters may have been in: all of the model's, or without the frozen ones."""
    names = [name for name in given if name in own.parameters and not name.startswith("loss.")]
    trained = [name for name in names if name in own.trained[0]]
    return [[*order, *logvar] for order in (names, trained) for logvar in ([_LOGVAR], [])]


def _discriminator_orders(given: Mapping[str, Tensor], own: Holding) -> list[list[str]]:
    return [[name for name in given if name in own.parameters and name.startswith(_DISCRIMINATOR)]]


def _reordered(
    state: Mapping[str, Any],
    orders: Sequence[list[str]],
    names: Sequence[str],
    given: Mapping[str, Tensor],
    source: str,
) -> dict[str, Any]:
    """The `state` of an optimiser whose parameters were in one of the `orders`, for those of `names` in turn."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    values = [state["state"].get(number) for number in numbers]
    if any(value is not None and "exp_avg" not in value for value in values):
        raise CheckpointError(f"{source} holds states of another optimiser than Adam{_advice(source)}")

    def fits(order: list[str]) -> bool:
        return len(order) == len(values) and all(
            value is None or value["exp_avg"].shape == given[name].shape
            for name, value in zip(order, values, strict=True)
        )

    order = next((order for order in orders if fits(order)), None)
    if order is None:
        raise CheckpointError(
            f"{source} holds the optimiser state of {len(values)} parameters, which do not fit the "
            f"{len(names)} of this run by number and shape{_advice(source)}"
        )
    by_name = dict(zip(order, values, strict=True))
    found = {i: by_name[name] for i, name in enumerate(names) if by_name.get(name) is not None}
    return {"state": found, "param_groups": [{**state["param_groups"][0], "params": list(range(len(names)))}]}


def _progress(epoch: int, batches: int, steps: int) -> dict[str, Any]:
    """Lightning's account of training at the start of `epoch`, after `batches` and optimiser `steps`."""
    epochs = dict.fromkeys(("ready", "started", "processed", "completed"), epoch)
    done = dict.fromkeys(("ready", "started", "processed", "completed"), batches)
    return {
        "state_dict": {},
        "epoch_progress": {"total": epochs, "current": dict(epochs)},
        "epoch_loop.state_dict": {"_batches_that_stepped": batches},
        "epoch_loop.batch_progress": {"total": done, "current": dict.fromkeys(done, 0), "is_last_batch": False},
        "epoch_loop.manual_optimization.optim_step_progress": {
            "total": {"ready": steps, "completed": steps},
            "current": {"ready": 0, "completed": 0},
        },
    }


def _advice(source: str) -> str:
    return f"; to start a new run from its weights, give model.params.ckpt_path={source}"
