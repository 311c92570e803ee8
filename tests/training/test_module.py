"""One batch after another: what is trained, when, and by how much."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from support import make_clip, small_config
from vidtok.errors import ConfigError, TrainingError
from vidtok.metrics.image import psnr
from vidtok.models.config import KLConfig
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.training.config import LearningRateSchedule, TrainingConfig
from vidtok.training.ema import MovingAverages
from vidtok.training.module import TrainingModule
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.losses import Objective
from vidtok.training.optimization import clip_gradients

KL = "vidtok_kl_causal_488_4chn_v1_1"
FSQ = "vidtok_fsq_causal_488_4096"
SETTINGS = TrainingConfig(base_learning_rate=1e-3)


class Clips(Dataset[dict[str, Any]]):
    def __init__(self, video: Tensor) -> None:
        self.video = video

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.video[index], "name": f"clip{index}.mp4"}


def tiny(name: str = KL, **changes: Any) -> AutoencoderConfig:
    config = small_config(name, ch_mult=(1, 1, 1, 1), num_res_blocks=1, **changes)
    if isinstance(config.bottleneck, KLConfig):
        config = dataclasses.replace(config, bottleneck=KLConfig(sample=False))
    return config


def make(
    config: AutoencoderConfig | None = None,
    objective: dict[str, Any] | None = None,
    settings: TrainingConfig = SETTINGS,
    **arguments: Any,
) -> TrainingModule:
    torch.manual_seed(0)
    values = {"perceptual_weight": 0.0, "disc_weight": 0.0, **(objective or {})}
    model = VideoAutoencoder(config or tiny())
    return TrainingModule(model, Objective(ObjectiveConfig.from_dict(values)), settings, **arguments)


def fit(module: TrainingModule, video: Tensor, steps: int, *, batch: int = 2, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Clips(video), batch_size=batch))
    return trainer


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


pytestmark = [
    pytest.mark.gradients,
    pytest.mark.filterwarnings("ignore:.*(no `val_dataloader`|LeafSpec|many workers|logging interval).*"),
]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_overfits_one_clip() -> None:
    t, y, x = torch.meshgrid(torch.arange(5.0), torch.arange(16.0), torch.arange(16.0), indexing="ij")
    video = torch.stack([torch.sin(x / 4 + t / 2), torch.cos(y / 5 - t / 3), torch.sin((x + y) / 6)])[None] * 0.8
    settings = TrainingConfig(
        base_learning_rate=5e-3, schedule=LearningRateSchedule(warmup_steps=10, decay="cosine", decay_steps=220)
    )
    objective = {"pixel_loss": "l2", "logvar_init": -4.0, "regularization_weights": {}}
    module = make(tiny(ch=16), objective, settings)
    fit(module, video, 220, batch=1)
    module.eval()
    with torch.no_grad():
        score = psnr(module(video).clamp(-1, 1), video).mean()
    assert score > 30


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
def test_frozen_part_stays_bit_identical(frozen: str) -> None:
    settings = TrainingConfig(base_learning_rate=1e-2, ema_decay=0.9, **{f"fix_{frozen}": True})
    module = make(tiny(FSQ, dropout=0.2), settings=settings)
    before = weights(module)
    trainer = fit(module, make_clip(4, 3, 5, 24, 24), 4)
    trained = {"encoder": "decoder", "decoder": "encoder"}[frozen]
    names = changed(before, module)
    assert not any(name.startswith(f"{frozen}.") for name in names)
    assert any(name.startswith(f"{trained}.") for name in names)
    assert not any(frozen in name for name in module.state_dict() if name.startswith("model_ema."))
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in [*getattr(module, trained).parameters(), module.loss.logvar]}
    module.train()
    assert not getattr(module, frozen).training
    assert getattr(module, trained).training


def test_discriminator_starts_at_disc_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps count two a batch: with disc_start 4 the third batch, steps 4 and 5, is the first that it takes part in."""
    module = make(objective={"disc_weight": 0.2, "disc_start": 4})
    seen: list[tuple[int, int, float]] = []
    changes: list[bool] = []
    before = weights(module.loss.discriminator.main[0])
    forward, step = Objective.forward, TrainingModule._step

    def record(self: Objective, log: Any, target: Tensor, video: Tensor, index: int, at: int, **options: Any) -> Any:
        loss, log = forward(self, log, target, video, index, at, **options)
        seen.append((index, at, float(log["train/disc_factor"]) if index == 0 else float(loss != 0)))
        return loss, log

    def watch(self: TrainingModule, *arguments: Any) -> Any:
        result = step(self, *arguments)
        changes.append(bool(changed(before, self.loss.discriminator.main[0])))
        return result

    monkeypatch.setattr(Objective, "forward", record)
    monkeypatch.setattr(TrainingModule, "_step", watch)
    trainer = fit(module, make_clip(8, 3, 5, 24, 24), 8)
    assert seen == [(0, 0, 0), (1, 1, 0), (0, 2, 0), (1, 3, 0), (0, 4, 1), (1, 5, 1), (0, 6, 1), (1, 7, 1)]
    assert changes == [False, False, True, True]
    assert trainer.global_step == 8
    assert module.batches_done == 4


