"""Writing safetensors files that others may read, as any other file this package writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` to `path` with the permissions that the process gives to new files.

    The library itself leaves them readable by their owner alone. Raises `safetensors.SafetensorError` or `OSError`.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=dict(metadata))
    os.chmod(path, mode)
