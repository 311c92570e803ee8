from __future__ import annotations

import pytest
import torch
from torch import nn

from vidtok.models.state import StreamState
from vidtok.models.vidtok.temporal import (
    CausalConv,
    LinearTemporalUpsample,
    TemporalDownsample,
    TemporalUpsample,
    TimeLayer,
    number_slots,
)

LAYERS = {
    "CausalConv": lambda: CausalConv(4, 4, spatial=False, padding="zeros"),
    "TemporalDownsample": lambda: TemporalDownsample(4, padding="zeros"),
    "TemporalUpsample": lambda: TemporalUpsample(4, padding="zeros"),
    "LinearTemporalUpsample": lambda: LinearTemporalUpsample(4, padding="first_frame"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_without_a_place_in_the_state_is_an_error(name: str) -> None:
    layer, x = LAYERS[name](), torch.zeros(1, 4, 2, 2, 4)
    with pytest.raises(RuntimeError, match=f"this {name} has no place in the stream's state; expected .* number_slots"):
        layer(x, StreamState())
    number_slots(layer)
    layer(x, StreamState())


def test_all_layers_of_a_module_get_places_of_their_own() -> None:
    module = nn.ModuleList([make() for make in LAYERS.values()])
    number_slots(module)
    slots = [layer.slot for layer in module.modules() if isinstance(layer, TimeLayer)]
    assert slots == list(range(6))  # the upsampling layers hold a convolution each
