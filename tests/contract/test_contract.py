"""Families and a quantizer from `families.py` go through all that the package does, untouched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.families import PairsConfig, SignsConfig, TriplesConfig, registered
from tests.training.run_files import CLIPS_AND_TRAINER, differing, last, train
from torch import Tensor

import vidtok
from support import make_clip, small_config
from tiny import write_video
from vidtok import KLConfig, Tiling, Tokenizer, VidTokError, tokens
from vidtok.cli import main
from vidtok.jobs import DecodeOptions, EncodeOptions, decode_file, encode_file
from vidtok.models.config import BottleneckConfig
from vidtok.models.padding import encoded_frames
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.run import run
from vidtok.video import read_video, to_float

SIGNS, KL = SignsConfig(bits=6), KLConfig()
VIDTOK = "vidtok_kl_causal_488_4chn_v1_1"


def make(kind: str) -> Tokenizer:
    """The model of one kind, with the same weights each time."""
    family, bottleneck = kind.split("-")
    chosen: BottleneckConfig = SIGNS if bottleneck == "signs" else KL
    configs: dict[str, Any] = {
        "triples": lambda: TriplesConfig(bottleneck=chosen),
        "pairs": lambda: PairsConfig(bottleneck=chosen),
        "vidtok": lambda: small_config(
            VIDTOK, z_channels=6, bottleneck=chosen, ch_mult=(1, 1, 1, 1), num_res_blocks=1, ch=8
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokenizer(configs[family](), name=kind).eval()


KINDS = ("triples-kl", "triples-signs", "pairs-kl", "pairs-signs", "vidtok-signs")
EACH_ONCE = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("triples-signs", "pairs-kl") else kind for kind in KINDS
]
"""For what takes seconds: every family and every bottleneck, and the other pairs of them where slow tests run."""
CAUSAL = ("triples-kl", "triples-signs", "vidtok-signs")
FRAMES = 41


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    with registered():
        yield


@cache
def model_of(kind: str) -> Tokenizer:
    return make(kind)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", FRAMES, 64, 96)


def clip(frames: int = 10, height: int = 12, width: int = 16) -> Tensor:
    return make_clip(1, 3, frames, height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_says_what_it_is(kind: str) -> None:
    model = model_of(kind)
    assert isinstance(model, Tokenizer)
    family, bottleneck = kind.split("-")
    assert model.name == kind
    assert model.temporal_factor == {"triples": 3, "pairs": 2, "vidtok": 4}[family]
    assert model.spatial_factor == (8 if family == "vidtok" else 4)
    assert model.z_channels == 6
    assert model.codebook_size == (64 if bottleneck == "signs" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_any_size_go_there_and_back(kind: str) -> None:
    model, video = model_of(kind), clip(7, 13, 18)
    z, log = model.encode(video, True, sample=False)
    assert z.shape[:3] == (1, 6, encoded_frames(7, model.config))
    assert model.decode(z, size=(7, 13, 18)).shape == video.shape
    packed = model.encode_packed(video)
    assert torch.equal(model.decode_packed(packed), model.decode(z))
    if model.codebook_size is not None:
        assert torch.equal(model.decode(log["indices"], decode_from_indices=True), model.decode(z))
        assert int(log["indices"].max()) < model.codebook_size
    assert torch.equal(model(video, sample=False)[1], model.decode(z, size=(7, 13, 18)))


@pytest.mark.parametrize("kind", CAUSAL)
@settings(deadline=None, max_examples=10, derandomize=True)
@given(data=st.data())
def test_streams_cut_anywhere_are_the_whole(kind: str, data: st.DataObject) -> None:
    model = make(kind).double()
    video = clip(data.draw(st.integers(1, 20))).double()
    cuts = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=20))
    with torch.no_grad(), model.encode_stream(sample=False) as stream:
        at, found = 0, []
        while at < video.shape[2]:
            step = cuts[len(found) % len(cuts)]
            found.append(stream.push(video[:, :, at : at + step]))
            at += step
        z = torch.cat([*found, stream.flush()], 2)
    torch.testing.assert_close(z, model.encode(video, sample=False), atol=1e-9, rtol=0)
    with torch.no_grad(), model.decode_stream(size=tuple(video.shape[2:])) as back:
        pieces = [back.push(piece) for piece in torch.split(z, cuts[0], 2)]
        streamed = torch.cat([*pieces, back.flush()], 2)
    torch.testing.assert_close(streamed, model.decode(z, size=tuple(video.shape[2:])), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CAUSAL])
def test_a_non_causal_model_refuses_to_stream(kind: str) -> None:
    with pytest.raises(ValueError, match="non-causal model sees whole clips only"):
        model_of(kind).encode_stream()
    with pytest.raises(ValueError, match="non-causal model sees whole clips only"):
        model_of(kind).decode_stream()


@pytest.mark.parametrize("kind", ["triples-kl", "triples-signs", "pairs-kl", "pairs-signs"])
def test_tiles_of_a_model_that_sees_patches_alone_change_nothing(kind: str) -> None:
    """In a stream and in one piece: patches do not see each other, so tiles are exact but for their float32 weights."""
    model, video = make(kind).double(), clip(8, 72, 136).double()
    tiled = model.with_tiling(Tiling(64, 16))
    z = model.encode(video, sample=False)
    torch.testing.assert_close(tiled.encode(video, sample=False), z, atol=1e-6, rtol=0)
    torch.testing.assert_close(tiled.decode(z), model.decode(z), atol=1e-6, rtol=0)
    if model.is_causal:
        with torch.no_grad(), tiled.encode_stream(sample=False) as stream:
            streamed = torch.cat([stream.push(video[:, :, :5]), stream.push(video[:, :, 5:]), stream.flush()], 2)
        torch.testing.assert_close(streamed, z, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_tokens_whole_and_in_part(kind: str, video: Path, tmp_path: Path) -> None:
    model, path = model_of(kind), tmp_path / "a.vtok"
    encoded = encode_file(
        model, video, path, EncodeOptions(chunk_frames=12, coding=None if "signs" in kind else "float32")
    )
    assert encoded.frames == FRAMES
    whole = decode_file(model, path, tmp_path / "whole.mp4")
    assert whole.frames == FRAMES
    with tokens.read(path) as file:
        assert file.header.latent.levels == ((2,) * 6 if "signs" in kind else None)
        from vidtok.jobs import Decoding

        everything = torch.cat(list(Decoding(model, file)), 2)
        part = torch.cat(list(Decoding(model, file, 20, 29)), 2)
    torch.testing.assert_close(part, everything[:, :, 20:29], atol=1e-5, rtol=0)
    cut = decode_file(model, path, tmp_path / "part.mp4", DecodeOptions(start="20f", end="29f"))
    assert cut.frames == 9
    assert cut.latents < whole.latents or not model.is_causal


def test_one_wrong_bottleneck_field_is_another_model(video: Path, tmp_path: Path) -> None:
    """Two bottlenecks that differ in any value have different hashes."""
    encode_file(model_of("triples-signs"), video, tmp_path / "a.vtok")
    other = Tokenizer(TriplesConfig(bottleneck=SignsConfig(bits=6, spread=2.0)), name="other")
    other.load_state_dict(model_of("triples-signs").state_dict())
    with pytest.raises(VidTokError, match=r"was made with triples-signs, which is not this other \(configurations"):
        decode_file(other, tmp_path / "a.vtok", tmp_path / "a.mp4", allow_other=True)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruct_with_a_budget(kind: str, video: Path, tmp_path: Path) -> None:
    model = model_of(kind)
    plain = model.reconstruct(video, tmp_path / "plain.mp4")
    assert (plain.frames, plain.codebook_size) == (FRAMES, model.codebook_size)
    limited = model.reconstruct(video, tmp_path / "limited.mp4", max_memory="40GB")
    assert limited.psnr == pytest.approx(plain.psnr, abs=1e-3)
    frames = to_float(read_video(video))
    if model.is_causal:
        from vidtok.metrics.image import psnr

        expected = psnr(model(frames, sample=False)[1].clamp(-1, 1), frames).mean()
        assert plain.psnr == pytest.approx(float(expected), abs=1e-3)
    with pytest.raises(VidTokError, match=r"max_memory is 1MB, but .* needs about"):
        model.reconstruct(video, tmp_path / "none.mp4", max_memory="1MB")


@pytest.mark.parametrize("kind", EACH_ONCE)
def test_saved_loaded_and_evaluated(kind: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of(kind)
    folder = model.save_pretrained(tmp_path / kind)
    again = vidtok.load(folder)
    assert type(again) is type(model)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    out = tmp_path / "results"
    code = main(
        ["evaluate", str(video), "--model", str(folder), "--size", "64", "--out", str(out), "--baseline", "pca"]
    )
    assert code == 0, capsys.readouterr().err
    result = json.loads((out / f"{kind}.json").read_text())
    assert result["overall"]["psnr"]["frames"] == FRAMES
    assert (result["codebook"] is not None) == ("signs" in kind)
    assert np.isfinite(result["overall"]["psnr"]["mean"])


_MODEL = """\
model:
  base_learning_rate: 1.0e-3
  target: {target}
  params:
    monitor: val/rec_loss
    config:
{config}
    loss_config:
      target: vidtok.modules.losses.GeneralLPIPSWithDiscriminator
      params:
        perceptual_weight: 0.0
        disc_weight: 0.2
        disc_start: 3
        regularization_weights: {{{loss}: 1.0e-3}}
