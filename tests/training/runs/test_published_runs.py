"""Runs of the original implementation go on: weights, averages, both Adam states and the count of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.training.run_files import last, train, write_config
from torch import Tensor

import vidtok
from vidtok.errors import CheckpointError
from vidtok.training.published_runs import Holding, is_published, taken_over
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.checkpoints import KeepCheckpoints
from vidtok.training.runs.run import plan_run

pytestmark = pytest.mark.gradients

EMA = "model.params.ema_decay=0.9"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def original(folder: Path, target: Path) -> tuple[Path, dict[str, Any]]:
    """The run in `folder` as the original would have written it, and what its checkpoint holds, optimisers by name.

    The original's modules are in another order here, so that a mistaken one shows.
    """
    content = last(folder)
    state: dict[str, Tensor] = content["state_dict"]
    parts = ("encoder.", "decoder.")
    ours = [name for name in state if name.startswith(parts)]
    theirs = [name for part in parts for name in reversed(ours) if name.startswith(part)]
    critic = [name for name in state if name.startswith("loss.discriminator.") and not name.endswith(BUFFERS)]
    orders = [(ours, theirs), (critic, critic[::-1])]
    by_name, states = [], []
    for (before, after), saved, tail in zip(orders, content["optimizer_states"], (["loss.logvar"], []), strict=True):
        named = dict(zip([*before, *tail], saved["state"].values(), strict=True))
        by_name.append(named)
        order = [*after, *tail]
        group = {**saved["param_groups"][0], "params": list(range(len(order))), "initial_lr": 1e-3}
        states.append({"state": {i: named[name] for i, name in enumerate(order)}, "param_groups": [group]})
    rest = [name for name in state if name.startswith("loss.") and name not in critic and ".lecam." not in name]
    averages = {name: value for name, value in state.items() if name.startswith("model_ema.")}
    averages["model_ema.num_updates"] = averages["model_ema.num_updates"].int()
    averages |= {"model_ema." + name.replace(".", ""): state[name] for name in (*critic, "loss.logvar")}
    published = {
        "epoch": content["epoch"],
        "global_step": content["global_step"],
        "pytorch-lightning_version": "2.0.0",
        "state_dict": {**{name: state[name] for name in (*theirs, *critic[::-1], *rest)}, **averages},
        "loops": {"fit_loop": {}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/rec_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": states,
        "lr_schedulers": [{"last_epoch": 3}],
    }
    for name in ("checkpoints", "configs"):
        (target / name).mkdir(parents=True)
    torch.save(published, target / "checkpoints" / "epoch=000001-step=000000004.ckpt")
    raw = yaml.safe_load(next((folder / "configs").iterdir()).read_text())
    (target / "configs" / "2024-01-01T00-00-00-lightning.yaml").write_text(
        yaml.safe_dump({"lightning": raw.pop("lightning")})
    )
    (target / "configs" / "2024-01-01T00-00-00-project.yaml").write_text(yaml.safe_dump(raw))
    return target, {**published, "by_name": by_name}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with torch.enable_grad():
        return train(write_config(folder, adversarial=True), folder, "--max_steps", "4", EMA)


@pytest.mark.parametrize("way", ["-r", "--resume_from_checkpoint"])
def test_a_run_of_the_original_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    folder, published = original(run, tmp_path / "original")
    seen: dict[str, Any] = {}

    def look(self: KeepCheckpoints, trainer: Any, module: Any) -> None:
        seen["state"] = {name: value.clone() for name, value in module.state_dict().items()}
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        seen["optimizers"] = [
            {names[id(parameter)]: {key: value.clone() for key, value in state.items()}
             for parameter, state in optimizer.state.items()}
            for optimizer in trainer.optimizers
        ]  # fmt: skip
        seen["progress"] = (trainer.global_step, trainer.current_epoch, module.batches_done, module.model_ema._count)

    monkeypatch.setattr(KeepCheckpoints, "on_train_start", look)
    checkpoint = str(next((folder / "checkpoints").iterdir()))
    config = None if way == "-r" else write_config(tmp_path, adversarial=True)
    options = (way, str(folder) if way == "-r" else checkpoint, "--max_steps", "6", EMA)
    went_on = train(config, tmp_path / "logs", *options)
    assert (went_on == folder) == (way == "-r")
    assert seen["progress"] == (4, published["epoch"], 2, 2)
    for name, value in seen["state"].items():
        if ".lecam." in name:
            assert value == 0
        else:
            assert torch.equal(value, published["state_dict"][name]), name
    for found, expected in zip(seen["optimizers"], published["by_name"], strict=True):
        assert found.keys() == expected.keys()
        for name, state in expected.items():
            assert found[name].keys() == state.keys()
            assert all(torch.equal(found[name][key], value) for key, value in state.items()), name
    written = last(went_on)
    assert written["global_step"] == 6
    assert not is_published(written)


def test_its_folder_is_one_of_a_run(run: Path, tmp_path: Path) -> None:
    folder, published = original(run, tmp_path / "2024-01-01T00-00-00_original")
    plan = plan_run(parse_arguments(["-r", str(folder)]))
    assert plan.resume_from is not None
    assert plan.resume_from.name == "epoch=000001-step=000000004.ckpt"
    assert plan.config.raw["lightning"]["modelcheckpoint"]["params"]["every_n_train_steps"] == 2
    model = vidtok.load(folder)
    name = "encoder.conv_in.conv.weight"
    assert torch.equal(model.get_parameter(name), published["state_dict"][name])
    refused = ("-r", str(folder), "--strategy", "fsdp", "--devices", "2")
    with pytest.raises(CheckpointError, match=r"cannot go on sharded \(FSDP\); expected --strategy ddp"):
        train(None, tmp_path / "logs", *refused)


def small() -> tuple[dict[str, Any], Holding]:
    """A checkpoint of two weights, a frozen one, logvar and a discriminator; and a run that goes on with it."""
    given = {
        "decoder.b": torch.ones(3), "decoder.a": torch.ones(2), "encoder.e": torch.ones(4),
        "loss.logvar": torch.ones(()), "loss.discriminator.w": torch.ones(5), "loss.perceptual_loss.x": torch.ones(1),
    }  # fmt: skip

    def adam(*names: str) -> dict[str, Any]:
        state = {i: {"exp_avg": torch.full_like(given[name], i)} for i, name in enumerate(names)}
        return {"state": state, "param_groups": [{"lr": 1.0, "params": list(range(len(names)))}]}

    states = [adam("decoder.b", "decoder.a", "loss.logvar"), adam("loss.discriminator.w")]
    content = {"state_dict": given, "optimizer_states": states, "global_step": 10, "epoch": 3, "loops": {}}
    own = {name: torch.zeros_like(value) for name, value in given.items() if "perceptual" not in name}
    own |= {"loss.lecam.real_average": torch.zeros(()), "model_ema.decay": torch.tensor(0.5)}
    own |= {"model_ema.num_updates": torch.tensor(0), "model_ema.decodera": torch.zeros(2)}
    parameters = frozenset(name for name in given if "perceptual" not in name)
    trained = [["decoder.a", "decoder.b", "loss.logvar"], ["loss.discriminator.w"]]
    return content, Holding(own, parameters, trained)


def test_states_follow_the_names_and_what_is_missing_begins() -> None:
    content, own = small()
    found = taken_over(content, own, "a.ckpt")
    assert found["state_dict"].keys() == own.weights.keys()
    assert torch.equal(found["state_dict"]["model_ema.decodera"], torch.ones(2))
    assert [float(state["exp_avg"].mean()) for state in found["optimizer_states"][0]["state"].values()] == [1, 0, 2]
    progress = found["loops"]["fit_loop"]
    assert progress["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"] == 10
    assert progress["epoch_loop.batch_progress"]["total"]["completed"] == 5
    content["state_dict"] |= {"model_ema.num_updates": torch.tensor(-1), "model_ema.decay": torch.tensor(0.9)}
    state = taken_over(content, own, "a.ckpt")["state_dict"]
    assert (int(state["model_ema.num_updates"]), float(state["model_ema.decay"])) == (5, 0.5)
    without = Holding(own.weights, own.parameters, own.trained[:1])
    assert len(taken_over(content, without, "a.ckpt")["optimizer_states"]) == 1
    total = taken_over(content, without, "a.ckpt")["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert total["completed"] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["optimizer_states"].pop(), r"holds 1 optimiser states; expected 2, of the auto"),
        (lambda content: content.pop("epoch"), r"holds no epoch; to start a new run from its weights, give model"),
        (
            lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(7)),
            r"holds the optimiser state of 3 parameters, which do not fit the 3 of this run by number and shape",
        ),
        (
            lambda content: content["optimizer_states"][0]["state"][0].pop("exp_avg"),
            "holds states of another optimiser than Adam",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(change: Any, message: str) -> None:
    content, own = small()
    change(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt " + message):
        taken_over(content, own, "a.ckpt")


def test_another_optimiser_is_told() -> None:
    content, own = small()
    with pytest.raises(CheckpointError, match=r"whose optimiser is Adam, and model\.params\.optimizer_config asks"):
        taken_over(content, Holding(own.weights, own.parameters, own.trained, optimizer="muon"), "a.ckpt")
