import collections
import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from vidtok.errors import CheckpointError
from vidtok.zoo.checkpoint import load_state, read_checkpoint


class Small(nn.Module):
    """Two weights, one of which is in a name's part of its own, and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(value.shape).to(value.dtype) for name, value in Small().state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def extras() -> dict[str, Tensor]:
    return {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.ones(2, 2)}


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    """What Lightning writes beside the weights."""
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": collections.OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/rec_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
        ],
        "lr_schedulers": [],
        "MixedPrecision": None,
    }


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ""])
def test_bare_and_under_state_dict(tmp_path: Path, state: dict[str, Tensor], suffix: str) -> None:
    torch.save(state, tmp_path / f"bare{suffix}")
    torch.save(lightning({**state, **extras()}), tmp_path / f"whole{suffix}")
    assert same(read_checkpoint(tmp_path / f"bare{suffix}"), state)
    assert same(read_checkpoint(str(tmp_path / f"whole{suffix}")), state)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_safetensors(tmp_path: Path, state: dict[str, Tensor], suffix: str) -> None:
    save_file({**state, **extras()}, tmp_path / f"model{suffix}")
    read = read_checkpoint(tmp_path / f"model{suffix}")
    assert same(dict(sorted(read.items())), dict(sorted(state.items())))


def test_marks_of_compile_and_data_parallelism_are_removed(tmp_path: Path, state: dict[str, Tensor]) -> None:
    marked = {"module." + name.replace("encoder.", "encoder._orig_mod."): value for name, value in state.items()}
    torch.save({**marked, "module.loss.logvar": torch.zeros(())}, tmp_path / "model.ckpt")
    assert same(read_checkpoint(tmp_path / "model.ckpt"), state)


def test_moving_averages_take_the_weights_place_when_asked_for(tmp_path: Path, state: dict[str, Tensor]) -> None:
    averages = {
        "model_ema.decay": torch.tensor(0.999),
        "model_ema.num_updates": torch.tensor(7),
        "model_ema.encoderweight": state["encoder.weight"] + 1,
        "model_ema.encoderbias": state["encoder.bias"] + 1,
        "model_ema.losslogvar": torch.zeros(()),
    }
    torch.save({"state_dict": {**state, **extras(), **averages}}, tmp_path / "model.ckpt")
    assert same(read_checkpoint(tmp_path / "model.ckpt"), state)
    read = read_checkpoint(tmp_path / "model.ckpt", ema=True)
    expected = {name: value + 1 if name.startswith("encoder") else value for name, value in state.items()}
    assert same(read, expected)


def test_averages_that_are_not_there(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "model.ckpt")
    with pytest.raises(
        CheckpointError, match=r"model\.ckpt holds no moving averages \(model_ema\.\*\); load its weights"
    ):
        read_checkpoint(tmp_path / "model.ckpt", ema=True)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


class Thing:
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    sprung = tmp_path / "sprung"
    content = {"state_dict": state, "callbacks": Trap(sprung)}
    torch.save(content, tmp_path / "trap.ckpt", _use_new_zipfile_serialization=zipped)
    expected = r"holds pickled code or objects \(\w+\.mkdir\) and was refused; nothing in it was run\. If you trust"
    with pytest.raises(
        CheckpointError, match=expected if zipped else "a pickle or a PyTorch file from before version 1.6"
    ):
        read_checkpoint(tmp_path / "trap.ckpt")
    assert not sprung.exists()
    torch.load(tmp_path / "trap.ckpt", weights_only=False)
    assert sprung.exists(), "the trap would not have sprung"


def test_objects_are_refused_too(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"state_dict": state, "hyper_parameters": Thing()}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt holds pickled code or objects \(.*Thing\) and was refused"):
        read_checkpoint(tmp_path / "a.ckpt")
    torch.save(nn.Linear(1, 1), tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"\(torch\.nn\.modules\.linear\.Linear\) and was refused"):
        read_checkpoint(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"the checkpoint .*model\.ckpt is empty; fetch it again"),
        (
            b"\xff\xd8\xff\xe0\x00\x10JFIF",
            r"model\.ckpt is not a checkpoint but seems to be a JPEG picture; expected a \.",
        ),
        (b"\x89PNG\r\n", r"is not a checkpoint but seems to be a PNG picture"),
        (b"\n<!doctype html><html>404</html>", r"but seems to be a web page, as a download that failed leaves it"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            r"but seems to be a Git LFS pointer, which stands for a file",
        ),
        (b"\x80\x02}q\x00.", r"but seems to be a pickle or a PyTorch file from before version 1\.6"),
        (
            b"hello world",
            r"model\.ckpt is not a checkpoint \(it begins with b'hello wo'\); expected a \.safetensors or",
        ),
        (
            b"PK\x03\x04 and no more",
            r"model\.ckpt is damaged or truncated, or no file of weights \(.*\); fetch it again",
        ),
        (b"\x20\0\0\0\0\0\0\0{not json" + b" " * 40, r"model\.ckpt is damaged or truncated, or no file of weights \("),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(path)


def test_a_zip_file_of_another_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("document.xml", "<a/>")
    with pytest.raises(CheckpointError, match="is damaged or truncated, or no file of weights"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder; expected a checkpoint file"):
        read_checkpoint(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"the checkpoint .*gone\.ckpt does not exist; expected a \.safetensors or"
    ):
        read_checkpoint(tmp_path / "gone.ckpt")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be read: Not a directory"):
        read_checkpoint(tmp_path / "file" / "model.ckpt")


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_damaged(tmp_path_factory: pytest.TempPathFactory, kind: str, share: float) -> None:
    path = tmp_path_factory.getbasetemp() / f"model.{kind}"
    state = {"weight": torch.arange(1000.0)}
    if kind == "ckpt":
        torch.save(state, path)
    else:
        save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**31), st.integers(0, 255), st.sampled_from(["ckpt", "safetensors"]))
def test_a_flipped_byte_brings_nothing_but_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"flipped.{kind}"
    state = {"weight": torch.arange(3.0), "bias": torch.zeros(1)}
    if kind == "ckpt":
        torch.save(state, path)
    else:
        save_file(state, path)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):  # some flips do no harm
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], r"model\.ckpt holds a list; expected a state dict, or one under 'state_dict'"),
        ({}, r"model\.ckpt holds nothing; expected a state dict \(name -> tensor\)"),
        ({"state_dict": {}}, r"holds nothing; expected"),
        (
            {"model": {"a": 1}, "step": 1, "x": 2, "y": 3},
            r"holds under 'model', 'step', 'x' and 1 more no tensors; expected",
        ),
        ({3: torch.zeros(1)}, r"holds under 3 no tensors"),
        ({(1, "a"): torch.zeros(1)}, r"holds under a tuple no tensors"),
        ({torch.arange(99): torch.zeros(1)}, r"holds under a Tensor no tensors"),
        ({"a\nb": 3}, r"holds under 'a\\nb' no tensors"),
        ({"a": torch.zeros(2, device="meta")}, r"holds under 'a' no tensors"),
        ({"a": torch.eye(2).to_sparse()}, r"holds under 'a' no tensors"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, r"holds under 'a' no tensors"),
    ],
)
def test_content_that_is_no_state_dict(tmp_path: Path, content: Any, expected: str) -> None:
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_in_the_models_dtype_and_own_memory(
    tmp_path: Path, state: dict[str, Tensor], device: str, dtype: torch.dtype
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with torch.device(device):
        model = Small().to(dtype)
    model.encoder.weight.requires_grad_(False)
    load_state(model, read_checkpoint(path), str(path))
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in state.items())
    assert loaded["encoder.weight"].dtype == dtype
    assert loaded["norm.num_batches_tracked"].dtype == torch.int64
    assert not model.encoder.weight.requires_grad
    assert model.encoder.bias.requires_grad


def test_loading_into_memory_keeps_the_parameters_themselves(state: dict[str, Tensor]) -> None:
    model = Small()
    before = model.encoder.weight
    load_state(model, state, "here")
    assert model.encoder.weight is before


def test_one_error_lists_all_that_does_not_fit(state: dict[str, Tensor]) -> None:
    model = Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del state["encoder.weight"]
    state["encoder.bias"] = torch.zeros(4)
    state |= {f"decoder.{i}.weight": torch.zeros(1) for i in range(5)}
    with pytest.raises(CheckpointError) as caught:
        load_state(model, state, "model.ckpt")
    assert str(caught.value) == (
        "model.ckpt does not fit the model: 1 missing (encoder.weight), "
        "5 unexpected (decoder.0.weight, decoder.1.weight, decoder.2.weight and 2 more), "
        "1 misshapen (encoder.bias is [4], not [3]); it is of none of the published models"
    )
    assert same(model.state_dict(), before)


PublishedShapes = Callable[[str], dict[str, tuple[int, ...]]]


class Shaped(nn.Module):
    """A module whose parameters have the names and shapes given, and no memory."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for key, shape in shapes.items():
            *path, last = key.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(last, nn.Parameter(torch.empty(shape, device="meta")))