def test_without_discriminator_a_batch_is_one_step() -> None:
    module = make()
    trainer = fit(module, make_clip(4, 3, 5, 16, 16), 3)
    assert (trainer.global_step, module.batches_done, len(trainer.optimizers)) == (3, 3, 1)
    assert not any(p.requires_grad for p in module.loss.discriminator.parameters())


@pytest.mark.parametrize("adversarial", [False, True])
def test_accumulated_batches_equal_a_larger_one(adversarial: bool) -> None:
    """BatchNorm sees each batch alone, so with a discriminator the steps are compared before it takes part."""
    objective = {"disc_weight": 0.2} if adversarial else {}
    video = make_clip(8, 3, 5, 24, 24)
    # Adam steps as far for a gradient of rounding errors as for any other, unless eps is above those.
    settings = TrainingConfig(base_learning_rate=1e-2, optimizer_options={"eps": 1.0})
    modules = [make(None, objective, settings), make(None, objective, settings, accumulate=2)]
    steps = 4 if adversarial else 2
    for module, batch in zip(modules, (4, 2), strict=True):
        trainer = fit(module, video, steps, batch=batch)
        assert trainer.global_step == steps
        assert not module.is_mid_accumulation
    whole, parts = (weights(module.encoder) for module in modules)
    start = weights(make().encoder)
    for name, value in whole.items():
        moved = (value - start[name]).norm()
        assert (value - parts[name]).norm() <= 1e-3 * moved + 1e-6, name


def test_moving_averages() -> None:
    layer = torch.nn.Linear(2, 1)
    averages = MovingAverages([("a.weight", layer.weight), ("a.bias", layer.bias)], 0.5)
    assert sorted(averages.state_dict()) == ["abias", "aweight", "decay", "num_updates"]
    first = layer.weight.detach().clone()
    expected = first.clone()
    for update in range(1, 5):
        with torch.no_grad():
            layer.weight += 1
        averages.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(averages.get_buffer("aweight"), expected)
    with averages.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
    torch.testing.assert_close(layer.weight.detach(), first + 4)
    other = MovingAverages([("a.weight", layer.weight), ("a.bias", layer.bias)], 0.5)
    other.load_state_dict(averages.state_dict())
    for each in (averages, other):
        each.update()
    torch.testing.assert_close(other.get_buffer("aweight"), averages.get_buffer("aweight"), rtol=0, atol=0)
    averages.reset()
    assert torch.equal(averages.get_buffer("aweight"), layer.weight.detach())
    assert averages.num_updates == 0


