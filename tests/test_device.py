from __future__ import annotations

import pytest
import torch

from vidtok import VidTokError
from vidtok.device import choose_device


def test_the_best_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, kind in (True, "cuda"), (False, "cpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert choose_device() == torch.device(kind)


def test_a_device_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", r"there is no device 'gpu'; expected cpu, cuda, cuda:1 and so on, or mps"),
        ("meta", r"device 'meta' computes nothing; expected cpu"),
        ("cuda:77", r"device 'cuda:77' cannot be used: .* which has .*CUDA device.*choose another"),
    ],
)
def test_a_device_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(VidTokError, match=message):
        choose_device(name)
