"""The second family behind the public face of the first: loading, saving, files of video and of latents."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import vidtok
from support import make_clip
from tiny import FSQ_1_0, KL_1_0, draw, tiny_model, write_model, write_video
from twin import CONFIG, NAME, SIDE, tiny_twin, write_twin
from vidtok import CheckpointError, ConfigError, Tokenizer, TwinLatent, VidTokError, VidTwin, tokens
from vidtok.cli import main
from vidtok.config import registry
from vidtok.config.read import read_config
from vidtok.jobs import DecodeOptions, EncodeOptions, decode_file, encode_file
from vidtok.tokens import TokenFileError
from vidtok.tokens.container import STREAMS_VERSION
from vidtok.tokens.header import TokenHeader
from vidtok.video import read_video, to_float
from vidtok.zoo.matching import fitting_models

FRAMES = 21


@pytest.fixture(scope="module")
def twin() -> VidTwin:
    return tiny_twin()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "in.mp4", FRAMES, 40, 56)


def same(one: TwinLatent, other: TwinLatent) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_class_follows_from_the_configuration() -> None:
    model = Tokenizer(CONFIG, name="mine")
    assert type(model) is VidTwin
    assert isinstance(model, Tokenizer)
    assert model.name == "mine"
    assert type(copy.deepcopy(model)) is VidTwin


def test_yaml_and_checkpoints_of_each_kind(tmp_path: Path, twin: VidTwin) -> None:
    files = write_twin(tmp_path)
    clip = make_clip(1, 3, 16, SIDE, SIDE)
    expected = twin.encode(clip, sample=False)
    derived = {name: torch.zeros(1, 2, 3, dtype=torch.float64) for name in VidTwin.derived}
    more = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.tensor(0.9)}
    torch.save({**twin.state_dict(), **derived, **more}, tmp_path / "bare.ckpt")
    save_file(twin.state_dict(), tmp_path / "model.safetensors")
    for name in ("twin.ckpt", "bare.ckpt", "model.safetensors"):
        loaded = vidtok.load(files.config, tmp_path / name)
        assert type(loaded) is VidTwin
        assert loaded.config == CONFIG
        assert not loaded.training
        assert same(loaded.encode(clip, sample=False), expected)


def test_saved_folder_loads_back(tmp_path: Path, twin: VidTwin, capsys: pytest.CaptureFixture[str]) -> None:
    folder = twin.save_pretrained(tmp_path / "saved")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "vidtwin"
    loaded = vidtok.load(folder, dtype=torch.bfloat16)
    assert (type(loaded), loaded.name, loaded.dtype) == (VidTwin, "twin", torch.bfloat16)
    assert type(VidTwin.from_pretrained(folder)) is VidTwin
    assert main(["export", str(folder), str(tmp_path / "other"), "--rescale"]) == 2
    assert "twin has no residual stream to rescale; leave --rescale out" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_by_name_and_by_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both lead to the same weights; at full width, so that only what is asked for is looked at."""
    asked: list[tuple[str, str]] = []

    def download(repo: str, file: str, wanted_for: str) -> Path:
        asked.append((repo, file))
        return tmp_path / "none.ckpt"

    monkeypatch.setattr("vidtok.zoo.hub.cached_file", lambda repo, file: None)
    monkeypatch.setattr("vidtok.zoo.hub.download_file", download)
    for source in (NAME, "microsoft/vidtwin"):
        with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist"):
            vidtok.load(source)
    assert asked == [("microsoft/vidtwin", f"checkpoints/{NAME}.ckpt")] * 2
    with pytest.raises(ConfigError, match="microsoft/VidTok holds 23 models; give the name of one, such as vidtok_kl"):
        vidtok.load("microsoft/VidTok")


