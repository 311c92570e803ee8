"""What people do with PyTorch modules: transforms, copies, layouts, sharding and values of another range."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from support import make_clip
from tiny import FSQ_1_1, KL_1_1, KL_NONCAUSAL, tiny_model
from vidtok import Tokenizer
from vidtok.errors import VideoError
from vidtok.video import to_uint8


@pytest.mark.parametrize("name", [FSQ_1_1, KL_1_1])
def test_vmap_of_encode_and_decode_gives_what_a_loop_gives(name: str) -> None:
    model = tiny_model(name)
    videos = make_clip(2, 3, 9, 16, 16).unsqueeze(1)
    z = torch.stack([model.encode(video, sample=False) for video in videos])
    torch.testing.assert_close(
        torch.vmap(lambda video: model.encode(video, sample=False))(videos), z, atol=1e-5, rtol=0
    )
    decoded = torch.stack([model.decode(each) for each in z])
    torch.testing.assert_close(torch.vmap(model.decode)(z), decoded, atol=5e-5, rtol=0)
    if name == FSQ_1_1:
        indices = torch.stack([model.encode(video, True)[1]["indices"] for video in videos])
        mapped = torch.vmap(lambda each: model.decode(each, True))(indices)
        torch.testing.assert_close(mapped, decoded, atol=5e-5, rtol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_layouts_change_nothing(copied: object) -> None:
    model = tiny_model(FSQ_1_1)
    video = make_clip(1, 3, 9, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    before, expected = video.clone(), model.encode(video.contiguous())
    assert torch.equal(copied(model).encode(video), expected)  # type: ignore[operator]
    assert torch.equal(video, before)
    with torch.inference_mode():
        torch.testing.assert_close(model.decode(model.encode(video)), model.decode(expected), atol=0, rtol=0)
    weights: dict[str, Tensor] = {name: 0.5 * value for name, value in model.state_dict().items()}
    halved = torch.func.functional_call(model, weights, (video,))
    model.load_state_dict(weights)
    torch.testing.assert_close(halved[1], model(video)[1], atol=1e-6, rtol=0)


def test_values_of_another_range_are_refused() -> None:
    model = tiny_model(FSQ_1_1)
    pixels = 127.5 * (make_clip(1, 3, 5, 16, 16).clamp(-1, 1) + 1)
    with pytest.raises(ValueError, match=r"run from .* to .*; expected -1\.\.1: divide values of 0\.\.255 by 127\.5"):
        model.encode(pixels)
    with pytest.raises(ValueError, match=r"divide values of 0\.\.255 by 127\.5"):
        model.encode_stream().push(pixels)
    with pytest.raises(ValueError, match="the latent is a list; expected a tensor"):
        model.decode_stream().push([0.5])  # type: ignore[arg-type]
    assert model.encode(3 * make_clip(1, 3, 5, 16, 16)).shape[2] == 2
    with pytest.raises(VideoError, match="pixels that are NaN"):
        to_uint8(torch.full((1, 3, 1, 2, 2), torch.nan))


def test_weights_saved_of_compiled_parts_are_those_of_the_model(tmp_path: Path) -> None:
    model = tiny_model(FSQ_1_1)
    plain = model.state_dict()
    whole = torch.compile(model, backend="eager")
    torch.save(whole.state_dict(), tmp_path / "whole.ckpt")  # type: ignore[attr-defined]
    model.encoder = torch.compile(model.encoder, backend="eager")  # type: ignore[assignment]
    assert any("_orig_mod." in name for name in model.state_dict())
    assert model.named_weights().keys() == plain.keys()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "parts.ckpt")
    for saved in ("whole", "parts"):
        other = tiny_model(FSQ_1_1)
        for weight in other.parameters():
            weight.zero_()
        other.init_from_ckpt(tmp_path / f"{saved}.ckpt")
        assert all(torch.equal(value, plain[name]) for name, value in other.state_dict().items())


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A group of one process, and its mesh."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", [FSQ_1_1, KL_NONCAUSAL])
def test_sharded_parts_give_what_whole_ones_give(name: str, one_process: DeviceMesh) -> None:
    model = tiny_model(name)
    video = make_clip(1, 3, 9 if model.is_causal else 8, 16, 16)
    z = model.encode(video, sample=False)
    expected = model.decode(z)
    for part in (model.encoder, model.decoder):
        for block in part.modules():
            if isinstance(block, model.sharded_blocks):
                fully_shard(block, mesh=one_process)
        fully_shard(part, mesh=one_process)
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    torch.testing.assert_close(model.encode(video, sample=False), z, atol=5e-5, rtol=0)
    torch.testing.assert_close(model.decode(z), expected, atol=5e-5, rtol=0)
    with torch.enable_grad():
        model(video, sample=False)[1].square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def _encode_in(rank: int, model: Tokenizer, video: Tensor, path: str) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        torch.save(model.encode(video, sample=False), path)


@pytest.mark.slow
def test_a_spawned_process_takes_a_model(tmp_path: Path) -> None:
    model = tiny_model(FSQ_1_1)
    video = make_clip(1, 3, 9, 16, 16)
    mp.spawn(_encode_in, args=(model, video, str(tmp_path / "z")), nprocs=1)
    assert torch.equal(torch.load(tmp_path / "z"), model.encode(video, sample=False))
