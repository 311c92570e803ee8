"""LPIPS: golden figures, gradients, and where its weights come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from golden.weights import stand_in
from vidtok.errors import VidTokError
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError

pytestmark = pytest.mark.gradients

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = load_file(FOLDER / "losses.safetensors")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Stand-in weights by LPIPS's own names; the scaling is what it is."""
    values = LPIPS().state_dict()
    for name, value in values.items():
        if not name.startswith("scaling_layer."):
            drawn = torch.from_numpy(stand_in(f"loss.perceptual_loss.{name}", tuple(value.shape)))
            values[name] = drawn.abs() if name.startswith("lin") else drawn
    return dict(values)


@pytest.fixture(scope="module")
def lpips(state: dict[str, torch.Tensor]) -> LPIPS:
    model = LPIPS()
    model.load_state_dict(state)
    return model


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights in any of the usual places; the folder where PyTorch keeps its own."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("VIDTOK_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("vidtok.metrics.lpips_weights._PACKAGES", {})
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def torchvision_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    features = {f"features.{name.split('.', 2)[2]}": value for name, value in state.items() if name.startswith("net.")}
    return {**features, "classifier.0.weight": torch.zeros(2, 2)}


def linear_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith("lin")}


def assert_same(model: LPIPS, state: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_distances_agree_with_golden_figures(lpips: LPIPS) -> None:
    distances = lpips(GOLDEN["prediction"], GOLDEN["target"])
    assert distances.shape == (2, 5)
    torch.testing.assert_close(distances.flatten(), GOLDEN["lpips"], rtol=1e-4, atol=0)


def test_parameters_have_the_published_names_and_shapes(state: dict[str, torch.Tensor]) -> None:
    with safe_open(FOLDER / "losses.safetensors", "pt") as file:
        published = json.loads(file.metadata()["lpips_keys"])
    assert {f"loss.perceptual_loss.{name}": list(value.shape) for name, value in state.items()} == published


def test_pictures_score_as_the_frames_of_a_video(lpips: LPIPS) -> None:
    x, y = GOLDEN["prediction"][:1, :, :2, :32, :48], GOLDEN["target"][:1, :, :2, :32, :48]
    pictures = lpips(x[0].movedim(1, 0), y[0].movedim(1, 0))
    torch.testing.assert_close(pictures, lpips(x, y)[0])
    assert lpips(y, y).abs().max() == 0


def test_only_the_prediction_receives_a_gradient(lpips: LPIPS) -> None:
    x = GOLDEN["prediction"][0, :, :1, :32, :32].movedim(1, 0).clone().requires_grad_()
    y = GOLDEN["target"][0, :, :1, :32, :32].movedim(1, 0).clone().requires_grad_()
    lpips(x, y).sum().backward()
    assert y.grad is None
    assert x.grad is not None
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    step = 2e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        change = (lpips.double()(x.double() + step, y.double()) - lpips(x.double() - step, y.double())).sum() / 2
    lpips.float()
    assert change.item() == pytest.approx((x.grad * step).sum().item(), rel=0.05)


def test_black_frames_have_a_finite_gradient() -> None:
    model = LPIPS()
    for value in model.state_dict().values():
        value.zero_()
    model.scaling_layer.scale.fill_(1)
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    model(x, torch.ones(1, 3, 16, 16)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_autocast_gives_float32_close_to_full_precision(lpips: LPIPS) -> None:
    x, y = GOLDEN["prediction"][:1, :, :1], GOLDEN["target"][:1, :, :1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = lpips(x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, lpips(x, y), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 32, 32), "frames have 1 channels; LPIPS expects 3"),
        ((1, 3, 32, 15), "frames are 32 x 15 pixels; LPIPS expects at least 16 a side"),
    ],
)
def test_unfit_frames_are_refused(lpips: LPIPS, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(VidTokError, match=message):
        lpips(torch.zeros(shape), torch.zeros(shape))


def test_weights_from_two_published_files(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    # As they are published: the older format of PyTorch, without a zip archive.
    torch.save(torchvision_layout(state), tmp_path / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)
    torch.save(linear_layout(state), tmp_path / "vgg.pth", _use_new_zipfile_serialization=False)
    assert_same(LPIPS.from_weights([tmp_path / "vgg16-397923af.pth", str(tmp_path / "vgg.pth")]), state)
    (tmp_path / "notes.txt").write_text("not weights")
    assert_same(LPIPS.from_weights(tmp_path), state)


def test_weights_from_the_usual_places(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]
) -> None:
    save_file(torchvision_layout(state), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, name: str(tmp_path / name) if repository == "timm/vgg16.tv_in1k" else None,
    )
    package = tmp_path / "packages" / "a_package_with_lpips"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('this package was imported')")
    torch.save(linear_layout(state), package / "vgg.pth")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr("vidtok.metrics.lpips_weights._PACKAGES", {package.name: "vgg.pth"})
    assert_same(LPIPS.from_weights(), state)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_weights_from_a_training_checkpoint(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    checkpoint = {f"loss.perceptual_loss.{name}": value for name, value in state.items()}
    checkpoint |= {"encoder.conv_in.weight": torch.zeros(3), "loss.logvar": torch.zeros(())}
    file = tmp_path / f"model.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": checkpoint, "epoch": 3}, file)
    else:
        save_file(checkpoint, file)
    assert_same(LPIPS.from_weights(file), state)