def test_weights_of_other_models_are_told_apart(tmp_path: Path, published_twin: dict[str, tuple[int, ...]]) -> None:
    assert fitting_models(published_twin) == [NAME]
    assert fitting_models({**published_twin, "bottle_down.weight": (8, 256, 3, 3)}) == []
    assert fitting_models({k: v for k, v in published_twin.items() if "decoder.blocks.15" not in k}) == []
    files, other = write_twin(tmp_path), write_model(tmp_path, KL_1_0)
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: 1\d\d missing .* of none of the published models"
    ):
        vidtok.load(files.config, other.checkpoint)
    with pytest.raises(CheckpointError, match=r"missing .* unexpected \(.*; it is of none"):
        vidtok.load(other.config, files.checkpoint)


@pytest.fixture(scope="module")
def published_twin() -> dict[str, tuple[int, ...]]:
    path = Path(__file__).parent / "golden" / "state_dict" / "vidtwin.json"
    return {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}


def test_the_published_file_and_its_values() -> None:
    run = read_config(NAME)
    assert run.model == vidtok.VidTwinConfig()
    params = run.raw["model"]["params"]
    assert run.raw["model"]["base_learning_rate"] == 1.6e-4
    assert params["optimizer_config"]["params"] == {"betas": [0.0, 0.9], "weight_decay": 1e-4}
    loss = params["loss_config"]["params"]
    assert (loss["perceptual_weight"], loss["disc_weight"]) == (0.05, 0.05)
    assert loss["regularization_weights"] == {"kl_loss": 1e-3}
    known = registry.entry(NAME)
    assert (known.family, known.hub_repo, known.psnr) == ("vidtwin", "microsoft/vidtwin", 28.14)


def changed(key: str, value: Any) -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(read_config(NAME).raw)
    *path, last = key.split(".")
    section = raw["model"]["params"]
    for name in path:
        section = section[name]
    section[last] = value
    return raw


