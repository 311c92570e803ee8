"""The training objective against golden figures, and its gradients against plain autograd."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from golden.weights import stand_in
from vidtok.errors import VidTokError
from vidtok.metrics.image import as_frames
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.discriminator import PatchDiscriminator
from vidtok.training.objective.lecam import LeCAM
from vidtok.training.objective.losses import Objective

pytestmark = pytest.mark.gradients

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = load_file(FOLDER / "losses.safetensors")


@cache
def stand_in_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """Drawn once: those of VGG take a second."""
    return torch.from_numpy(stand_in(name, shape))


def fill(objective: Objective) -> Objective:
    """The stand-in weights of the golden figures; buffers and logvar stay as they are."""
    state = objective.state_dict()
    for name in state:
        if name.endswith(("weight", "bias")):
            drawn = stand_in_of(f"loss.{name}", tuple(state[name].shape))
            state[name] = drawn.abs() if ".lin" in name else drawn
    objective.load_state_dict(state)
    return objective


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS()


def make(lpips: LPIPS | None = None, **values: Any) -> Objective:
    """An objective with stand-in weights; without `lpips`, without perceptual loss."""
    values = {"perceptual_weight": 1.0 if lpips else 0.0, "disc_start": 100, **values}
    return fill(Objective(ObjectiveConfig(**values), lpips))


def video(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("disc_loss", ["hinge", "vanilla"])
@pytest.mark.parametrize("disc_type", ["2d", "3d"])
def test_every_scalar_agrees_with_golden_figures(lpips: LPIPS, disc_type: str, disc_loss: str) -> None:
    objective = make(
        lpips,
        disc_type=disc_type,
        disc_loss=disc_loss,
        logvar_init=8.0,
        gen_loss_cross_entropy=disc_loss == "hinge",
        perceptual_batch=4,
        regularization_weights={"kl_loss": 1e-6},
    ).train()
    last_layer = GOLDEN["last_layer"].clone().requires_grad_()
    kl_loss = torch.tensor(1234.5)
    for step in (0, 150):
        reconstruction = F.conv3d(GOLDEN["prediction"], last_layer)
        inputs = ({"kl_loss": kl_loss, "indices": kl_loss}, GOLDEN["target"], reconstruction)
        generator, generator_log = objective(*inputs, 0, step, last_layer)
        discriminator, discriminator_log = objective(*inputs, 1, step)
        actual = {
            "loss_generator": generator,
            "loss_discriminator": discriminator,
            **generator_log,
            **discriminator_log,
        }
        prefix = f"{disc_type}/{disc_loss}/{step}/"
        expected = {name.removeprefix(prefix): value for name, value in GOLDEN.items() if name.startswith(prefix)}
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                actual[name].detach(), value, rtol=1e-4, atol=0, msg=lambda m, n=name: f"{n}: {m}"
            )
        assert not any(value.requires_grad for value in {**generator_log, **discriminator_log}.values())


class Generator(nn.Module):
    """Two layers, so that there is something below the last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(3, 4, 1)
        self.last = nn.Conv3d(4, 3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(inputs)))


def plain_gradients(objective: Objective, generator: Generator, inputs: Tensor, target: Tensor) -> list[Tensor]:
    """The generator's gradients and logvar's as the definition gives them, by autograd through everything."""
    config = objective.config
    reconstruction = generator(inputs)
    x, y = as_frames(reconstruction), as_frames(target)
    distance = objective.perceptual_loss(x, y) if objective.perceptual_loss else torch.zeros(len(x))
    rec = (x - y).abs() + config.perceptual_weight * distance.view(-1, 1, 1, 1)
    nll = torch.sum(rec / objective.logvar.exp() + objective.logvar) / len(x)
    g_loss = F.softplus(-objective.discriminator(reconstruction).mean(dim=1)).mean()
    norms = [torch.autograd.grad(loss, generator.last.weight, retain_graph=True)[0].norm() for loss in (nll, g_loss)]
    weight = config.disc_weight * (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4)
    return list(torch.autograd.grad(nll + weight * g_loss, [*generator.parameters(), objective.logvar]))


