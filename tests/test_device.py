from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vidtok
from tiny import KL_1_1, write_model, write_video
from vidtok import VidTokError, device
from vidtok.cli import main
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


_FAULTS = """
import resource, sys, torch, vidtok
mode, size = sys.argv[1], int(sys.argv[2]) << 18
kept = mode != "leave" and vidtok.keep_freed_memory(training=mode == "train")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(size)
before = faults()
for _ in range(20):
    torch.zeros(size)
print(int(kept), faults() - before)
"""


def page_faults(mode: str, mebibytes: int = 48, **environment: str) -> tuple[bool, int]:
    """True if memory is kept, and the page faults of allocating it twenty times."""
    clean = {name: value for name, value in os.environ.items() if name not in device._OWN_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, mode, str(mebibytes)],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, **environment},
    )
    kept, faults = done.stdout.split()
    return kept == "1", int(faults)


def test_memory_is_not_asked_for_anew() -> None:
    kept, faults = page_faults("keep")
    if not kept:
        pytest.skip("another C library")
    without = page_faults("leave")[1]
    assert faults < 0.7 * without  # the system may take back what lies idle


@pytest.mark.slow
def test_training_keeps_larger_tensors_too() -> None:
    kept, faults = page_faults("train", 300)
    if not kept:
        pytest.skip("another C library")
    assert faults < 0.7 * page_faults("keep", 300)[1]


def test_settings_of_the_environment_stay() -> None:
    assert page_faults("keep", MALLOC_MMAP_THRESHOLD_="1000000")[0] is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in device._OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert vidtok.keep_freed_memory() is False


@pytest.mark.parametrize(("options", "calls"), [([], 1), (["--max-memory", "6GB"], 0)])
def test_commands_keep_memory_unless_it_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], calls: int
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(device, "keep_freed_memory", lambda: kept.append(True))
    video = write_video(tmp_path / "in.mp4", 5, 32, 32)
    model = [*write_model(tmp_path, KL_1_1).options, "--device", "cpu"]
    for command in (["encode", video, "-o", tmp_path / "out.vtok"], ["reconstruct", video, "-o", tmp_path / "out.mp4"]):
        kept.clear()
        assert main([str(word) for word in [*command, *model, "--size", "original", *options]]) == 0
        assert len(kept) == calls
