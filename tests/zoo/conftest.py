import json
from collections.abc import Callable
from pathlib import Path

import pytest

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="session")
def published_shapes() -> Callable[[str], Shapes]:
    """Parameter names and shapes of a published model, by its name."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "state_dict" / "vidtok.json").read_text())

    def shapes(name: str) -> Shapes:
        model = golden["models"][name]
        whole = {**golden["layouts"][model["layout"]], **model["shapes"]}
        return {key: tuple(shape) for key, shape in whole.items()}

    return shapes