@pytest.mark.parametrize("perceptual", [False, True])
def test_gradients_equal_those_of_plain_autograd(lpips: LPIPS, perceptual: bool) -> None:
    objective = make(lpips if perceptual else None, logvar_init=0.5, perceptual_batch=3)
    generator = Generator()
    inputs, target = video(2, 3, 2, 32, 32), video(2, 3, 2, 32, 32, seed=1)
    expected = plain_gradients(objective, generator, inputs, target)
    loss, log = objective({}, target, generator(inputs), 0, 100, generator.last.weight)
    assert log["train/d_weight"] > 0
    (3 * loss).backward()
    for parameter, gradient in zip([*generator.parameters(), objective.logvar], expected, strict=True):
        torch.testing.assert_close(parameter.grad, 3 * gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())
    assert not any(parameter.grad is not None for parameter in objective.discriminator_parameters())


def test_errors_of_colour_weigh_as_much_as_is_said() -> None:
    options = {"perceptual_weight": 0.0, "disc_weight": 0.0, "pixel_loss": "l2"}
    plain, weighed = make(**options), make(**options, chroma_weight=4.0)
    target = torch.zeros(1, 3, 2, 16, 16)
    brighter, redder = torch.full_like(target, 0.3), torch.zeros_like(target)
    redder[:, 0] += 0.3
    losses = {
        name: [float(objective({}, target, made, 0, 0)[1]["train/rec_loss"]) for objective in (plain, weighed)]
        for name, made in (("brighter", brighter), ("redder", redder))
    }
    assert losses["brighter"] == pytest.approx([0.09, 0.09])
    # a third of the squared error of one colour is of brightness, the rest of colour
    assert losses["redder"] == pytest.approx([0.03, 0.03 * (1 / 3 + 4 * 2 / 3)])


def test_with_a_log_variance_for_each_clip_easy_and_hard_ones_weigh_the_same() -> None:
    options = {"perceptual_weight": 0.0, "disc_weight": 0.0, "pixel_loss": "l2"}
    objective = make(**options, logvar_per_clip=True)
    target = torch.zeros(2, 3, 2, 16, 16)
    made = torch.cat([torch.full_like(target[:1], 0.2), torch.full_like(target[1:], 0.8)]).requires_grad_()
    loss, log = objective({}, target, made, 0, 0)
    loss.backward()
    # the likelihood under each clip's own variance, and the gradient of log(mse + floor), a frame's values each
    errors, values = torch.tensor([0.04, 0.64]), 3 * 16 * 16
    expected = values * (errors / (errors + 2e-4) + (errors + 2e-4).log()).mean()
    torch.testing.assert_close(loss.detach(), expected)
    leaf = made.detach().clone().requires_grad_()
    (values * (leaf.square().mean((1, 2, 3, 4)) + 2e-4).log().mean()).backward()
    torch.testing.assert_close(made.grad, leaf.grad, rtol=1e-4, atol=0)
    assert objective.logvar.grad == 0
    assert log["train/rec_loss"] == pytest.approx(0.34)


def test_regularization_keeps_its_own_gradient() -> None:
    objective = make(regularization_weights={"aux_loss": 2.0})
    aux, other = torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    generator, target = Generator(), video(1, 3, 1, 24, 24)
    inputs = ({"aux_loss": aux, "other": other}, target, generator(target), 0, 0, generator.last.weight)
    loss, log = objective(*inputs)
    loss.backward()
    assert aux.grad == 2
    assert other.grad is None
    assert log["train/aux_loss"] == 3
    assert "train/other" not in log
    torch.testing.assert_close(log["train/total_loss"], log["train/nll_loss"] + 6)


