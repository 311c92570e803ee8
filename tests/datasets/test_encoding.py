"""Videos to records with a model: the values, and what other programs read of each sink."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.datasets.inline import work_inline
from tests.datasets.test_inputs import server

from tiny import FSQ_1_0, KL_1_1, ModelFiles, tiny_model, write_model, write_video
from vidtok.datasets import Listing, ModelOptions, TokenDataset, TokenizeJob, TokenizeOptions, collate
from vidtok.datasets.survey import collection_pieces
from vidtok.errors import CollectionError
from vidtok.jobs import EncodeOptions, encode_file, statistics
from vidtok.runtime.options import ReadOptions
from vidtok.tokens import TokenFile
from vidtok.video import read_video, to_float

__all__ = ["server"]
SIZE = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (FSQ_1_0, KL_1_1)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, the last too short for a clip."""
    folder = tmp_path_factory.mktemp("videos")
    for name, frames, width in (("a", 35, 48), ("b", 41, 32), ("c", 9, 32)):
        write_video(folder / f"{name}.mp4", frames, 32, width)
    return folder


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    work_inline(monkeypatch)


def tokenize(out: Path, model: ModelFiles, *words: str | Path, dtype: str = "float32", **options: Any) -> Path:
    given = ModelOptions(model=str(model.config), checkpoint=str(model.checkpoint), device="cpu", dtype=dtype)
    job = TokenizeJob(out, given, TokenizeOptions(height=SIZE, width=SIZE, **options))
    result = job.run(Listing(words=tuple(map(str, words)), pictures=not options.get("clip_frames")))
    assert result.complete, result
    return out


def clips_of(path: Path, stride: int, **options: Any) -> list[torch.Tensor]:
    """Clips of 17 frames, cut by hand."""
    video = to_float(read_video(path, height=SIZE, width=SIZE, **options))
    return [video[:, :, at : at + 17] for at in range(0, video.shape[2] - 16, stride)]


