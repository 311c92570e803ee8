"""Sharding the model over the processes (PyTorch's `fully_shard`), where one device cannot hold it and its optimiser.

Blocks of encoder and decoder are sharded. Replicated on every process, with their gradients averaged here, are the
decoder's last layer, at which the objective compares gradients, and the objective itself, which is small.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


class FullyShardedStrategy(ModelParallelStrategy):
    """Shards over all `processes`; checkpoints are whole files, as in a run on one process."""

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)


def shard(part: nn.Module, mesh: DeviceMesh, blocks: tuple[type[nn.Module], ...], keep: nn.Parameter) -> None:
    """Shard the parameters of `part`, an encoder or a decoder, by `blocks` of these kinds; `keep` stays whole."""
    for block in part.modules():
        if isinstance(block, blocks):
            fully_shard(block, mesh=mesh, ignored_params={keep})
    fully_shard(part, mesh=mesh, ignored_params={keep})


def synchronize(part: nn.Module, enabled: bool) -> None:
    """Set whether the next backward pass averages the gradients of a sharded `part` over the processes."""
    if isinstance(part, FSDPModule):
        part.set_requires_gradient_sync(enabled)


def reshard(part: nn.Module) -> None:
    """Drop the weights that a sharded `part` has gathered, since they were changed."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(parameter: Tensor) -> bool:
    """True if this process holds only a part of `parameter`."""
    return isinstance(parameter, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of `tensor` that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of the replicated ones among `parameters` over the processes."""
    gradients = [p.grad for p in parameters if p.grad is not None and not is_sharded(p)]
    if gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
