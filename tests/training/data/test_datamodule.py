"""The data module under Lightning's trainer: what is trained on, after an interruption too."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tests.video.video_files import make_video, numbered

from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.training.data import build_data
from vidtok.training.data.datamodule import DataModule

SIZE = {"input_height": 16, "input_width": 24, "sample_num_frames": 3, "sample_fps": 15}
SYNTHETIC = "vidtok.data.synthetic.SyntheticClips"
VIDEOS = "vidtok.data.vidtok.VidTokDataset"


def synthetic(**params: Any) -> dict[str, Any]:
    return {"target": SYNTHETIC, "params": {"video_params": SIZE, "clips_per_epoch": 8, "max_objects": 0, **params}}


def videos(folder: Path, **params: Any) -> dict[str, Any]:
    return {"target": VIDEOS, "params": {"data_dir": str(folder), "video_params": SIZE, **params}}


def data(train: dict[str, Any], seed: int = 3, **params: Any) -> DataModule:
    target = "vidtok.data.datamodule.DataModuleFromConfig"
    return build_data({"target": target, "params": {"batch_size": 2, "train": train, **params}}, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for video in range(7):
        make_video(folder / f"{video}.mp4", [numbered(i) for i in range(20)], options={"preset": "ultrafast"})
    return folder


class Model(LightningModule):
    """Keeps what it is given: names, starts, and a number of each clip."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[Any] = []
        self.validated: list[Any] = []

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        assert batch["video"].shape == (2, 3, 3, 16, 24)
        self.trained.append((batch["name"], batch["start"].nan_to_num(-1).tolist(), batch["video"].mean().item()))
        return self.weight * batch["video"].mean()

    def validation_step(self, batch: dict[str, Any]) -> None:
        self.validated.append(batch["name"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Mark(Callback):
    """Marks batches as done, and keeps a checkpoint of one step."""

    def __init__(self, checkpoint: Path | None = None, step: int = 0) -> None:
        self.checkpoint, self.step = checkpoint, step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.datamodule.mark_batch_done()
        if trainer.global_step == self.step and self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)


def fit(module: DataModule, root: Path, *callbacks: Callback, checkpoint: Path | None = None, **options: Any) -> Model:
    model = Model()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=3, callbacks=list(callbacks), default_root_dir=root, **quiet, **options
    )
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("error", message=".*not resumable.*")
        trainer.fit(model, module, ckpt_path=checkpoint)
    return model


@pytest.mark.parametrize(
    ("kind", "workers", "step"),
    [
        ("videos", 0, 4),
        ("videos", 1, 4),
        ("videos", 0, 6),
        ("synthetic", 0, 6),
        ("synthetic", 1, 6),
        ("synthetic", 0, 8),
    ],
)
def test_an_interrupted_run_sees_the_clips_that_a_whole_one_sees(folder, tmp_path, kind, workers, step):
    train = videos(folder) if kind == "videos" else synthetic()
    per_epoch = 3 if kind == "videos" else 4
    whole = fit(data(train, num_workers=workers), tmp_path, Mark(tmp_path / "c.ckpt", step)).trained
    assert len(whole) == 3 * per_epoch
    assert len({str(batch) for batch in whole}) == len(whole)
    resumed = fit(data(train, num_workers=workers), tmp_path, Mark(), checkpoint=tmp_path / "c.ckpt").trained
    assert resumed == whole[step:]


def test_short_epochs_of_the_trainer_go_on_through_the_data(tmp_path):
    trained = fit(data(synthetic()), tmp_path, Mark(), limit_train_batches=3).trained
    numbers = [int(name.split()[2]) for names, *_ in trained for name in names]
    assert numbers == list(range(18))


def test_validation_sees_the_same_clips_each_time_and_others_than_training(folder, tmp_path):
    clips = data(synthetic(), validation=synthetic(clips_per_epoch=3))
    model = fit(clips, tmp_path, Mark(), num_sanity_val_steps=0)
    assert len(model.validated) == 6
    assert model.validated[:2] == model.validated[2:4]
    assert [name.split()[:3] for batch in model.validated[:2] for name in batch] == [
        ["synthetic", "clip", str(number)] for number in range(3)
    ]
    assert not {name for batch in model.validated for name in batch} & {n for names, *_ in model.trained for n in names}
    module = data(videos(folder), validation=videos(folder), test=videos(folder))
    for loader in (module.val_dataloader(), module.test_dataloader()):
        batches = list(loader)
        assert [name for batch in batches for name in batch["name"]] == [f"{folder}/{i}.mp4" for i in range(7)]
        assert all(batch["start"].eq(0).all() for batch in batches)


def test_without_validation_there_is_none(tmp_path):
    module = data(synthetic())
    assert module.val_dataloader() == module.test_dataloader() == []
    assert fit(module, tmp_path, Mark(), limit_train_batches=1).validated == []


def test_synthetic_clips_are_those_of_their_seed_and_index():
    config = SyntheticConfig(frames=3, height=16, width=24, max_objects=0)
    for seed, module in ((3, data(synthetic())), (9, data(synthetic(seed=9)))):
        batch = next(iter(module.train_dataloader()))
        torch.testing.assert_close(batch["video"], synthetic_batch(config, seed, [0, 1]))
        assert batch["name"] == [f"synthetic clip {i} of seed {seed}" for i in range(2)]
        assert batch["fps"].isnan().all()
        assert batch["start"].isnan().all()


def test_ranks_outside_of_a_trainer_are_those_of_the_environment(monkeypatch):
    names = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        loader = data(synthetic()).train_dataloader()
        assert len(loader) == 2
        names += [name.split()[2] for name in next(iter(loader))["name"]]
    assert names == ["0", "1", "2", "3"]


def test_the_place_is_plain_numbers_and_one_with_another_seed_is_told(caplog):
    module = data(synthetic())
    loader = module.train_dataloader()
    for _ in range(5):
        module.mark_batch_done()
    state = module.state_dict()
    assert state == {"epoch": 1, "batches": 1, "batch_size": 2, "world_size": 1, "clips": 8, "seed": 3}
    assert loader.state_dict() == state
    other = data(synthetic(), seed=4)
    other.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        names = next(iter(other.train_dataloader()))["name"]
    assert names == ["synthetic clip 10 of seed 4", "synthetic clip 11 of seed 4"]
    assert "goes on in another order than before, since these changed: seed 3 -> 4" in caplog.text