def test_another_models_checkpoint_is_recognised(published_shapes: PublishedShapes) -> None:
    model = Shaped(published_shapes("vidtok_kl_causal_488_4chn"))
    other = Shaped(published_shapes("vidtok_fsq_causal_488_32768")).state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_state(model, other, "model.ckpt")
    assert str(caught.value) == (
        "model.ckpt does not fit the model: 3 misshapen (encoder.conv_out.conv.weight is [5, 512, 3, 3, 3], not "
        "[8, 512, 3, 3, 3], encoder.conv_out.conv.bias is [5], not [8], decoder.conv_in.conv.weight is "
        "[512, 5, 3, 3, 3], not [512, 4, 3, 3, 3]); "
        "it is of vidtok_fsq_causal_488_32768 or vidtok_fsq_causal_488_32768_v1_1: load it with that configuration"
    )


def test_an_incomplete_checkpoint_of_the_same_model_is_called_so(published_shapes: PublishedShapes) -> None:
    model = Shaped(published_shapes("vidtok_kl_causal_488_4chn"))
    part = model.state_dict()
    del part["decoder.mid.block_1.conv1.conv.weight"]
    words = r"1 missing \(.*\); it is of this model, but lacks some weights or has others besides"
    with pytest.raises(CheckpointError, match=words):
        load_state(model, part, "model.ckpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(state: dict[str, Tensor], value: float) -> None:
    model = Small()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state["norm.weight"][1] = value
    state["encoder.bias"][0] = value
    expected = r"model\.ckpt holds NaN, infinity or values beyond float32 in encoder\.bias, norm\.weight; the training"
    with pytest.raises(CheckpointError, match=expected):
        load_state(model, state, "model.ckpt")
    assert same(model.state_dict(), before)


def test_weights_that_are_whole_numbers(state: dict[str, Tensor]) -> None:
    state["norm.weight"] = torch.ones(3, dtype=torch.int64)
    state["encoder.bias"] = torch.ones(3, dtype=torch.bool)
    expected = r"does not fit the model: 2 of whole numbers \(encoder\.bias is bool, norm\.weight is int64\); it is"
    with pytest.raises(CheckpointError, match=expected):
        load_state(Small(), state, "model.ckpt")


def test_names_of_several_lines_stay_on_one(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"^model\.ckpt does .* 1 unexpected \('a\\n\\x1bb'\); it is") as caught:
        load_state(Small(), {**state, "a\n\x1bb": torch.zeros(1)}, "model.ckpt")
    assert "\n" not in str(caught.value)


def test_long_names_are_shortened(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_state(Small(), {**state, "x" * 5000: torch.zeros(1)}, "model.ckpt")
    assert len(str(caught.value)) < 250
    torch.save({"x" * 5000: torch.zeros(2, 2, dtype=torch.int8)}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"holds x{77}\.\.\. in int8, and no factor for each of its 2 channels"):
        read_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("value", [torch.zeros(2, dtype=torch.complex64)])
def test_safetensors_of_other_kinds(tmp_path: Path, value: Tensor) -> None:
    save_file({"a": value}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds under 'a' no tensors; expected a state dict"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_weights_beyond_the_models_dtype(state: dict[str, Tensor]) -> None:
    state["encoder.bias"][0] = 1e6
    load_state(Small(), state, "model.ckpt")
    with pytest.raises(CheckpointError, match=r"values beyond float16 in encoder\.bias; "):
        load_state(Small().half(), state, "model.ckpt")
