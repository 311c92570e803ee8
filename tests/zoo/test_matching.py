from collections.abc import Callable

import pytest

from support import ALL_MODELS
from vidtok.zoo.matching import fitting_models

PublishedShapes = Callable[[str], dict[str, tuple[int, ...]]]


@pytest.mark.parametrize("name", ALL_MODELS)
def test_exactly_the_models_with_the_same_names_and_shapes_fit(name: str, published_shapes: PublishedShapes) -> None:
    shapes = published_shapes(name)
    assert fitting_models(shapes) == [other for other in ALL_MODELS if published_shapes(other) == shapes]


def test_nothing_fits_another_width_or_other_weights(published_shapes: PublishedShapes) -> None:
    shapes = published_shapes("vidtok_kl_causal_488_4chn")
    assert fitting_models({**shapes, "encoder.conv_in.conv.weight": (64, 3, 3, 3, 3)}) == []
    assert fitting_models({**shapes, "encoder.down.3.downsample.conv.weight": (512, 512, 3, 3)}) == []
    assert fitting_models({"weight": (3, 3)}) == []
    assert fitting_models({}) == []
