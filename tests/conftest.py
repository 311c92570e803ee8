"""Settings of the whole test run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test but the Hub's own, which sets this anew, may reach a network

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job is deaf to Ctrl-C, and so would the commands be that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # the models of the tests are too small to share out


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Gradients are off, as in use, except in tests marked `gradients`."""
    with torch.set_grad_enabled("gradients" in request.keywords):
        yield
