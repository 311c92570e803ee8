"""What a `loss_config` may say."""

from __future__ import annotations

from typing import Any

import pytest

from vidtok.errors import ConfigError
from vidtok.training.objective.config import ObjectiveConfig

PUBLISHED = {
    "dims": 3,
    "perceptual_weight": 1.0,
    "disc_start": 20001,
    "disc_weight": 0.2,
    "disc_type": "2d",
    "disc_loss": "hinge",
    "learn_logvar": True,
    "gen_loss_cross_entropy": True,
    "lecam_loss_weight": 0.005,
}


def test_defaults_are_the_published_values() -> None:
    assert ObjectiveConfig.from_dict(PUBLISHED) == ObjectiveConfig()
    assert ObjectiveConfig().regularization_weights == {"kl_loss": 1e-6, "aux_loss": 1.0}
    assert ObjectiveConfig().is_adversarial


def test_plain_values_make_an_equal_config() -> None:
    config = ObjectiveConfig(perceptual_weights=("a", "b"), disc_type="3d", regularization_weights={"kl_loss": 1})
    assert ObjectiveConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["perceptual_weights"] == ["a", "b"]


def test_a_config_keeps_its_own_weights() -> None:
    weights = {"kl_loss": 1e-6}
    config = ObjectiveConfig(regularization_weights=weights)
    weights["kl_loss"] = 5
    assert config.regularization_weights == {"kl_loss": 1e-6}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"disc_strat": 1}, "disc_strat is not known (did you mean disc_start"),
        ({"zzz": 1}, "zzz is not known; expected some of dims, perceptual_weight"),
        ({"disc_type": "4d"}, "disc_type is '4d'; expected 2d or 3d"),
        ({"disc_loss": "wgan"}, "disc_loss is 'wgan'; expected hinge or vanilla"),
        ({"dims": 4}, "dims is 4; expected 2 or 3"),
        ({"disc_start": 2.5}, "disc_start is 2.5; expected a whole number of at least 0"),
        ({"disc_num_layers": 0}, "disc_num_layers is 0; expected a whole number of at least 1"),
        ({"perceptual_batch": True}, "perceptual_batch is True; expected a whole number of at least 1"),
        ({"perceptual_weight": -1}, "perceptual_weight is -1; expected a number of at least 0"),
        ({"disc_weight": "0.2"}, "disc_weight is '0.2'; expected a number of at least 0"),
        ({"disc_factor": float("nan")}, "disc_factor is nan; expected a number of at least 0"),
        ({"lecam_loss_weight": None}, "lecam_loss_weight is None; expected a number of at least 0"),
        ({"chroma_weight": -1, "pixel_loss": "l2"}, "chroma_weight is -1; expected a number of at least 0"),
        ({"logvar_per_clip": 1}, "logvar_per_clip is 1; expected true or false"),
        ({"chroma_weight": 4}, "chroma_weight is 4; expected 1 where pixel_loss is not l2"),
        ({"lecam_decay": 1.0}, "lecam_decay is 1.0; expected a number from 0 to less than 1"),
        ({"logvar_init": "8"}, "logvar_init is '8'; expected a number"),
        ({"learn_logvar": 1}, "learn_logvar is 1; expected true or false"),
        ({"perceptual_weights": 3}, "perceptual_weights is 3; expected a path or a list of paths"),
        ({"perceptual_weights": ["a", 3]}, "perceptual_weights is ['a', 3]; expected a path or a list of paths"),
        (
            {"regularization_weights": {"kl_loss": "1e-6"}},
            "regularization_weights is {'kl_loss': '1e-6'}; expected a mapping of names to numbers",
        ),
        (
            {"regularization_weights": {"spread_los": 1.0}},
            "a name in regularization_weights is 'spread_los'; expected one of kl_loss, aux_loss, spread_loss, "
            "crowding_loss (did you mean spread_loss",
        ),
        ({"regularization_weights": [1]}, "regularization_weights is [1]; expected a mapping of names to numbers"),
    ],
)
def test_what_cannot_be_used_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig.from_dict(values)
    assert str(caught.value).startswith(message)
