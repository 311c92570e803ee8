"""Where to compute: the device that a user names, or the best one at hand."""

from __future__ import annotations

import torch

from vidtok.errors import VidTokError


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, such as "cpu", "cuda" or "cuda:1"; None: CUDA if this machine has it, else the CPU.

    Raises `VidTokError` if there is no such device on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise VidTokError(f"there is no device {name!r}; expected cpu, cuda, cuda:1 and so on, or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        has = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise VidTokError(
            f"device {name!r} cannot be used: this PyTorch was not built for it, or sees none on this machine, "
            f"which has {has}; choose another, such as cpu"
        ) from error
    if device.type == "meta":
        raise VidTokError("device 'meta' computes nothing; expected cpu, cuda, cuda:1 and so on, or mps")
    return device
