"""Subjects of the evaluation tests."""

from __future__ import annotations

import torch

from tiny import tiny_model
from vidtok.evaluation.subjects import ModelSubject
from vidtok.metrics.networks import Networks
from vidtok.metrics.unavailable import Unavailable

NO_NETWORKS = Networks(Unavailable("no LPIPS here"), Unavailable("no I3D here"), torch.device("cpu"))


def subject(name: str) -> ModelSubject:
    """A tiny model with stand-in weights."""
    return ModelSubject(tiny_model(name))
