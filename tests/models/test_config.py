"""Bounds of what models are made of: one sentence each, before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from vidtok.errors import ConfigError
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtwin.config import VidTwinConfig


def fsq(levels: list[int]) -> dict[str, Any]:
    return {"bottleneck": {"kind": "fsq", "levels": levels}}


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (AutoencoderConfig, {"ch": 10**30}, f"ch is {10**30}; expected at most 16384"),
        (AutoencoderConfig, {"ch": 10**5000}, "ch is a number of thousands of digits; expected at most 16384"),
        (AutoencoderConfig, {"num_res_blocks": 100_000}, "num_res_blocks is 100000; expected at most 64"),
        (AutoencoderConfig, {"ch_mult": [1] * 400}, "ch_mult is [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,"),
        (AutoencoderConfig, {"ch_mult": [10**5000]}, "ch_mult is too long to show; expected a list of whole numbers"),
        (
            AutoencoderConfig,
            {"ch": 8192, "ch_mult": [1, 4]},
            "ch_mult is [1, 4]; expected multipliers that make at most",
        ),
        (
            AutoencoderConfig,
            {"block_transform": True, "ch_mult": [1] * 16},
            "block_transform is True; expected false for",
        ),
        (AutoencoderConfig, fsq([8] * 5000), "levels is [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,"),
        (AutoencoderConfig, fsq([2**20, 2**20]), "levels is [1048576, 1048576]; expected levels whose product is at m"),
        (VidTwinConfig, {"depth": 10**9}, "depth is 1000000000; expected at most 1024"),
        (VidTwinConfig, {"cont_num_blocks": 10**6}, "cont_num_blocks is 1000000; expected at most 16"),
        (VidTwinConfig, {"cont_num_blocks": 16}, "cont_num_blocks is 16; expected halvings that make at most 65536"),
        (VidTwinConfig, {"mlp_ratio": 1e300}, "mlp_ratio is 1e+300; expected a number above 0, up to 64"),
        (VidTwinConfig, {"qformer": {"num_layers": 10**6}}, "qformer.num_layers is 1000000; expected at most 1024"),
    ],
)
def test_values_beyond_any_model_are_refused(config: Any, values: dict[str, Any], message: str) -> None:
    needed = {"z_channels": 4} if config is AutoencoderConfig else {}
    with pytest.raises(ConfigError) as caught:
        config.from_dict({**needed, **values})
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200