def test_evaluates_and_saves_averages() -> None:
    module = make(settings=TrainingConfig(base_learning_rate=1e-2, ema_decay=0.99))
    video = make_clip(2, 3, 5, 24, 24)
    fit(module, video, 4)
    trained = weights(module.encoder)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (found,) = trainer.validate(module, DataLoader(Clips(video), batch_size=2), verbose=False)
    assert set(found) == set(module.validation_metrics)
    assert changed(trained, module.encoder) == set()
    with torch.no_grad():
        score = psnr(module(video).clamp(-1, 1), video).mean()
        assert module.model_ema is not None
        with module.model_ema.applied():
            averaged = psnr(module(video).clamp(-1, 1), video).mean()
    assert found["val/psnr"] == pytest.approx(float(score), abs=1e-4)
    assert found["val_ema/psnr"] == pytest.approx(float(averaged), abs=1e-4)
    assert abs(float(score - averaged)) > 1e-3
    names = {name for name in module.state_dict() if name.startswith("model_ema.")}
    assert "model_ema.encoderconv_inconvweight" in names
    assert len(names) == len([*module.encoder.parameters(), *module.decoder.parameters()]) + 2


@pytest.mark.parametrize("adversarial", [False, True])
def test_codebook_use(adversarial: bool) -> None:
    module = make(tiny(FSQ), {"disc_weight": 0.2} if adversarial else {})
    video = make_clip(4, 3, 5, 24, 24)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (found,) = trainer.validate(module, DataLoader(Clips(video), batch_size=2), verbose=False)
    assert set(module.validation_metrics) <= set(found)
    with torch.no_grad():
        indices = torch.cat([module.model.encode(part, True)[1]["indices"].flatten() for part in video.split(2)])
    _, counts = indices.unique(return_counts=True)
    share = counts / counts.sum()
    assert found["val/codebook_use"] == pytest.approx(len(counts) / 4096)
    assert found["val/codebook_perplexity"] == pytest.approx(float((-share * share.log()).sum().exp()), rel=1e-4)