def test_discriminator_enters_at_disc_start_counted_in_optimiser_steps() -> None:
    objective, generator = make(disc_start=40), Generator()
    target = video(1, 3, 2, 24, 24)
    for step, factor in ((39, 0), (40, 1)):
        reconstruction = generator(target)
        loss, log = objective({}, target, reconstruction, 0, step, generator.last.weight)
        added = log["train/d_weight"] * log["train/g_loss"] * factor
        assert added >= 0
        torch.testing.assert_close(loss.detach(), log["train/nll_loss"] + added)
        objective.zero_grad()
        objective({}, target, reconstruction, 1, step)[0].backward()
        moved = [parameter.grad.abs().max() > 0 for parameter in objective.discriminator_parameters()]
        assert any(moved) == bool(factor)


def test_discriminator_step_leaves_the_generator_alone() -> None:
    objective, generator = make(), Generator()
    target = video(1, 3, 2, 24, 24)
    objective({}, target, generator(target), 1, 100)[0].backward()
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_frozen_last_layer_compares_gradients_at_the_reconstruction() -> None:
    objective, generator = make(), Generator()
    generator.last.requires_grad_(False)
    target = video(1, 3, 2, 24, 24)
    _, frozen = objective({}, target, generator(target), 0, 100, generator.last.weight)
    _, absent = objective({}, target, generator(target), 0, 100)
    assert frozen["train/d_weight"] > 0
    assert frozen["train/d_weight"] == absent["train/d_weight"]


def test_without_gradients_the_loss_is_evaluated_alone() -> None:
    objective, generator = make().eval(), Generator()
    target = video(1, 3, 2, 24, 24)
    with torch.inference_mode():
        loss, log = objective({}, target, generator(target), 0, 100, generator.last.weight, split="val")
        _, discriminator_log = objective({}, target, generator(target), 1, 100, split="val")
    assert log["val/d_weight"] == 0
    torch.testing.assert_close(loss, log["val/nll_loss"])
    assert discriminator_log["val/disc_loss"] > 0
    assert objective.lecam is not None
    assert objective.lecam.real_average == 0, "validation moved LeCAM's averages"


def test_without_adversarial_weight_the_discriminator_is_left_out() -> None:
    objective, generator = make(disc_weight=0.0), Generator()
    target = video(1, 3, 1, 8, 8)  # too small for the discriminator, which must not matter
    loss, log = objective({}, target, generator(target), 0, 100, generator.last.weight)
    loss.backward()
    assert log["train/g_loss"] == log["train/d_weight"] == 0
    assert generator.first.weight.grad is not None
    assert not objective.config.is_adversarial