ENCODER, DECODER, QFORMER = "encoder_config", "decoder_config", "temporal_qformer_config"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("expect_chs", 8, r"model\.params\.expect_chs is not known \(did you mean expect_ch\?\)"),
        ("downsample_motion", False, r"model\.params\.downsample_motion is False; the family knows True alone"),
        (f"{ENCODER}.params.depht", 8, r"encoder_config\.params\.depht is not known \(did you mean depth\?\)"),
        (f"{ENCODER}.params.drop_path", 0.1, r"encoder_config\.params\.drop_path is 0\.1; the family knows 0\.0 alone"),
        (f"{DECODER}.params.depth", 8, r"encoder_config\.params\.depth is 16 and .*\.depth 8; expected"),
        (f"{ENCODER}.params.fix_encoder", 1, r"fix_encoder is .*; expected"),
        (f"{ENCODER}.params.hidden_size", 100, r"hidden_size is 768|hidden_size is 100 and"),
        (f"{QFORMER}.params.encoder_hidden_size", 64, r"encoder_hidden_size is 64; expected 768, the hidden_size"),
        (f"{QFORMER}.params.heads", 2, r"temporal_qformer_config\.params\.heads is not known"),
        (f"{QFORMER}.target", "vidtwin.modules.st_transformer.STTEncoder", "name for the encoder; the qformer is one"),
        (f"{ENCODER}.target", "vidtok.modules.model_3dnoncausal.Encoder3D",
         r"encoder_config\.target is for vidtok models and model\.target for vidtwin ones; expected targets of one"),
        ("regularizer_config.target", "vidtok.modules.regularizers.FSQRegularizer", "for tokens, which VidTwin has"),
        ("expect_ch", 0, r"model\.params: expect_ch is 0; expected a whole number of at least 1"),
        (QFORMER, None, r"temporal_qformer_config is None; expected a mapping"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(changed(key, value))


def test_keys_of_the_lineage_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    raw = changed(f"{ENCODER}.params.enable_flashattn", True)
    assert read_config(raw).model == vidtok.VidTwinConfig()
    assert "encoder_config.params.enable_flashattn has no effect here" in caplog.text


def test_a_model_of_the_first_family_with_parts_of_the_second_is_refused() -> None:
    raw = copy.deepcopy(read_config(KL_1_0).raw)
    raw["model"]["params"]["encoder_config"]["target"] = "vidtwin.modules.st_transformer.STTEncoder"
    with pytest.raises(ConfigError, match=r"encoder_config\.target is for vidtwin models and model\.target for vidtok"):
        read_config(raw)


def test_reconstruction_of_a_file(tmp_path: Path, twin: VidTwin, video: Path) -> None:
    seen: list[int] = []
    result = twin.reconstruct(video, tmp_path / "out.mp4", side_by_side=True, progress=seen.append)
    assert (result.frames, result.height, result.width) == (FRAMES, SIDE, SIDE)
    assert result.latent_shape == (CONFIG.z_channels, 2, 1, 1)
    assert result.bits == 16 * 2 * CONFIG.z_channels
    assert seen == [16, FRAMES]
    source = to_float(read_video(video, height=SIDE, width=SIDE))
    expected = twin(source, sample=False)[1].clamp(-1, 1)
    mse = ((expected - source) / 2).square().mean((0, 1, 3, 4))
    assert result.psnr == pytest.approx(float((-10 * torch.log10(mse + 1e-8)).mean()), abs=1e-3)
    assert read_video(tmp_path / "out.mp4").shape == (FRAMES, SIDE, 2 * SIDE, 3)


def test_another_frame_size_is_refused(tmp_path: Path, twin: VidTwin, video: Path) -> None:
    message = r"frames are 64 x 48 pixels; twin takes only 32 x 32: give --height 32 --width 32"
    with pytest.raises(VidTokError, match=message):
        twin.reconstruct(video, tmp_path / "out.mp4", height=48, width=64)
    with pytest.raises(VidTokError, match=message):
        encode_file(twin, video, tmp_path / "out.vtok", EncodeOptions(height=48, width=64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("coding", ["float32", "float16", "bfloat16", "int8"])
def test_token_files_hold_the_three_streams(tmp_path: Path, twin: VidTwin, video: Path, coding: str) -> None:
    path = tmp_path / "video.vtok"
    encoded = encode_file(twin, video, path, EncodeOptions(coding=coding))
    z = twin.encode(to_float(read_video(video, height=SIDE, width=SIDE)), sample=False)
    assert path.read_bytes()[8] == STREAMS_VERSION
    with tokens.read(path) as file:
        assert (file.frames, file.latent_frames, file.damages()) == (FRAMES, 2, [])
        assert [stream.name for stream in file.header.latent.streams] == ["structure", "dynamics_x", "dynamics_y"]
        back = twin.unpack(file.read().float())
    for part, stored in zip(z, back, strict=True):
        assert part is not None
        bound = {"float32": 0.0, "float16": 1e-3, "bfloat16": 8e-3, "int8": 8e-3}[coding]
        assert (part - stored).abs().max() <= bound * part.abs().max()
    decoded = decode_file(twin, path, tmp_path / "out.mp4", DecodeOptions(start="17f"))
    assert (decoded.frames, decoded.latents) == (FRAMES - 17, 1)
    assert encoded.int8_snr is None or encoded.int8_snr > 35


def test_int8_has_a_scale_for_each_channel_of_each_stream(tmp_path: Path, twin: VidTwin) -> None:
    z = twin.encode(make_clip(1, 3, 16, SIDE, SIDE), sample=False)
    assert z.dynamics_x is not None
    large = z._replace(dynamics_x=1000 * z.dynamics_x)
    tokens.write(tmp_path / "clip.vtok", large, twin, size=(16, SIDE, SIDE), fps=8, coding="int8")
    with tokens.read(tmp_path / "clip.vtok") as file:
        back = twin.unpack(file.read())
        payload = file.bytes - file.entries[0].offset
    assert back.structure is not None
    assert z.structure is not None
    # The dynamics' scales are a thousand times larger and cost the structure nothing.
    assert (back.structure - z.structure).abs().max() <= z.structure.abs().max() / 127
    scales = 3 + 2 + 2
    assert payload > 4 * scales + CONFIG.z_channels


def test_a_file_of_one_stream_stays_version_1(tmp_path: Path) -> None:
    model = tiny_model(FSQ_1_0)
    indices = model.encode(make_clip(1, 3, 5, 16, 16), True)[1]["indices"]
    tokens.write(tmp_path / "clip.vtok", indices, model, size=(5, 16, 16), fps=8)
    assert (tmp_path / "clip.vtok").read_bytes()[8] == 1
    with tokens.read(tmp_path / "clip.vtok") as file:
        assert "streams" not in json.loads(file.header.to_json())["latent"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"streams": [{"name": "a", "channels": 3}]},
            "latent.streams.positions is missing; expected a list of whole numbers",
        ),
        ({"streams": 3}, "latent.streams is 3; expected a list of at most 16 mappings"),
        ({"streams": [{"name": "a", "channels": 0, "positions": [2]}]}, "streams of different names and of 1 to"),
        ({"streams": [{"name": "a", "channels": 1, "positions": [2]}] * 2}, "streams of different names"),
        ({"streams": [{"name": "a", "channels": 1, "positions": [1, 1, 1, 1, 1]}]}, "along at most 4 axes"),
        ({"streams": [{"name": "a", "channels": 7, "positions": [2]}]}, "latent.streams is 'of 14 values'; expected"),
        ({"channels": 1 << 17}, "latent.channels is 131072; expected 1 to 65536"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, twin: VidTwin, change: dict[str, Any], message: str) -> None:
    z = twin.encode(torch.zeros(1, 3, 16, SIDE, SIDE), sample=False)
    tokens.write(tmp_path / "clip.vtok", z, twin, size=(16, SIDE, SIDE), fps=8)
    with tokens.read(tmp_path / "clip.vtok") as file:
        raw = json.loads(file.header.to_json())
    assert TokenHeader.from_json(json.dumps(raw).encode()) == file.header
    raw["latent"] |= change
    with pytest.raises(TokenFileError, match=message):
        TokenHeader.from_json(json.dumps(raw).encode())


def test_commands_know_it(tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_twin(tmp_path).options
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "out.mp4"), *model]) == 0
    streams = "structure 3 x 6 x 2 x 2, dynamics_x 2 x 16 x 2, dynamics_y 2 x 16 x 2"
    assert f"2 clips of {CONFIG.z_channels} values ({streams}), counted as 16 bits" in capsys.readouterr().out
    assert main(["encode", str(video), "-o", str(tmp_path / "a.vtok"), *model]) == 0
    assert main(["info", "--check", str(tmp_path / "a.vtok")]) == 0
    assert f"2 clips of {CONFIG.z_channels} values ({streams}), float16" in capsys.readouterr().out
    assert main(["decode", str(tmp_path / "a.vtok"), "-o", str(tmp_path / "b.mp4"), *model]) == 0
    assert read_video(tmp_path / "b.mp4").shape == (FRAMES, SIDE, SIDE, 3)
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "c.mp4"), "--size", "64", *model]) == 2
    assert "error: frames are 64 x 64 pixels; twin takes only 32 x 32" in capsys.readouterr().err
    assert not (tmp_path / "c.mp4").exists()


def test_a_picture_is_a_clip_filled_with_it(twin: VidTwin) -> None:
    frame = to_float(draw(1, SIDE, SIDE))
    z = twin.encode(frame, sample=False)
    assert same(z, twin.encode(frame.expand(-1, -1, 16, -1, -1), sample=False))
    assert twin(frame, sample=False)[1].shape == (1, 3, 1, SIDE, SIDE)
