"""Settings of the whole test run."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test but the Hub's own, which sets this anew, may reach a network

import pytest
import torch

from vidtok.evaluation.linear import FITTING_SEED, BlockShape, BlockTransform

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job is deaf to Ctrl-C, and so would the commands be that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # the models of the tests are too small to share out


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Weights of metrics' networks are neither taken from the user's cache nor put into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDTOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        for variable in ("VIDTOK_LPIPS", "VIDTOK_I3D"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_networks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages that bring LPIPS and I3D are out of sight, installed or not, except in tests marked `networks`."""
    if "networks" not in request.keywords:
        monkeypatch.setattr("vidtok.metrics.flax_files.FlaxFile.find", lambda self: None)


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Gradients are off, as in use, except in tests marked `gradients`."""
    with torch.set_grad_enabled("gradients" in request.keywords):
        yield


@pytest.fixture(autouse=True)
def _default_log_level() -> None:
    """Warnings are logged and nothing below, whatever an earlier test, or a library in it, has set in this process."""
    logging.getLogger().setLevel(logging.WARNING)
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "vidtok"]:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _few_fitting_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear transforms are fitted on eight procedural clips in place of sixty, which take seconds to draw."""
    fit = BlockTransform.fit_synthetic

    def fit_few(shape: BlockShape, clips: int = 8, seed: int = FITTING_SEED) -> BlockTransform:
        return fit(shape, clips, seed)

    monkeypatch.setattr(BlockTransform, "fit_synthetic", fit_few)
