"""Names and shapes of weights, which tell the model that a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def has_weights(shapes: Shapes, signature: Shapes) -> bool:
    """True if `shapes` has all the weights of `signature`, in the same shapes."""
    return all(shapes.get(name) == shape for name, shape in signature.items())