def test_missing_weights_say_what_to_do(bare_machine: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(LPIPSWeightsError) as caught:
        LPIPS.from_weights()
    for part in (
        "LPIPS lacks VGG16 and its linear layers (31 tensors",
        "looked into: no file",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "hf download timm/vgg16.tv_in1k model.safetensors",
        "lpips/weights/v0.1/vgg.pth",
        f"Put them into {bare_machine}",
        "`vidtok metrics install lpips` gets both",
        "or name their paths (or set VIDTOK_LPIPS to them); a VidTok checkpoint with a loss.perceptual_loss section",
    ):
        assert part in str(caught.value)
    torch.save(torchvision_layout(state), bare_machine / "vgg16-397923af.pth")
    with pytest.raises(
        LPIPSWeightsError, match=r"lacks its linear layers \(5 tensors.*looked into: .*vgg16-397923af.pth\)"
    ):
        LPIPS.from_weights()


class Planted:
    """Unpickling this writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.file, "ran")


def test_files_that_cannot_be_used_are_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(LPIPSWeightsError, match=r"absent.pth does not exist; expected a file or folder"):
        LPIPS.from_weights(tmp_path / "absent.pth")
    whole = tmp_path / "whole.pth"
    torch.save(linear_layout(state), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for name in ("cut.pth", "cut.safetensors"):
        with pytest.raises(
            LPIPSWeightsError, match=rf"{name} cannot be read as weights .*Fetch it again, or name another"
        ):
            LPIPS.from_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(LPIPSWeightsError, match=r"list.pth holds a list; expected a mapping of names to tensors"):
        LPIPS.from_weights(tmp_path / "list.pth")


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"lin0.model.1.weight": Planted(tmp_path / "trace")}, tmp_path / "planted.pth")
    with pytest.raises(LPIPSWeightsError, match=r"planted.pth cannot be read as weights"):
        LPIPS.from_weights(tmp_path / "planted.pth")
    assert not (tmp_path / "trace").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"features.2.weight": torch.zeros(192, 64, 5, 5)}, tmp_path / "other.pth")
    with pytest.raises(
        LPIPSWeightsError, match=r"other.pth: net.slice1.2.weight is \(192, 64, 5, 5\); expected \(64, 64"
    ):
        LPIPS.from_weights(tmp_path / "other.pth")
    damaged = linear_layout(state) | {"lin0.model.1.weight": torch.full((1, 64, 1, 1), float("nan"))}
    torch.save(damaged, tmp_path / "nan.pth")
    with pytest.raises(LPIPSWeightsError, match=r"nan.pth: lin0.model.1.weight holds values that are not finite"):
        LPIPS.from_weights(tmp_path / "nan.pth")
