"""What people do with PyTorch modules: transforms, copies, layouts and values of another range."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from support import make_clip
from tiny import FSQ_1_1, KL_1_1, tiny_model
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
