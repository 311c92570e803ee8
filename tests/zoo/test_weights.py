from pathlib import Path

import pytest

from vidtok.config.registry import SHIPPED, entry
from vidtok.errors import CheckpointError
from vidtok.zoo import weights
from vidtok.zoo.weights import fetch_weights, weights_at_hand


def test_weights_that_ship_with_the_package_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "package_folder", lambda: tmp_path)
    known = entry("vidtok_kl_causal_488_4chn")
    monkeypatch.setattr("vidtok.zoo.hub.cached_file", lambda repo, file: None)
    assert weights_at_hand(known) is None
    path = tmp_path / "zoo" / "weights" / known.name / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert weights_at_hand(known) == path
    assert fetch_weights(known) == path


def test_shipped_weights_that_are_missing_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "package_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match=r"come with this package, are missing from .*; install it anew: `pip"):
        fetch_weights(entry(SHIPPED[0]))
