"""Names and shapes of weights, by which a checkpoint is known to be of a model."""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def has_weights(shapes: Shapes, signature: Shapes) -> bool:
    """True if `shapes` has all the weights of `signature`, in the same shapes."""
    return all(shapes.get(name) == shape for name, shape in signature.items())