@pytest.mark.parametrize(("stride", "batch"), [(None, 1), (8, 3), (20, 2)])
def test_clips_are_what_the_model_makes_of_them(
    stride: int | None, batch: int, tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    out = tokenize(tmp_path / "out", models[FSQ_1_0], videos, clip_frames=17, stride=stride, batch=batch, sink="bin")
    data = TokenDataset(out)
    clips = [clip for name in "abc" for clip in clips_of(videos / f"{name}.mp4", stride or 17)]
    assert len(data) == len(clips) >= 3
    model = tiny_model(FSQ_1_0)
    for index, clip in enumerate(clips):
        assert torch.equal(data[index]["indices"], model.encode_packed(clip)[0])
    firsts = [at for frames in (35, 41, 9) for at in range(0, frames - 16, stride or 17)]
    assert [data.head(index)["first_frame"] for index in range(len(data))] == firsts
    assert [data.head(index)["start"] for index in range(len(data))] == pytest.approx([at / 24 for at in firsts])


def test_whole_videos_are_streams(tmp_path: Path, models: dict[str, ModelFiles], videos: Path) -> None:
    out = tokenize(tmp_path / "out", models[KL_1_1], videos, coding="float32", chunk_frames=8)
    encode_file(
        tiny_model(KL_1_1), videos / "b.mp4", tmp_path / "b.vtok",
        EncodeOptions(height=SIZE, width=SIZE, coding="float32", chunk_frames=8),
    )  # fmt: skip
    record = TokenDataset(out)[1]
    with TokenFile(tmp_path / "b.vtok") as file:
        assert torch.equal(record["latent"], file.read()[0])
    assert (record["frames"], record["height"], record["fps"]) == (41, SIZE, 24.0)


def test_sample_fps_and_captions_pass_through(tmp_path: Path, models: dict[str, ModelFiles], videos: Path) -> None:
    (tmp_path / "l.jsonl").write_text(json.dumps({"videos": str(videos / "b.mp4"), "caption": "waves", "n": 1}))
    out = tokenize(tmp_path / "out", models[KL_1_1], tmp_path / "l.jsonl", clip_frames=17, fps=12, coding="float32")
    (record,) = [TokenDataset(out)[index] for index in range(len(TokenDataset(out)))]
    (clip,) = clips_of(videos / "b.mp4", 17, sample_fps=12)
    assert torch.equal(record["latent"], tiny_model(KL_1_1).encode_packed(clip)[0])
    assert (record["fps"], record["columns"]) == (12.0, {"caption": "waves", "n": 1})


def test_parquet_has_the_columns_of_fastvideo(tmp_path: Path, models: dict[str, ModelFiles], videos: Path) -> None:
    import pyarrow.parquet

    (tmp_path / "l.csv").write_text(f"videos,caption\n{videos}/a.mp4,waves\n")
    out = tokenize(tmp_path / "out", models[KL_1_1], tmp_path / "l.csv", clip_frames=17)
    (path,) = (out / "data").iterdir()
    rows = pyarrow.parquet.read_table(path).to_pylist()
    latent = np.frombuffer(rows[1]["vae_latent_bytes"], rows[1]["vae_latent_dtype"]).reshape(
        rows[1]["vae_latent_shape"]
    )
    assert np.array_equal(latent, TokenDataset(out)[1]["latent"].numpy())
    names = ("caption", "media_type", "width", "height", "num_frames", "fps", "file_name", "start_sec")
    assert [rows[1][name] for name in names] == [
        "waves",
        "video",
        32,
        32,
        17,
        24.0,
        str(videos / "a.mp4"),
        rows[1]["start_sec"],
    ]
    assert rows[1]["start_sec"] == pytest.approx(17 / 24)
    assert rows[1]["duration_sec"] == pytest.approx(17 / 24)


@pytest.mark.parametrize("coding", ["float16", "bfloat16"])
def test_tar_has_the_members_of_webdataset(
    coding: str, tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    from safetensors.torch import load

    out = tokenize(tmp_path / "out", models[KL_1_1], videos, clip_frames=17, sink="tar", coding=coding)
    data = TokenDataset(out)
    (path,) = (out / "data").iterdir()
    with tarfile.open(path) as archive:
        names = archive.getnames()
        suffix = ".npy" if coding == "float16" else ".safetensors"
        assert names == [f"{data.head(index)['id']}{each}" for index in range(len(data)) for each in (suffix, ".json")]
        content = archive.extractfile(names[2])
        about = archive.extractfile(names[3])
        assert content is not None
        assert about is not None
        if coding == "float16":
            (tmp_path / "x.npy").write_bytes(content.read())
            values = torch.from_numpy(np.load(tmp_path / "x.npy"))
        else:
            values = load(content.read())["latents"]
        assert torch.equal(values, data[1]["latent"])
        assert json.loads(about.read())["first_frame"] == 17


def test_bin_is_one_row_of_tokens(tmp_path: Path, models: dict[str, ModelFiles], videos: Path) -> None:
    out = tokenize(tmp_path / "out", models[FSQ_1_0], videos, sink="bin")
    (path,) = (out / "data").glob("*.bin")
    about = json.loads(path.with_suffix(".json").read_text())
    index = np.load(path.with_suffix(".index.npy"))
    tokens = np.memmap(path, about["dtype"], "r")
    data = TokenDataset(out)
    assert len(tokens) == about["tokens"] == sum(data[each]["indices"].numel() for each in range(3))
    for number, (first, count) in enumerate(index):
        assert np.array_equal(tokens[first : first + count], data[number]["indices"].numpy().reshape(-1))
        assert about["records"][number]["shape"] == list(data[number]["indices"].shape)
    assert about["model"]["name"] == FSQ_1_0
    with pytest.raises(CollectionError, match="the sink bin holds tokens alone"):
        tokenize(tmp_path / "other", models[KL_1_1], videos, sink="bin")


@pytest.mark.parametrize("name", [FSQ_1_0, KL_1_1])
def test_safetensors_have_the_keys_of_musubi_tuner(
    name: str, tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    out = tokenize(tmp_path / "out", models[name], videos, clip_frames=17, sink="safetensors")
    data = TokenDataset(out)
    with safe_open(out / data.head(0)["file"], "pt") as file:
        (key,) = file.keys()
        assert key == ("latents_5x4x4_float16" if name == KL_1_1 else "indices_5x4x4_uint16")
        assert file.metadata()["frame_count"] == "17"
        values = file.get_tensor(key)
    assert torch.equal(values.float(), (data[0]["latent"] if name == KL_1_1 else data[0]["indices"]).float())


@pytest.mark.parametrize("clip_frames", [None, 17])
def test_vtok_is_what_encode_writes(
    clip_frames: int | None, tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    out = tokenize(tmp_path / "out", models[FSQ_1_0], videos, sink="vtok", clip_frames=clip_frames)
    data = TokenDataset(out)
    record = data[0]
    with TokenFile(out / record["file"]) as file:
        assert file.complete
        assert torch.equal(file.read()[0], record["indices"])
        assert file.frames == record["frames"] == (clip_frames or 35)
    assert record["sha256"] == hashlib.sha256((out / record["file"]).read_bytes()).hexdigest()
    assert record["dtype"] == "adaptive"


def test_tars_urls_and_files_give_the_same(
    tmp_path: Path, models: dict[str, ModelFiles], videos: Path, server: str
) -> None:
    (tmp_path / "a.mp4").write_bytes((videos / "a.mp4").read_bytes())
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "a.mp4", "a.mp4")
    words = [tmp_path / "a.mp4", tmp_path / "s.tar", f"{server}/a.mp4", f"{server}/s.tar"]
    for sink in ("parquet", "vtok"):
        out = tokenize(tmp_path / sink, models[FSQ_1_0], *words, sink=sink)
        data = TokenDataset(out)
        assert len(data) == 4
        assert len({data[index]["indices"].numpy().tobytes() for index in range(4)}) == 1


def test_damaged_and_absent_inputs_do_not_stop_the_others(
    tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes((videos / "b.mp4").read_bytes()[:3000])
    (tmp_path / "no.mp4").write_text("no video")
    (tmp_path / "l.txt").write_text(f"{videos}/a.mp4\nbad.mp4\nno.mp4\ngone.mp4\n")
    model = models[FSQ_1_0]
    given = ModelOptions(model=str(model.config), checkpoint=str(model.checkpoint), device="cpu")
    job = TokenizeJob(tmp_path / "out", given, TokenizeOptions(height=SIZE, width=SIZE, clip_frames=17, batch=2))
    result = job.run(Listing(words=(str(tmp_path / "l.txt"),)))
    assert sorted(Path(each.source).name for each in result.failures.values()) == ["bad.mp4", "no.mp4"]
    assert [each.name for each in result.absent] == [str(tmp_path / "gone.mp4")]
    assert result.figures.records == 2
    assert not result.complete


def test_batches_of_several_sizes(tmp_path: Path, models: dict[str, ModelFiles]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        write_video(tmp_path / f"in/{number}.mp4", 18, 32, 32 + 16 * (number % 2))
    given = ModelOptions(model=str(models[KL_1_1].config), checkpoint=str(models[KL_1_1].checkpoint), device="cpu")
    job = TokenizeJob(tmp_path / "out", given, TokenizeOptions(clip_frames=17, batch=4))
    assert job.run(Listing(words=(str(tmp_path / "in"),))).complete
    data = TokenDataset(tmp_path / "out")
    assert [Path(data.head(index)["source"]).stem for index in range(5)] == list("01234")
    batch = collate([data[index] for index in range(5)])
    assert batch["latent"].shape == (5, 4, 5, 4, 6)
    assert batch["sizes"].tolist() == [[4, 4], [4, 6]] * 2 + [[4, 4]]
    assert batch["lengths"].tolist() == [5] * 5
    assert torch.equal(batch["latent"][2, ..., :4], data[2]["latent"])
    assert not batch["latent"][2, ..., 4:].any()


@pytest.mark.parametrize(("name", "sink"), [(KL_1_1, "parquet"), (FSQ_1_0, "vtok"), (FSQ_1_0, "tar")])
def test_stats_of_a_collection_are_those_of_its_videos(
    name: str, sink: str, tmp_path: Path, models: dict[str, ModelFiles], videos: Path
) -> None:
    coding = "float32" if name == KL_1_1 else None
    out = tokenize(tmp_path / "out", models[name], videos, sink=sink, coding=coding)
    model = tiny_model(name)
    found, rest = collection_pieces([out, "other"])
    assert rest == ["other"]
    survey = statistics.survey(model, found)
    paths = sorted(videos.iterdir())
    direct = statistics.survey(model, statistics.pieces(paths, ReadOptions(height=SIZE, width=SIZE)))
    assert (survey.videos, survey.frames) == (direct.videos, direct.frames) == (3, 85)
    assert survey.figures().mean == pytest.approx(direct.figures().mean, abs=1e-5)
    assert survey.figures().std == pytest.approx(direct.figures().std, abs=1e-5)
