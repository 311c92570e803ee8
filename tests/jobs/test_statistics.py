"""Statistics of latents: over videos, token files and procedural clips, merged, and in a model's folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vidtok
from tiny import FSQ_1_0, KL_1_1, KL_NONCAUSAL, draw, tiny_model, write_video
from twin import tiny_twin
from vidtok.cli import main
from vidtok.errors import CheckpointError, VidTokError
from vidtok.jobs import EncodeOptions, encode_file
from vidtok.jobs.statistics import LatentSurvey, Piece, SyntheticOptions, pieces, survey, survey_video
from vidtok.models.base import VideoModel
from vidtok.runtime.options import ReadOptions
from vidtok.video import VideoReader, to_float

OPTIONS = ReadOptions(height=32, width=48)


def of(model: VideoModel, *data: object, options: ReadOptions = OPTIONS) -> LatentSurvey:
    return survey(model, pieces([str(each) for each in data], options, SyntheticOptions(clips=2, frames=5, size=32)))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4", 21, 32, 48)
    write_video(folder / "b.mp4", 6, 32, 48)
    return folder


@pytest.mark.parametrize("name", [KL_1_1, KL_NONCAUSAL])
def test_figures_are_those_of_the_latents_and_posteriors(name: str, videos: Path) -> None:
    model = tiny_model(name)
    latents, variances = [], []
    for path in (videos / "a.mp4", videos / "b.mp4"):
        with VideoReader(path) as reader:
            video = to_float(np.stack([frame.pixels for frame in reader]))
        for clip in [video] if model.is_causal else torch.split(video, 16, 2):
            moments = model.moments(clip)
            latents.append(model.regularization(moments, sample=False)[0])
            variances.append(model.regularization.variance(moments))
    rows = torch.cat(latents, 2).double()
    found = of(model, videos)
    figures = found.figures()
    assert (found.videos, found.frames) == (2, 27)
    np.testing.assert_allclose(figures.mean, rows.mean((0, 2, 3, 4)), atol=1e-6)
    np.testing.assert_allclose(figures.std, rows.std((0, 2, 3, 4), correction=0), atol=1e-6)
    spread = torch.cat(variances, 2).double().mean((0, 2, 3, 4)).sqrt()
    np.testing.assert_allclose(figures.posterior_std or (), spread, rtol=1e-5)


def test_tokens_of_files_count_as_those_of_the_video(tmp_path: Path, videos: Path) -> None:
    model = tiny_model(FSQ_1_0)
    encode_file(model, videos / "a.mp4", tmp_path / "a.vtok", EncodeOptions(height=32, width=48))
    of_file, of_video = of(model, tmp_path / "a.vtok"), of(model, videos / "a.mp4")
    assert of_file.figures().codebook == of_video.figures().codebook
    np.testing.assert_allclose(of_file.figures().mean, of_video.figures().mean, atol=1e-9)
    np.testing.assert_allclose(of_file.figures().covariance or (), of_video.figures().covariance or (), atol=1e-9)
    assert of_file.frames == of_video.frames == 21
    use = of_file.figures().codebook
    assert use is not None
    assert use.tokens == of_file.figures().positions
    with pytest.raises(VidTokError, match="was made with"):
        of(tiny_model(KL_1_1), tmp_path / "a.vtok")


def test_a_model_with_a_latent_of_parts() -> None:
    model = tiny_twin()
    figures = of(model, "synthetic").figures()
    assert len(figures.mean) == len(figures.posterior_std or ()) == model.z_channels
    assert figures.positions == 2
    model.latents = of(model, "synthetic").scale()
    z = model.encode(torch.zeros(1, 3, 16, *model.config.frame_size), sample=False)
    for part, back in zip(z, model.denormalize(model.normalize(z)), strict=True):
        torch.testing.assert_close(back, part, atol=1e-4, rtol=1e-4)


def test_surveys_merge_by_file_and_only_of_one_model(tmp_path: Path, videos: Path) -> None:
    model = tiny_model(KL_1_1)
    of(model, videos / "a.mp4").save(tmp_path / "a.json")
    of(model, videos / "b.mp4", "synthetic").save(tmp_path / "b.json")
    merged, whole = of(model, tmp_path / "a.json", tmp_path / "b.json"), of(model, videos, "synthetic")
    assert (merged.videos, merged.frames) == (whole.videos, whole.frames) == (4, 37)
    np.testing.assert_allclose(merged.figures().covariance or (), whole.figures().covariance or (), atol=1e-9)
    with pytest.raises(VidTokError, match="do not merge"):
        of(tiny_model("vidtok_kl_causal_488_4chn"), tmp_path / "a.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "vidtok latent statistics", "version": 1}', "9" * 5000])
def test_other_files_are_no_statistics(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(VidTokError, match="expected statistics that"):
        LatentSurvey.load(tmp_path / "x.json")


def test_small_chunks_give_the_same(videos: Path) -> None:
    model = tiny_model(KL_1_1)
    whole = survey_video(model, videos / "a.mp4", OPTIONS).figures()
    small = survey_video(model, videos / "a.mp4", ReadOptions(height=32, width=48, chunk_frames=4)).figures()
    np.testing.assert_allclose(small.covariance or (), whole.covariance or (), atol=1e-5)


def test_the_command_writes_into_the_folder_and_the_model_uses_it(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model(KL_1_1).save_pretrained(tmp_path / "model")
    before = json.loads((folder / "config.json").read_text())
    assert vidtok.load(folder).latents_mean is None
    assert (
        main(["stats", str(folder), str(videos), "--height", "32", "--width", "48", "-o", str(tmp_path / "s.json")])
        == 0
    )
    assert "2 videos, 27 frames" in capsys.readouterr().out
    values = json.loads((folder / "config.json").read_text())
    assert {key: values[key] for key in before} == before
    assert len(values["latents_mean"]) == len(values["latents_std"]) == 4
    assert len(values["latents_statistics"]["covariance"]) == 4
    model = vidtok.load(folder)
    assert model.latents_std == tuple(values["latents_std"])
    z = model.encode(to_float(draw(5, 32, 48)), sample=False)
    normal = model.normalize(z)
    expected = (z - torch.tensor(model.latents_mean).view(4, 1, 1, 1)) / torch.tensor(model.latents_std).view(
        4, 1, 1, 1
    )
    torch.testing.assert_close(normal, expected)
    torch.testing.assert_close(model.denormalize(normal), z, atol=1e-5, rtol=1e-5)
    again = model.save_pretrained(tmp_path / "again")
    assert json.loads((again / "config.json").read_text()) == values
    assert main(["models", "show", str(folder)]) == 0
    assert "latents_std" in capsys.readouterr().out
    other = vidtok.load(folder, checkpoint=again / "model.safetensors")
    assert other.latents == model.latents  # of the folder that holds the weights
    model.init_from_ckpt(folder / "model.safetensors")
    with pytest.raises(VidTokError, match="vidtok stats"):
        model.normalize(z)


def test_what_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model(KL_1_1).save_pretrained(tmp_path / "model")
    (videos / "c.mp4").write_bytes(b"nothing")
    assert main(["stats", str(folder), str(videos), "--height", "32", "--width", "48", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["videos"] == 2
    assert "1 of 3 inputs could not be read" in printed.err
    assert "c.mp4" in printed.err
    for arguments in ([str(folder), str(tmp_path / "gone")], [KL_1_1, "synthetic", "--write"]):
        assert main(["stats", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_any_fault_of_one_piece_leaves_the_others(videos: Path) -> None:
    model = tiny_model(KL_1_1)

    def odd(_: VideoModel) -> LatentSurvey:
        raise IndexError("tuple index out of range")

    said: list[str] = []
    data = [Piece("odd", odd), *pieces([videos], OPTIONS)]
    found = survey(model, data, failed=lambda name, error: said.append(f"{name}: {error}"))
    assert (found.videos, said) == (2, ["odd: IndexError: tuple index out of range"])
    with pytest.raises(IndexError):
        survey(model, data)


def test_statistics_of_impossible_size_are_refused(tmp_path: Path, videos: Path) -> None:
    of(tiny_model(FSQ_1_0), videos / "a.mp4").save(tmp_path / "s.json")
    values = json.loads((tmp_path / "s.json").read_text())
    for name, size in (("channels", 10**12), ("codes", 10**12), ("codes", 0)):
        changed = json.loads(json.dumps(values))
        if name == "codes":
            changed["statistics"]["codes"]["size"] = size
        else:
            changed["statistics"][name] = size
        (tmp_path / "s.json").write_text(json.dumps(changed))
        with pytest.raises(VidTokError, match="their sizes do not fit"):
            LatentSurvey.load(tmp_path / "s.json")


@pytest.mark.parametrize("change", [{"latents_std": [1, 2]}, {"latents_std": [0, 1, 1, 1]}, {"latents_mean": "x"}])
def test_malformed_statistics_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tiny_model(KL_1_1).save_pretrained(tmp_path / "model")
    path = folder / "config.json"
    values = json.loads(path.read_text()) | {"latents_mean": [0] * 4, "latents_std": [1] * 4} | change
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="expected 4 numbers"):
        vidtok.load(folder)
