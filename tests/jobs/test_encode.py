"""Encoding files to token files: the values of the whole video, a true header, and nothing left of what failed."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.video.video_files import make_video, numbered

from tiny import (
    FSQ_1_0,
    FSQ_1_1,
    FSQ_NONCAUSAL,
    KL_1_0,
    KL_1_1,
    KL_NONCAUSAL,
    add_sound,
    audio_streams,
    draw,
    frames_written,
    leftovers,
    tiny_model,
    write_video,
)
from vidtok import EncodeStream, VideoError, VidTokError
from vidtok.jobs import (
    DecodeOptions,
    EncodeJob,
    EncodeOptions,
    TreeJob,
    decode_file,
    encode_file,
    encode_tree,
    sound_path,
)
from vidtok.tokens import TokenFile, TokenFileError, TokenWriter, model_identity
from vidtok.video import VideoReader, VideoWriter, probe, read_video, to_float, to_uint8

MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1, KL_NONCAUSAL, FSQ_NONCAUSAL)}
EXACT = {name: "float32" if "_kl_" in name else None for name in MODELS}


def encoded(name: str, path: Path) -> torch.Tensor:
    """What a model makes of all of a video at once, or of each of its clips of 16 frames."""
    model, video = MODELS[name], to_float(read_video(path).numpy())
    clips = [video] if model.is_causal else torch.split(video, 16, 2)
    results = [model.encode(clip, True, sample=False) for clip in clips]
    return torch.cat([log.get("indices", z) for z, log in results], -3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frames", [1, 17, 16, 39, 50])
def test_a_file_holds_what_the_model_makes_of_the_video(name: str, frames: int, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", frames, 22, 38, fps=30)
    result = encode_file(MODELS[name], video, tmp_path / "a.vtok", EncodeOptions(coding=EXACT[name]))
    expected = encoded(name, video)
    with TokenFile(tmp_path / "a.vtok") as file:
        assert file.complete
        assert file.size == (frames, 22, 38)
        values = file.read()
        if frames <= (17 if MODELS[name].is_causal else 16) or not MODELS[name].is_causal:
            assert torch.equal(values, expected)
        elif "_kl_" in name:
            torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
        else:
            # Rounding may fall to the other side where a value lies between two levels.
            assert (values != expected).float().mean() < 0.02
    assert (result.frames, result.latent_frames) == (frames, expected.shape[-3])
    assert result.bytes == (tmp_path / "a.vtok").stat().st_size
    assert result.source_bytes == video.stat().st_size
    assert result.bits_per_pixel == 8 * result.bytes / (frames * 22 * 38)
    assert result.compression == pytest.approx(24 / result.bits_per_pixel)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_0, FSQ_NONCAUSAL])
def test_a_short_video_comes_back_to_the_last_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoded file has the pixels of `model.decode(model.encode(x))`."""
    model = MODELS[name]
    frames = 17 if model.is_causal else 16
    video = write_video(tmp_path / "in.mp4", frames, 22, 38)
    encode_file(model, video, tmp_path / "a.vtok", EncodeOptions(coding=EXACT[name]))
    written = frames_written(monkeypatch, "vidtok.jobs.decode")
    decode_file(model, tmp_path / "a.vtok", tmp_path / "out.mp4")
    x = to_float(read_video(video).numpy())
    expected = model.decode(model.encode(x, sample=False), size=(frames, 22, 38))
    assert (np.concatenate(written) == to_uint8(expected)).all()


def test_the_header_says_what_was_done(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 40, 48, 80, fps=24)
    options = EncodeOptions(height=16, width=20, fps=12, start=0.5, max_frames=9, coding="packed")
    model = MODELS[FSQ_1_1]
    result = encode_file(model, video, tmp_path / "a.vtok", options)
    with TokenFile(tmp_path / "a.vtok") as file:
        header = file.header
    assert result.header == header
    assert header.model == model_identity(model)
    latent, shown, source = header.latent, header.video, header.source
    assert (latent.coding, latent.channels, latent.height, latent.width, latent.levels) == ("packed", 5, 2, 3, (8,) * 5)
    assert (latent.temporal_factor, latent.spatial_factor, latent.causal) == (8, 8, True)
    assert (shown.height, shown.width, shown.fps, shown.start, shown.picture) == (16, 20, 12, 0.5, False)
    assert source is not None
    assert (source.name, source.bytes, source.height, source.width) == ("in.mp4", video.stat().st_size, 48, 80)
    assert (source.resized, source.crop, source.codec, source.pixel_format) == ((16, 26), (0, 3), "h264", "yuv420p")
    assert (source.whole, result.source_bytes, file.frames) == (False, None, 9)
    assert header.encoding["settings"] == options.settings(model)