def test_bfloat16_reconstructions_under_autocast(lpips: LPIPS) -> None:
    objective, generator = make(lpips), Generator()
    inputs, target = video(1, 3, 2, 32, 32), video(1, 3, 2, 32, 32, seed=1)
    loss, _ = objective({}, target, generator(inputs), 0, 100, generator.last.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reconstruction = generator(inputs)
        assert reconstruction.dtype == torch.bfloat16
        half, _ = objective({}, target, reconstruction, 0, 100, generator.last.weight)
        adversary, _ = objective({}, target, reconstruction, 1, 100)
    assert half.dtype == adversary.dtype == torch.float32
    torch.testing.assert_close(half, loss, rtol=0.02, atol=0)
    half.backward()
    assert generator.first.weight.grad is not None
    assert generator.first.weight.grad.isfinite().all()


def test_logvar_stays_where_it_is_unless_it_is_learned() -> None:
    objective, generator = make(learn_logvar=False, logvar_init=1), Generator()
    target = video(1, 3, 1, 24, 24)
    objective({}, target, generator(target), 0, 0, generator.last.weight)[0].backward()
    assert objective.generator_parameters() == []
    assert objective.logvar.grad is None
    assert make().generator_parameters()[0].requires_grad


@pytest.mark.parametrize("disc_type", ["2d", "3d"])
def test_published_loss_section_loads_by_name(lpips: LPIPS, disc_type: str) -> None:
    with safe_open(FOLDER / "losses.safetensors", "pt") as file:
        metadata = file.metadata()
    shapes = json.loads(metadata[f"discriminator_{disc_type}_keys"]) | json.loads(metadata["lpips_keys"])
    published = {name.removeprefix("loss."): torch.full(shape, 0.5) for name, shape in shapes.items()}
    for objective in (make(lpips, disc_type=disc_type), make(disc_type=disc_type)):
        objective.load_state_dict(published)
        assert objective.logvar == 0.5
        own = dict(objective.named_parameters()).keys() - {"logvar"}
        assert own <= published.keys()
        assert objective.lecam is not None
        assert objective.lecam.real_average == 0
    with pytest.raises(RuntimeError, match=r"Missing key.*discriminator.main.0.weight"):
        objective.load_state_dict({name: value for name, value in published.items() if "main.0.weight" not in name})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*discriminator.other"):
        objective.load_state_dict({**published, "discriminator.other": torch.zeros(1)})
    fill_lpips = {f"perceptual_loss.{name}": value for name, value in LPIPS().state_dict().items()}
    assert fill_lpips.keys() <= published.keys()


def test_state_dict_resumes_exactly() -> None:
    objective, generator = make(), Generator()
    target = video(2, 3, 2, 24, 24)
    objective({}, target, generator(target), 1, 100)
    resumed = make()
    resumed.load_state_dict(objective.state_dict())
    assert resumed.lecam is not None
    assert resumed.lecam.real_average != 0
    losses = [one({}, target, generator(target), 1, 101)[0] for one in (objective, resumed)]
    assert torch.equal(*losses)
    without = make(lecam_loss_weight=0.0)
    without.load_state_dict(objective.state_dict())
    assert "train/lecam_loss" not in without({}, target, generator(target), 1, 101)[1]


def test_lecam_averages_and_penalty() -> None:
    lecam = LeCAM(decay=0.9)
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0])
    for _ in range(2):
        lecam.update(real.mean(), fake.mean())
    torch.testing.assert_close(lecam.real_average, torch.tensor(2 * 0.19))
    torch.testing.assert_close(lecam.fake_average, torch.tensor(-0.5 * 0.19))
    expected = ((1 + 0.095) ** 2 + (3 + 0.095) ** 2) / 2 + ((0.38 + 1) ** 2 + 0.38**2) / 2
    torch.testing.assert_close(lecam(real, fake), torch.tensor(expected))


@pytest.mark.parametrize("disc_type", ["2d", "3d"])
def test_discriminator_starts_from_the_published_distribution(disc_type: str) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(disc_type)
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)
            assert module.bias.abs().max() == 0


def test_two_dimensional_discriminator_judges_each_frame_alone() -> None:
    discriminator = PatchDiscriminator("2d").eval()
    clip = video(2, 3, 3, 32, 40)
    logits = discriminator(clip)
    assert logits.shape == (6, 2 * 3)
    torch.testing.assert_close(discriminator(clip[1:, :, 2:])[0], logits[5])


def test_unfit_input_is_refused() -> None:
    objective = make()
    with pytest.raises(VidTokError, match="the training objective expects two of one shape"):
        objective({}, video(1, 3, 1, 24, 24), video(1, 3, 2, 24, 24), 0, 0)
    message = (
        "frames are 23 x 40 pixels; the 2d discriminator expects at least 24 a side: train on larger ones, or with"
    )
    with pytest.raises(VidTokError, match=message):
        objective({}, video(1, 3, 1, 23, 40), video(1, 3, 1, 23, 40), 1, 0)


def test_missing_perceptual_weights_stop_the_start(tmp_path: Path) -> None:
    config = ObjectiveConfig(perceptual_weights=str(tmp_path / "absent.pth"))
    with pytest.raises(LPIPSWeightsError, match=r"absent.pth does not exist"):
        Objective(config)
    weights = {f"loss.perceptual_loss.{name}": value for name, value in LPIPS().state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "model.ckpt")
    objective = Objective(ObjectiveConfig(perceptual_weights=str(tmp_path / "model.ckpt")))
    expected = weights["loss.perceptual_loss.lin3.model.1.weight"]
    assert torch.equal(objective.state_dict()["perceptual_loss.lin3.model.1.weight"], expected)
