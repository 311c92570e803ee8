"""The data of a run, for Lightning's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from vidtok.training.data.config import DataConfig, Part, PartConfig, StoredConfig, SyntheticClipsConfig, VideosConfig
from vidtok.training.data.files import find_videos
from vidtok.training.data.loader import ClipLoader, ClipSource, Loading, TrainingLoader
from vidtok.training.data.order import EvaluationOrder, Position, Ranks, TrainingOrder, this_process
from vidtok.training.data.sources import SyntheticSource, VideoSource
from vidtok.training.data.stored import StoredSource, find_token_files
from vidtok.training.data.unreadable import Unreadable

# Seeds that training is unlikely to have, so that validation sees other clips.
_SEEDS = {"validation": 0x76616C69, "test": 0x74657374}


class DataModule(LightningDataModule):
    """Loaders for training, validation and test, and the place that training has reached.

    Batches are dicts: `video` (B, 3, T, H, W) float32 in -1..1, `name` (B strings), `fps` and `start` ((B,) float64:
    frames per second of the clip, and seconds into the video; NaN for synthetic clips).

    Call `mark_batch_done` after each training batch, before a checkpoint of that step is written. A pass over
    `train_dataloader()` starts after the last marked batch, however many the workers had loaded beyond it. The state,
    which Lightning keeps in its checkpoints, brings that place back. The clips of a batch and their starts depend on
    the seed, the epoch, the rank, the number of ranks and the batch size alone.
    """

    def __init__(self, config: DataConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.position = Position()
        self._sources: dict[Part, tuple[ClipSource, int, Unreadable]] = {}
        self._training: TrainingLoader | None = None

    def mark_batch_done(self) -> None:
        """Note that the trainer has finished one more training batch."""
        self.position.mark_batch_done()

    def train_dataloader(self) -> TrainingLoader:
        """Batches in the order of the seed, shuffled anew each epoch, from the place that training has reached.

        Raises `ConfigError` or `DataError` if there are no videos to train on.
        """
        source, count, unreadable = self._source("train", self.config.train)
        shuffle = not isinstance(self.config.train, SyntheticClipsConfig)
        order = TrainingOrder(count, self._ranks(), self.seed, shuffle=shuffle)
        self.position.attach(order)
        self._training = TrainingLoader(source, order, self.position, unreadable, self._loading(source))
        return self._training

    def val_dataloader(self) -> ClipLoader | list[Any]:
        """Every video, or `clips_per_epoch` synthetic clips, once and in turn; [] if the section has no such part."""
        return self._evaluation("validation", self.config.validation)

    def test_dataloader(self) -> ClipLoader | list[Any]:
        """As `val_dataloader`."""
        return self._evaluation("test", self.config.test)

    def teardown(self, stage: str) -> None:
        """End the workers."""
        if self._training is not None:
            self._training.close()

    def state_dict(self) -> dict[str, int]:
        """The place that training has reached, as plain numbers."""
        return self.position.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from `state_dict`. Raises `ConfigError` if it is not the state of a data module."""
        self.position.load_state_dict(state_dict)

    def _evaluation(self, part: Part, config: PartConfig | None) -> ClipLoader | list[Any]:
        if config is None:
            return []
        source, count, unreadable = self._source(part, config)
        return ClipLoader(source, EvaluationOrder(count, self._ranks()), unreadable, self._loading(source))

    def _source(self, part: Part, config: PartConfig) -> tuple[ClipSource, int, Unreadable]:
        if part not in self._sources:
            self._sources[part] = self._open(part, config)
        return self._sources[part]

    def _open(self, part: Part, config: PartConfig) -> tuple[ClipSource, int, Unreadable]:
        if isinstance(config, VideosConfig):
            videos = find_videos(config.data_dir, config.meta_path, config.data_frac, config.place)
            unreadable = Unreadable(len(videos), config.max_unreadable, config.place)
            return VideoSource(videos, config, self.seed), len(videos), unreadable
        if isinstance(config, StoredConfig):
            files = find_token_files(config)
            unreadable = Unreadable(len(files), config.max_unreadable, config.place)
            return StoredSource(files, config, self.seed), len(files), unreadable
        seed = _SEEDS.get(part, self.seed) if config.seed is None else config.seed
        source = SyntheticSource(config.clips, seed, self._device(config), config.late)
        return source, config.count, Unreadable(config.count, 0.0, config.place)

    def _device(self, config: SyntheticClipsConfig) -> torch.device:
        training = self._training_device()
        if config.device == "auto":
            return training if training.type == "cuda" else torch.device("cpu")
        return training if config.device == training.type else torch.device(config.device)

    def _training_device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _loading(self, source: ClipSource) -> Loading:
        if isinstance(source, SyntheticSource) and source.device.type != "cpu":
            return Loading()
        return Loading(self.config.num_workers, pin_memory=self._training_device().type == "cuda")

    def _ranks(self) -> Ranks:
        if self.trainer is None:
            return Ranks(self.config.batch_size, *this_process())
        return Ranks(self.config.batch_size, self.trainer.global_rank, self.trainer.world_size)