def test_a_picture(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "in.png", 1) as writer:
        writer.write(draw(1, 13, 21))
    encode_file(MODELS[FSQ_1_0], tmp_path / "in.png", tmp_path / "a.vtok")
    with TokenFile(tmp_path / "a.vtok") as file:
        assert file.header.video.picture
        assert file.size == (1, 13, 21)
    decode_file(MODELS[FSQ_1_0], tmp_path / "a.vtok", tmp_path / "out.png")
    assert tuple(read_video(tmp_path / "out.png").shape) == (1, 13, 21, 3)


def test_a_variable_rate_comes_back(tmp_path: Path) -> None:
    ticks = np.cumsum([0, *(10 + (i % 5) * 4 for i in range(29))]).tolist()
    video = make_video(tmp_path / "in.mp4", [numbered(i) for i in range(30)], ticks=ticks)
    model = MODELS[KL_1_0]
    encode_file(model, video, tmp_path / "a.vtok")
    with VideoReader(video) as reader:
        times = [frame.time for frame in reader]
    with TokenFile(tmp_path / "a.vtok") as file:
        assert file.timed
        assert file.times().tolist() == times
    decode_file(model, tmp_path / "a.vtok", tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        np.testing.assert_allclose([frame.time for frame in reader], times, atol=1e-6)
    # Sampled at a rate, frames have that rate.
    encode_file(model, video, tmp_path / "b.vtok", EncodeOptions(fps=10))
    with TokenFile(tmp_path / "b.vtok") as file:
        assert not file.timed
        assert file.header.video.fps == 10


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24), Fraction(25, 2)])
def test_rate_length_and_size_come_back(fps: Fraction, tmp_path: Path) -> None:
    video = make_video(tmp_path / "in.mkv", [numbered(i) for i in range(23)], fps=fps)
    encode_file(MODELS[FSQ_1_1], video, tmp_path / "a.vtok")
    decode_file(MODELS[FSQ_1_1], tmp_path / "a.vtok", tmp_path / "out.mp4")
    before, after = probe(video), probe(tmp_path / "out.mp4")
    assert (after.fps, after.frame_count, after.height, after.width) == (fps, 23, before.height, before.width)


def test_sound_is_kept_beside_and_put_back(tmp_path: Path) -> None:
    video = add_sound(write_video(tmp_path / "silent.mp4", 30, 16, 16), tmp_path / "in.mp4")
    model, path = MODELS[KL_1_0], tmp_path / "a.vtok"
    result = encode_file(model, video, path, EncodeOptions(sound=True))
    assert result.sound == sound_path(path) == tmp_path / "a.mka"
    assert audio_streams(tmp_path / "a.mka") == 1
    assert decode_file(model, path, tmp_path / "out.mp4").sound
    assert audio_streams(tmp_path / "out.mp4") == 1
    for options in ({"sound": False}, {"end": "20f"}):
        assert not decode_file(model, path, tmp_path / "out.mp4", DecodeOptions(**options)).sound
        assert audio_streams(tmp_path / "out.mp4") == 0
    # What lies there from before is not taken for the sound of a file that has none.
    assert encode_file(model, video, path).sound is None
    assert not decode_file(model, path, tmp_path / "out.mp4").sound
    assert encode_file(model, tmp_path / "silent.mp4", tmp_path / "b.vtok", EncodeOptions(sound=True)).sound is None
    assert "b.mka" not in leftovers(tmp_path)
    with pytest.raises(VidTokError, match=r"the sound is kept with a whole video only; leave out --audio"):
        EncodeJob(video, path, EncodeOptions(sound=True, max_frames=3))


def test_sound_that_cannot_be_moved_to_its_place(tmp_path: Path) -> None:
    video = add_sound(write_video(tmp_path / "silent.mp4", 5, 16, 16), tmp_path / "in.mp4")
    path = tmp_path / "a.vtok"
    sound_path(path).mkdir()
    problem = r"^the sound of .*in\.mp4 cannot be written to .*a\.mka: .+; leave out --audio$"
    with pytest.raises(VideoError, match=problem):
        encode_file(MODELS[KL_1_0], video, path, EncodeOptions(sound=True))
    assert leftovers(tmp_path) == ["a.mka", "a.vtok", "in.mp4", "silent.mp4"]


