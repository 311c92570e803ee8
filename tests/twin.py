"""A very small VidTwin, as an object and as files."""

from __future__ import annotations

from pathlib import Path

import torch

from support import fill
from tiny import ModelFiles
from vidtok import VidTwin, VidTwinConfig
from vidtok.models.vidtwin.config import QFormerConfig

NAME = "vidtwin_structure_7_7_8_dynamics_7_8"
SIDE = 32
CONFIG = VidTwinConfig(
    input_size=(16, SIDE, SIDE),
    patch_size=(1, 8, 8),
    hidden_size=24,
    depth=2,
    num_heads=2,
    init_ch=4,
    expect_ch=3,
    d_dim=2,
    qformer=QFormerConfig(num_queries=6, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16),
)
"""Of different channels and queries everywhere, so that no mistaken axis passes."""

YAML = f"""\
base: {NAME}
model:
  params:
    expect_ch: 3
    d_dim: 2
    init_ch: 4
    temporal_qformer_config:
      params:
        num_query_tokens: 6
        query_hidden_size: 8
        num_hidden_layers: 2
        num_attention_heads: 2
        intermediate_size: 16
    encoder_config:
      params:
        input_size: [16, {SIDE}, {SIDE}]
        patch_size: [1, 8, 8]
        hidden_size: 24
        depth: 2
        num_heads: 2
"""


def tiny_twin(seed: int = 0) -> VidTwin:
    """The model of `CONFIG` with stand-in weights, ready to encode."""
    model = VidTwin(CONFIG, name="twin").eval()
    with torch.no_grad():
        fill(model, seed)
    return model


def write_twin(folder: Path) -> ModelFiles:
    """`tiny_twin()` as a YAML file and a checkpoint in `folder`."""
    files = ModelFiles(folder / "twin.yaml", folder / "twin.ckpt")
    files.config.write_text(YAML)
    torch.save({"state_dict": tiny_twin().state_dict()}, files.checkpoint)
    return files
