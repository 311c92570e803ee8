"""The endless sequence of clips as a data set."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vidtok.errors import ConfigError
from vidtok.synthetic.config import SyntheticConfig
from vidtok.synthetic.render import synthetic_batch


class SyntheticClips(IterableDataset[Tensor]):
    """Clips 0, 1, 2, … of a seed, shared out among ranks and workers.

    The sequence is cut into blocks of `block` clips; ranks take blocks in turn, and so do the workers of a rank. With
    `block` equal to the loader's batch size, step s of all ranks together uses the clips from start + s * block *
    world_size on, however many workers there are: to resume after n steps, start at n * block * world_size.

    Args:
        config: the look of the clips.
        seed: the sequence; another seed gives another one.
        device: renders the clips. Workers of a `DataLoader` can only use "cpu"; for a GPU, iterate without
            workers or call `synthetic_batch`.
        start: the first index.
        block: clips rendered at a time, and the grain of sharing; the batch size is best.
        rank, world_size: this process among those that train together. By default `torch.distributed` gives
            them if it is initialised, else the environment variables RANK and WORLD_SIZE.

    Raises:
        ConfigError: start, block, rank or world_size is out of its range.
    """

    def __init__(
        self,
        config: SyntheticConfig,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        start: int = 0,
        block: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        if start < 0 or block < 1:
            raise ConfigError(f"synthetic clips: start {start} and block {block}; expected start >= 0 and block >= 1.")
        if (rank is None) != (world_size is None):
            raise ConfigError("synthetic clips: give both rank and world_size, or neither.")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ConfigError(
                f"synthetic clips: rank {rank} of {world_size}; expected a rank from 0 to world_size - 1."
            )
        self.config = config
        self.seed = seed
        self.device = torch.device(device)
        self.start = start
        self.block = block
        self._ranks = None if rank is None or world_size is None else (rank, world_size)
        self._next = start

    def clip(self, index: int) -> Tensor:
        """Clip `index` of the sequence: (3, T, H, W) float32 in -1..1."""
        return synthetic_batch(self.config, self.seed, [index], self.device)[0]

    def __iter__(self) -> Iterator[Tensor]:
        rank, world_size = self._ranks or _processes()
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        first = self._next if info is None else self.start
        block = worker
        while True:
            begin = first + (block * world_size + rank) * self.block
            clips = synthetic_batch(self.config, self.seed, range(begin, begin + self.block), self.device)
            for number, clip in enumerate(clips, 1):
                if info is None:
                    done = number == self.block
                    self._next = first + (block + 1) * world_size * self.block if done else self._next
                yield clip
            block += workers

    def state_dict(self) -> dict[str, int]:
        """{"next_index": the place to go on from}: the first index of the first block not begun, over all ranks.

        It counts the clips that this object itself has yielded; copies of it inside a loader's workers count for
        themselves, so with workers the caller counts the steps.
        """
        return {"next_index": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from the place of a `state_dict` at the next iteration."""
        self.start = self._next = int(state["next_index"])


def _processes() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