def test_what_int8_costs_is_reported(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 80, 32, 32)
    result = encode_file(MODELS[KL_1_0], video, tmp_path / "a.vtok", EncodeOptions(coding="int8"))
    exact = encoded(KL_1_0, video)
    with TokenFile(tmp_path / "a.vtok") as file:
        noise = (file.read() - exact).square().sum()
    assert result.int8_snr == pytest.approx(10 * float(torch.log10(exact.square().sum() / noise)), abs=0.01)
    assert 30 < result.int8_snr < 60
    assert encode_file(MODELS[KL_1_0], video, tmp_path / "b.vtok").int8_snr is None


def test_a_damaged_video(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.mp4", 60, 32, 32).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(VideoError, match=r"cut.mp4 is cut off or damaged.*--allow-truncated"):
        encode_file(MODELS[KL_1_0], tmp_path / "cut.mp4", tmp_path / "a.vtok")
    assert leftovers(tmp_path) == ["cut.mp4", "whole.mp4"]
    result = encode_file(MODELS[KL_1_0], tmp_path / "cut.mp4", tmp_path / "a.vtok", EncodeOptions(allow_truncated=True))
    assert result.truncated
    assert 0 < result.frames < 60


def test_what_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", 20, 16, 16)
    for output, options, message in (
        ("a.mp4", EncodeOptions(), r"a.mp4 does not end in .vtok; expected a name such as video.vtok"),
        ("none/a.vtok", EncodeOptions(), "no such folder"),
        ("a.vtok", EncodeOptions(coding="zip"), "coding is 'zip'; expected one of packed, static"),
        ("a.vtok", EncodeOptions(coding="packed"), r"coding is 'packed'; expected one of float16.*, as vidtok_kl"),
    ):
        with pytest.raises(VidTokError, match=message):
            encode_file(MODELS[KL_1_0], video, tmp_path / output, options)
    with pytest.raises(VidTokError, match="chunk_frames is 6; expected a multiple of 4, since a non-causal model"):
        encode_file(MODELS[KL_NONCAUSAL], video, tmp_path / "a.vtok", EncodeOptions(chunk_frames=6))
    broken = tiny_model(KL_1_0)
    with torch.no_grad():
        next(broken.encoder.parameters()).fill_(float("inf"))
    discrete = tiny_model(FSQ_1_0)
    with torch.no_grad():
        next(discrete.encoder.parameters()).fill_(float("nan"))
    for model in (broken, discrete):
        with pytest.raises(VidTokError, match="gives values that are not finite in float32"):
            encode_file(model, video, tmp_path / "a.vtok")
    os.rename(video, tmp_path / "in.vtok")
    with pytest.raises(VideoError, match="is the input itself; give another output"):
        encode_file(MODELS[KL_1_0], tmp_path / "in.vtok", tmp_path / "in.vtok")
    assert leftovers(tmp_path) == ["in.vtok"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for place in ("a", "b/c", "empty", ".hidden"):
        (folder / place).mkdir(parents=True)
    write_video(folder / "one.mp4", 20, 16, 16)
    write_video(folder / "a" / "two.MKV", 5, 16, 24)
    write_video(folder / "b" / "c" / "three.mov", 9, 16, 16)
    (folder / "b" / "broken.mp4").write_bytes(b"junk")
    (folder / "notes.txt").touch()
    (folder / ".hidden" / "four.mp4").touch()
    return folder


def test_a_tree_is_mirrored_and_what_is_done_skipped(tree: Path, tmp_path: Path) -> None:
    model, output = MODELS[FSQ_1_0], tmp_path / "tokens"
    announced: list[tuple[int, int, str]] = []
    result = encode_tree(
        model, tree, output, announce=lambda step: announced.append((step.number, step.of, step.input.name))
    )
    assert [encoded.output.relative_to(output).as_posix() for encoded in result.encoded] == [
        "a/two.MKV.vtok", "b/c/three.mov.vtok", "one.mp4.vtok",
    ]  # fmt: skip
    ((failed, error),) = result.failed
    assert failed == tree / "b" / "broken.mp4"
    assert "neither a video nor a picture" in str(error)
    assert announced == [(1, 4, "two.MKV"), (3, 4, "three.mov"), (4, 4, "one.mp4")]
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*.vtok")}

    def again(options: EncodeOptions | None = None, name: str = FSQ_1_0, *, overwrite: bool = False) -> tuple[int, int]:
        result = encode_tree(MODELS[name], tree, output, options, overwrite=overwrite)
        return len(result.encoded), len(result.skipped)

    assert again() == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.vtok")} == written
    # What is damaged or older than its source is made again, and where asked for what another way has made.
    one = output / "one.mp4.vtok"
    one.write_bytes(one.read_bytes()[:-70])
    assert again() == (1, 2)
    os.utime(one, (1, 1))
    assert again() == (1, 2)
    write_video(tree / "one.mp4", 21, 16, 16)
    os.utime(tree / "one.mp4", (1, 1))
    assert again() == (1, 2)
    before = {path: path.read_bytes() for path in output.rglob("*.vtok")}
    with pytest.raises(
        TokenFileError,
        match=r"3 token files below .* such as .*two.MKV.vtok \(coding was None, is 'packed'\); give --ov",
    ):
        again(EncodeOptions(coding="packed"))
    with pytest.raises(TokenFileError, match=r"made with '.*', of other weights or configuration\); give --overwrite"):
        again(name=FSQ_1_1)
    assert {path: path.read_bytes() for path in output.rglob("*.vtok")} == before
    assert again(EncodeOptions(coding="packed"), overwrite=True) == (3, 0)
    assert again(EncodeOptions(coding="packed", sound=True), overwrite=True) == (3, 0)
    assert again(name=FSQ_1_1, overwrite=True) == (3, 0)


def test_two_encodings_of_one_tree_share_the_work(tree: Path, tmp_path: Path) -> None:
    """A file that another process is writing is no failure: it is waited for, and made here if that one gives up."""
    model, output = MODELS[FSQ_1_0], tmp_path / "tokens"
    (tree / "b" / "broken.mp4").unlink()
    first = encode_tree(model, tree, output)
    done, given_up = output / "one.mp4.vtok", output / "a" / "two.MKV.vtok"
    content = done.read_bytes()
    others = [TokenWriter(path, first.encoded[0].header) for path in (done, given_up)]
    for path in (done, given_up):
        path.unlink()
    said = []

    def waiting(path: Path) -> None:
        said.append(path.name)
        if len(said) == 1:  # the other process gives up one and finishes the other
            for other in others:
                other.abort()
            done.write_bytes(content)

    result = TreeJob(tree, output).run(model, waiting=waiting)
    assert said == ["two.MKV", "one.mp4"]
    assert result.failed == []
    assert [path.name for path in result.skipped] == ["three.mov"]
    assert [path.name for path in result.elsewhere] == ["one.mp4"]
    assert [encoded.output for encoded in result.encoded] == [given_up]
    assert len(list(output.rglob("*.*"))) == 3


def test_an_interrupted_tree_is_taken_up_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push = EncodeStream.push
    interrupted: list[bool] = []

    def interrupt(stream: EncodeStream, frames: torch.Tensor) -> torch.Tensor:
        if stream._held is not None and not interrupted:  # the second piece of a video
            interrupted.append(True)
            raise KeyboardInterrupt
        return push(stream, frames)

    # one.mp4, of 20 frames, is the only one that takes more than one piece.
    monkeypatch.setattr(EncodeStream, "push", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode_tree(MODELS[KL_1_0], tree, tmp_path / "tokens")
    assert sorted(path.name for path in (tmp_path / "tokens").rglob("*.*")) == ["three.mov.vtok", "two.MKV.vtok"]
    result = encode_tree(MODELS[KL_1_0], tree, tmp_path / "tokens")
    assert [path.name for path in result.skipped] == ["two.MKV", "three.mov"]
    assert [encoded.frames for encoded in result.encoded] == [20]


def test_trees_that_are_none(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"has no videos and no pictures below it; expected files that end in .mp4"):
        encode_tree(MODELS[KL_1_0], tree / "empty", tmp_path / "out")
    with pytest.raises(VideoError, match=r"one.mp4 is not a folder"):
        encode_tree(MODELS[KL_1_0], tree / "one.mp4", tmp_path / "out")
    with pytest.raises(TokenFileError, match=r"one.mp4 is a file; expected a folder for the token files of"):
        encode_tree(MODELS[KL_1_0], tree, tree / "one.mp4")