@pytest.mark.parametrize("part", ["loss", "gradient", "discriminator"])
def test_what_is_not_finite_stops_the_run(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(objective={"disc_weight": 0.2} if part == "discriminator" else {})
    video = make_clip(6, 3, 5, 24, 24)
    expected = "the generator's loss is nan"
    if part == "loss":
        video[3] = float("nan")
    else:
        forward = Objective.forward

        def spoil(self: Objective, log: Any, target: Tensor, shown: Tensor, index: int, at: int, **rest: Any) -> Any:
            loss, log = forward(self, log, target, shown, index, at, **rest)
            if part == "discriminator" and index == 1 and at > 1:
                return loss * float("inf"), log
            if part == "gradient" and at == 2:
                shown.register_hook(lambda gradient: gradient * float("inf"))
            return loss, log

        monkeypatch.setattr(Objective, "forward", spoil)
        expected = {
            "gradient": "the norm of the generator's gradient is",
            "discriminator": "the discriminator's loss is",
        }[part]
    before: dict[str, Tensor] = {}
    original = TrainingModule._step

    def step(self: TrainingModule, *arguments: Any) -> Any:
        result = original(self, *arguments)
        before.update(weights(self.encoder))
        return result

    monkeypatch.setattr(TrainingModule, "_step", step)
    with pytest.raises(TrainingError, match=expected) as caught:
        fit(module, video, 6)
    assert f"at step {2 if part == 'discriminator' else 1}, on clip2.mp4, clip3.mp4" in str(caught.value)
    assert "lower model.base_learning_rate" in str(caught.value)
    assert changed(before, module.encoder) == set()


def test_gradients_are_clipped_to_their_joint_norm() -> None:
    parameters = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    parameters[0].grad, parameters[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    assert float(clip_gradients(parameters, 20.0)) == pytest.approx(7)
    assert parameters[1].grad.tolist() == pytest.approx([6.0])
    assert float(clip_gradients(parameters, 3.5)) == pytest.approx(7)
    assert parameters[0].grad.tolist() == pytest.approx([1.0, 1.5])
    assert float(clip_gradients(parameters, None)) == pytest.approx(3.5)
    assert float(clip_gradients([], 1.0)) == 0


def test_learning_rate_schedule() -> None:
    schedule = LearningRateSchedule(warmup_steps=4, decay="cosine", decay_steps=14, final=0.1)
    assert [schedule.factor(step) for step in (0, 3, 4)] == pytest.approx([0.2, 0.8, 1.0])
    assert schedule.factor(9) == pytest.approx(0.55)
    assert schedule.factor(14) == schedule.factor(100) == pytest.approx(0.1)
    line = LearningRateSchedule(decay="linear", decay_steps=10)
    assert [line.factor(step) for step in (0, 5, 10, 11)] == pytest.approx([1, 0.5, 0, 0])
    held = LearningRateSchedule(warmup_steps=2, hold=0.5, decay="linear", decay_steps=10)
    assert [held.factor(step) for step in (1, 2, 6, 7, 9, 10, 11)] == pytest.approx([2 / 3, 1, 1, 0.75, 0.25, 0, 0])
    cooled = LearningRateSchedule(warmup_steps=3, decay="inverse_sqrt", cooldown=0.25, decay_steps=23)
    assert [cooled.factor(step) for step in (2, 3, 15, 18)] == pytest.approx([0.75, 1, 0.5, (4 / 19) ** 0.5])
    assert [cooled.factor(step) for step in (20, 23, 99)] == pytest.approx([0.6 * (4 / 21) ** 0.5, 0, 0])
    assert LearningRateSchedule().factor(10**6) == 1
    with pytest.raises(
        ConfigError, match=r"lr_schedule\.cooldown is 0\.5; expected .* 0 where decay is not inverse_sqrt"
    ):
        LearningRateSchedule(decay="cosine", decay_steps=9, cooldown=0.5)
    with pytest.raises(ConfigError, match=r"lr_schedule\.decay_steps is None; expected the step at which"):
        LearningRateSchedule(decay="cosine")


def test_learning_rates_of_both_parts() -> None:
    settings = TrainingConfig(
        base_learning_rate=1e-3, lr_g_factor=2.0, schedule=LearningRateSchedule(warmup_steps=1), optimizer="adamw",
        optimizer_options={"betas": (0.5, 0.9)},
    )  # fmt: skip
    trainer = fit(make(objective={"disc_weight": 0.2}, settings=settings), make_clip(4, 3, 5, 24, 24), 4)
    generator, discriminator = trainer.optimizers
    assert isinstance(generator, torch.optim.AdamW)
    assert generator.param_groups[0]["betas"] == (0.5, 0.9)
    assert generator.param_groups[0]["lr"] == pytest.approx(2e-3)
    assert discriminator.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_recomputing_activations_changes_nothing() -> None:
    video = make_clip(2, 3, 5, 16, 16)
    trained = []
    for use_checkpoint in (False, True):
        module = make(tiny(use_checkpoint=use_checkpoint))
        fit(module, video, 2)
        trained.append(weights(module))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], msg=name)


def test_compiles_encoder_and_decoder_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: compiled.append(self))
    plain = set(make().state_dict())
    assert compiled == []
    module = make(settings=TrainingConfig(base_learning_rate=1e-3, compile_model=True))
    assert compiled == [module.encoder, module.decoder]
    assert set(module.state_dict()) == plain


@pytest.mark.slow
@pytest.mark.gradients
def test_the_adaptive_weight_needs_no_compiled_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer's gradient is found outside of compiled graphs, whose backward pass is all or nothing."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend="aot_eager", **options)
    )
    settings = TrainingConfig(base_learning_rate=1e-3, compile_model=True)
    module = make(objective={"disc_weight": 0.2}, settings=settings)
    reconstruction = module.model(make_clip(1, 3, 5, 16, 16))[1]
    reached, compiled, nodes = [], [], [reconstruction.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in reached or node in compiled:
            continue
        if "CompiledFunction" in node.name():
            compiled.append(node)
            continue
        reached.append(node)
        nodes += [following for following, _ in node.next_functions]
    assert compiled
    assert any(getattr(node, "variable", None) is module.model.last_layer for node in reached)
