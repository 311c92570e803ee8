"""The querying transformer of VidTwin: BLIP-2's (Li et al., arXiv 2301.12597), one query set for every position."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.models.vidtwin.config import QFormerConfig

_EPSILON = 1e-12


class _QKV(nn.Module):
    """Multi-head attention of queries (N, Q, D) to (N, K, E), without an output layer."""

    def __init__(self, size: int, heads: int, source_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(source_size, size)
        self.value = nn.Linear(source_size, size)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        q, k, v = (
            torch.unflatten(layer(tokens), 2, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, x), (self.key, source), (self.value, source))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """A linear layer, plus the input of the sublayer, then a norm."""

    def __init__(self, size_in: int, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size_in, size)
        self.LayerNorm = nn.LayerNorm(size, eps=_EPSILON)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, self.LayerNorm(self.dense(h) + x))


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, source_size: int) -> None:
        super().__init__()
        self.attention = _QKV(size, heads, source_size)
        self.output = _Output(size, size)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        return cast(Tensor, self.output(self.attention(x, source), x))


class _Intermediate(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class QFormerLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the frames in some layers, MLP; norms come last."""

    def __init__(self, config: QFormerConfig, source_size: int, *, crosses: bool) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        self.attention = _Attention(size, heads, size)
        if crosses:
            self.crossattention = _Attention(size, heads, source_size)
        self.crosses = crosses
        self.intermediate_query = _Intermediate(size, config.intermediate_size)
        self.output_query = _Output(config.intermediate_size, size)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        x = self.attention(x, x)
        if self.crosses:
            x = self.crossattention(x, source)
        return cast(Tensor, self.output_query(self.intermediate_query(x), x))


class QFormer(nn.Module):
    """A few tokens for every position, which learned queries gather from its frames."""

    def __init__(self, config: QFormerConfig, source_size: int) -> None:
        super().__init__()
        self.query_embeds = nn.Parameter(torch.randn(config.num_queries, config.hidden_size))
        self.qformer = nn.Module()
        self.qformer.layernorm = nn.LayerNorm(config.hidden_size, eps=_EPSILON)
        self.qformer.encoder = nn.Module()
        self.qformer.encoder.layer = nn.ModuleList(
            QFormerLayer(config, source_size, crosses=i % config.cross_attention_freq == 0)
            for i in range(config.num_layers)
        )

    def forward(self, source: Tensor) -> Tensor:
        """(N, T, E), the frames of N positions -> (N, Q, D)."""
        norm, layers = cast(nn.Module, self.qformer.layernorm), cast(nn.Module, self.qformer.encoder).layer
        x: Tensor = norm(self.query_embeds).expand(len(source), -1, -1)
        for layer in cast(nn.ModuleList, layers):
            x = layer(x, source)
        return x