"""


def write_training(path: Path, kind: str) -> Path:
    model = model_of(kind)
    values = "\n".join(f"      {key}: {json.dumps(value)}" for key, value in model.config.to_dict().items())
    loss = model.config.bottleneck.losses[0]
    frames = 3 * model.temporal_factor + model.is_causal
    text = _MODEL + CLIPS_AND_TRAINER
    path.write_text(text.format(target=model.config.family, config=values, loss=loss, frames=frames))
    return path


@pytest.mark.gradients
@pytest.mark.parametrize("kind", EACH_ONCE)
def test_three_steps_of_training_and_going_on(kind: str, tmp_path: Path) -> None:
    config = write_training(tmp_path / "run.yaml", kind)
    whole = train(config, tmp_path / "whole", "--max_steps", "6", "--no-test")  # two optimisations a step
    half = train(config, tmp_path / "half", "--max_steps", "4", "--no-test")
    resumed = run(parse_arguments(["-r", str(half), "--max_steps", "6", "--no-test"]))
    assert differing(last(resumed), last(whole)) == []
    trained = vidtok.load(whole)
    assert type(trained) is type(model_of(kind))
    assert trained.config.to_dict() == model_of(kind).config.to_dict()
    start = Tokenizer(trained.config).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("kind", EACH_ONCE)
def test_a_decoder_of_its_own(kind: str, tmp_path: Path) -> None:
    from vidtok.models.decoders.config import FastConfig
    from vidtok.models.decoders.make import make_decoder

    model = model_of(kind)
    own = make_decoder(
        FastConfig(ch=8, ch_mult=(1,), num_res_blocks=1, patch_size=model.spatial_factor), model.config
    ).eval()
    fast = model.with_decoder(own, "fast")
    fast.save_pretrained(tmp_path / "fast", parts="decoder")
    loaded = vidtok.load(model.save_pretrained(tmp_path / "model"), decoder=tmp_path / "fast")
    z = torch.randn(1, model.z_channels, 4, 3, 5)
    whole = loaded.decode(z)
    assert torch.equal(whole, fast.decode(z))
    assert whole.shape == model.decode(z).shape
    if model.is_causal:
        stream = loaded.decode_stream()
        streamed = torch.cat([stream.push(z[:, :, :1]), stream.push(z[:, :, 1:]), stream.flush()], 2)
        assert torch.allclose(streamed, whole, atol=1e-5)
