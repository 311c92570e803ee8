"""Decoding token files, whole or in part, to what decoding all of them at once gives."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tokens.fuzzing import mutated
from tests.tokens.token_files import resealed

from support import CAUSAL_SAMPLE, make_clip, small_model
from tiny import FSQ_1_0, FSQ_1_1, FSQ_NONCAUSAL, KL_1_0, KL_1_1, KL_NONCAUSAL, draw, leftovers, tiny_model
from vidtok import Tokenizer, VideoError, VidTokError, tokens
from vidtok.jobs import DecodeJob, DecodeOptions, Decoding, Timestamp, decode_file, frame_range
from vidtok.models.vidtok.receptive import first_exact_frame
from vidtok.tokens import DamagedTokenFileError, TokenFile, TokenFileError
from vidtok.video import VideoReader, probe, read_video, to_float, to_uint8

MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1, KL_NONCAUSAL, FSQ_NONCAUSAL)}
EXACT = {name: tiny_model(name).double() for name in MODELS}
"""In float64, where rounding can neither hide a difference nor make one."""


def write_tokens(path: Path, model: Tokenizer, frames: int, size: tuple[int, int] = (9, 14), fps: int = 24) -> None:
    """A file of drawn latents or tokens for a video of `frames` frames."""
    config = model.config
    latents = -(-(frames - config.is_causal) // config.temporal_factor) + config.is_causal
    grid = tuple(-(-side // config.spatial_factor) for side in size)
    if model.regularization.discrete:
        generator = torch.Generator().manual_seed(0)
        values = torch.randint(4096, (1, latents, *grid), generator=generator, dtype=torch.int32)
    else:
        values = make_clip(1, config.z_channels, latents, *grid)
    coding = None if model.regularization.discrete else "float32"
    clip = None if config.is_causal else 16
    tokens.write(path, values, model, size=(frames, *size), fps=fps, coding=coding, clip_frames=clip)


def whole(model: Tokenizer, file: TokenFile) -> torch.Tensor:
    """What the model makes of all of the file at once, or of each of its clips."""
    discrete = file.header.latent.discrete
    if model.is_causal:
        return model.decode(file.read(), discrete, size=file.size)
    clips = [model.decode(chunk.values, discrete) for chunk in file.chunks()]
    return torch.cat(clips, 2)[:, :, : file.frames, : file.size[1], : file.size[2]]


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_a_part_is_what_the_whole_has_there(name: str, tmp_path: Path) -> None:
    """Wherever it begins and ends: near the start, after the whole warm-up, at the end."""
    levels = 5 if "_41616_" in name else 4
    model = small_model(name, ch=4, ch_mult=(1,) * levels)
    factor = model.config.temporal_factor
    latents = first_exact_frame(model.decoder, 1) // factor + 5
    frames = 1 + (latents - 1) * factor
    write_tokens(tmp_path / "a", model, frames, (7, 8))
    model.double()
    with TokenFile(tmp_path / "a") as file:
        expected = whole(model, file)
        late = frames - 2 * factor
        assert model.start_latent(late) > 0
        for start, stop in ((3, 20), (late, late + 2), (frames - 1, frames)):
            decoding = Decoding(model, file, start, stop)
            part = torch.cat(list(decoding), 2)
            torch.testing.assert_close(part, expected[:, :, start:stop].float(), atol=1e-6, rtol=0)
            last = -(-(stop - 1 + model.decoder.delay) // factor) + 1
            assert decoding.latents == min(latents, last) - model.start_latent(start)


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_in_any_pieces(name: str, data: st.DataObject, tmp_path: Path) -> None:
    model = MODELS[name]
    frames = data.draw(st.integers(1, 90))
    write_tokens(tmp_path / "a", model, frames)
    with TokenFile(tmp_path / "a") as file:
        start = data.draw(st.integers(0, frames - 1))
        stop = data.draw(st.integers(start + 1, frames))
        factor = model.config.temporal_factor
        pieces = data.draw(st.none() | st.integers(1, 9).map(lambda n: n * factor))
        exact = EXACT[name]
        part = torch.cat(list(Decoding(exact, file, start, stop, pieces)), 2)
        torch.testing.assert_close(part, whole(exact, file)[:, :, start:stop].float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1])
def test_parts_in_float32_differ_by_rounding_alone(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    write_tokens(tmp_path / "a", model, 300)
    with TokenFile(tmp_path / "a") as file:
        expected = whole(model, file)
        for start, stop in ((3, 60), (280, 300)):
            part = torch.cat(list(Decoding(model, file, start, stop)), 2)
            tolerance = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(part, expected[:, :, start:stop], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_short_file_is_decoded_to_the_last_bit(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    video = to_float(draw(17 if model.is_causal else 16, 13, 22))
    z, log = model.encode(video, True, sample=False)
    discrete = "indices" in log
    coding = None if discrete else "float32"
    tokens.write(tmp_path / "a", log.get("indices", z), model, size=(video.shape[2], 13, 22), fps=24, coding=coding)
    with TokenFile(tmp_path / "a") as file:
        (decoded,) = Decoding(model, file)
    assert torch.equal(decoded, model.decode(z, size=(video.shape[2], 13, 22)))


@pytest.mark.parametrize("name", [KL_1_1, FSQ_NONCAUSAL])
def test_a_file_becomes_a_video(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    write_tokens(tmp_path / "a.vtok", model, 43, (22, 30), 12)
    done: list[int] = []
    result = decode_file(model, tmp_path / "a.vtok", tmp_path / "out.mp4", progress=done.append)
    assert (result.output, result.frames, result.height, result.width) == (tmp_path / "out.mp4", 43, 22, 30)
    assert (result.fps, result.damages, result.sound) == (Fraction(12), (), False)
    assert done[-1] == 43
    assert done == sorted(done)
    info = probe(tmp_path / "out.mp4")
    assert (info.frame_count, info.fps, info.width, info.height) == (43, 12, 30, 22)
    result = decode_file(model, tmp_path / "a.vtok", tmp_path / "part.mp4", DecodeOptions(start="1.5", end="30f"))
    assert result.frames == 12
    assert probe(tmp_path / "part.mp4").frame_count == 12
    assert result.latents < 43 // 4


def test_a_frame_as_a_picture_is_exact(tmp_path: Path) -> None:
    model = MODELS[FSQ_1_0]
    write_tokens(tmp_path / "a.vtok", model, 30)
    decode_file(model, tmp_path / "a.vtok", tmp_path / "out.png", DecodeOptions(start="17f", end="18f"))
    with TokenFile(tmp_path / "a.vtok") as file:
        expected = to_uint8(whole(model, file)[:, :, 17:18])
    difference = np.abs(read_video(tmp_path / "out.png").numpy().astype(int) - expected)
    assert difference.max() <= 1
    with pytest.raises(VideoError, match=r"is a picture, which holds one frame, but 30 are to be decoded"):
        DecodeJob(tmp_path / "a.vtok", tmp_path / "out.png")


def test_times_are_those_that_were_stored(tmp_path: Path) -> None:
    model = MODELS[KL_1_0]
    times = [round((i + i % 3 / 4) / 10, 3) + 2 for i in range(21)]
    values = make_clip(1, 4, 6, 1, 1)
    tokens.write(tmp_path / "a.vtok", values, model, size=(21, 8, 8), fps=10, times=times)
    for suffix in (".mp4", ".mkv"):
        decode_file(model, tmp_path / "a.vtok", tmp_path / f"out{suffix}", DecodeOptions(start="3f"))
        with VideoReader(tmp_path / f"out{suffix}") as reader:
            shown = [frame.time for frame in reader]
        np.testing.assert_allclose(shown, np.array(times[3:]) - times[3], atol=1e-6)
    assert leftovers(tmp_path) == ["a.vtok", "out.mkv", "out.mp4"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (0, 50)),
        ("0", "2", (0, 50)),
        ("10f", "20f", (10, 20)),
        ("0.4", "0.8", (10, 20)),
        ("0.41", "0.81", (10, 21)),
        (0.4, 0.8, (10, 20)),
        (Fraction(2, 5), None, (10, 50)),
        (1, "0:01.5", (25, 38)),
        ("0:00:01", "99:00:00", (25, 50)),
        (".5", "15f", (12, 15)),
        ("49f", "1e2f", None),
    ],
)
def test_parts_by_time_and_frame(
    start: Timestamp, end: Timestamp, expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    write_tokens(tmp_path / "a", MODELS[KL_NONCAUSAL], 50, fps=25)
    with TokenFile(tmp_path / "a") as file:
        if expected is None:
            with pytest.raises(TokenFileError, match=r"'1e2f' is no place in a video; expected seconds"):
                frame_range(file, start, end)
        else:
            assert frame_range(file, start, end) == expected


def test_parts_by_time_where_the_rate_varies(tmp_path: Path) -> None:
    times = [5 + i / 10 + (0.5 if i >= 6 else 0) for i in range(12)]
    model = MODELS[FSQ_NONCAUSAL]
    values = torch.zeros(1, 3, 1, 1, dtype=torch.int32)
    tokens.write(tmp_path / "a", values, model, size=(12, 8, 8), fps=10, times=times)
    with TokenFile(tmp_path / "a") as file:
        for start, end, expected in (("0.3", "0.5", (3, 5)), ("0.8", "1.2", (5, 7)), ("6f", None, (6, 12)),
                                     ("1.1", "1.3", (6, 8))):  # fmt: skip
            assert frame_range(file, start, end) == expected
        with pytest.raises(TokenFileError, match="ends before 2; expected an earlier start"):
            frame_range(file, "2", None)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("50f", None, r"has 50 frames, 2.08 s, and ends before 50f; expected an earlier start"),
        ("9", None, "ends before 9"),
        ("10f", "10f", "there are no frames from 10f to 10f in .*; expected a later end"),
        ("2", "1", "no frames from 2 to 1"),
        (None, 0, "no frames from 0f to 0"),
        ("-1", None, "'-1' is no place in a video; expected seconds .1.5 or 1:02.5. or a frame .100f."),
        (float("nan"), None, "nan is no place in a video"),
        ("ten", None, "'ten' is no place in a video"),
        ("1" * 30, None, "is no place in a video"),
    ],
)
def test_parts_that_are_not_there(start: Timestamp, end: Timestamp, message: str, tmp_path: Path) -> None:
    write_tokens(tmp_path / "a.vtok", MODELS[KL_1_0], 50)
    with pytest.raises(TokenFileError, match=message):
        DecodeJob(tmp_path / "a.vtok", tmp_path / "out.mp4", DecodeOptions(start=start, end=end))


def damage(path: Path, chunk: int) -> None:
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        content[file.entries[chunk].offset + 40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_0, FSQ_NONCAUSAL])
def test_what_is_damaged_is_named_and_the_rest_decoded(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    path = tmp_path / "a.vtok"
    write_tokens(path, model, 150)
    with TokenFile(path) as file:
        expected = whole(model, file)
        latent = file.header.latent
        first, last = latent.frames_before(latent.chunk), latent.frames_before(2 * latent.chunk) - 1
    damage(path, 1)
    message = rf"a.vtok: chunk 1 \(frames {first} to {last}\) is damaged: it does not match its checksum; decode the"
    with pytest.raises(DamagedTokenFileError, match=message):
        decode_file(model, path, tmp_path / "out.mp4")
    assert leftovers(tmp_path) == ["a.vtok"]
    # What needs nothing of that chunk is decoded all the same.
    assert decode_file(model, path, tmp_path / "out.mp4", DecodeOptions(end=f"{first - 8}f")).frames == first - 8
    result = decode_file(model, path, tmp_path / "out.mp4", DecodeOptions(skip_damaged=True))
    assert result.frames == 150
    (named,) = result.damages
    assert named.startswith(f"chunk 1 (frames {first} to {last}) is damaged")
    with TokenFile(path) as file:
        rest = torch.cat(list(Decoding(model, file, skip_damaged=True)), 2)
    before = first - model.decoder.delay if model.is_causal else first
    torch.testing.assert_close(rest[:, :, :before], expected[:, :, :before], atol=1e-4, rtol=0)
    assert (rest[:, :, first : last + 1] - expected[:, :, first : last + 1]).abs().max() > 0.01
    if not model.is_causal:
        torch.testing.assert_close(rest[:, :, last + 1 :], expected[:, :, last + 1 :], atol=1e-4, rtol=0)


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    model = MODELS[KL_1_0]
    path = tmp_path / "a.vtok"
    write_tokens(path, model, 150)
    content = path.read_bytes()
    with TokenFile(path) as file:
        first, third = file.entries[0].offset, file.entries[2].offset
    path.write_bytes(content[: third + 50])
    with pytest.raises(TokenFileError, match=r"has no end: it is still being written, or was cut off after 125 frames"):
        decode_file(model, path, tmp_path / "out.mp4")
    result = decode_file(model, path, tmp_path / "out.mp4", DecodeOptions(skip_damaged=True))
    assert result.frames == 125
    path.write_bytes(content[: first + 9])
    with pytest.raises(TokenFileError, match="has no frames in it that can be decoded; encode again"):
        decode_file(model, path, tmp_path / "out.mp4", DecodeOptions(skip_damaged=True))


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vtok"
    write_tokens(path, MODELS[KL_1_0], 20)
    with pytest.raises(TokenFileError, match=f"made with {KL_1_0}, which is not this {KL_1_1}"):
        decode_file(MODELS[KL_1_1], path, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match=r"expected one of .mp4"):
        decode_file(MODELS[KL_1_0], path, tmp_path / "out.avi")
    with pytest.raises(VidTokError, match="chunk_frames is 0; expected at least 1"):
        decode_file(MODELS[KL_1_0], path, tmp_path / "out.mp4", DecodeOptions(chunk_frames=0))
    broken = tiny_model(KL_1_0)
    with torch.no_grad():
        next(broken.decoder.parameters()).fill_(float("inf"))
    with pytest.raises(VidTokError, match=r"gives values that are not finite in float32; use float32 or bfloat16"):
        decode_file(broken, path, tmp_path / "out.mp4", allow_other=True)
    assert leftovers(tmp_path) == ["a.vtok"]


def test_damaged_files_give_an_error_or_a_video(tmp_path: Path) -> None:
    model = MODELS[FSQ_1_0]
    path = tmp_path / "a"
    write_tokens(path, model, 70, (8, 8))
    content = path.read_bytes()
    draws = random.Random(3)
    decoded = 0
    for _ in range(100):
        changed = mutated(content, draws)
        path.write_bytes(resealed(changed) if draws.random() < 0.7 else changed)
        try:
            with TokenFile(path) as file:
                if file.frames and file.size[1] * file.size[2] <= 4096 and file.frames < 1000:
                    tokens.check_model(file.header.model, model, path)
                    frames = sum(piece.shape[2] for piece in Decoding(model, file, skip_damaged=True))
                    assert frames == file.frames
                    decoded += 1
        except TokenFileError:
            continue
    assert decoded > 15


def test_a_token_file_is_never_replaced_by_its_video(tmp_path: Path) -> None:
    path = tmp_path / "tokens.mp4"
    write_tokens(path, MODELS[KL_1_1], 9)
    content = path.read_bytes()
    with pytest.raises(VideoError, match=r"tokens.mp4 is the input itself; give another output"):
        decode_file(MODELS[KL_1_1], path, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1])
@pytest.mark.parametrize("frames", [1, 16, 18, 23])
def test_a_file_of_a_clip_padded_in_front_has_its_frames(name: str, frames: int, tmp_path: Path) -> None:
    """Whatever the padding of the model that decodes, and in part as in whole."""
    model = EXACT[name].with_padding("front")
    video = make_clip(1, 3, frames, 16, 16).double()
    z, log = model.encode(video, True, sample=False)
    values = log.get("indices", z)
    path = tmp_path / "video.vtok"
    coding = None if model.regularization.discrete else "float32"
    tokens.write(path, values, model, size=(frames, 16, 16), fps=24, coding=coding)
    with TokenFile(path) as file:
        stored = file.read()
        assert file.frames == frames
        assert file.latent_frames == -(-frames // model.temporal_factor)
        assert file.header.latent.lead == (frames - 1) % model.temporal_factor + 1
        assert len(file.times()) == frames
        expected = model.decode(stored, model.regularization.discrete, size=file.size).float()
        for start, stop in ((0, frames), (0, 1), (frames // 2, frames), (min(2, frames - 1), -(-frames * 2 // 3))):
            pieces = list(Decoding(EXACT[name], file, start, stop))
            torch.testing.assert_close(torch.cat(pieces, 2), expected[:, :, start:stop], atol=1e-6, rtol=0)


def test_a_file_of_padding_at_the_end_does_not_mention_it(tmp_path: Path) -> None:
    write_tokens(tmp_path / "video.vtok", MODELS[FSQ_1_1], 9)
    with TokenFile(tmp_path / "video.vtok") as file:
        assert file.header.latent.lead is None
        assert b'"lead"' not in file.header.to_json()


@pytest.mark.parametrize(
    ("latent", "video"),
    [({"temporal_factor": 2}, {}), ({"causal": False}, {}), ({"spatial_factor": 16}, {"height": 24, "width": 24})],
)
def test_a_latent_that_is_not_as_the_model_makes_it(tmp_path: Path, latent: Any, video: Any) -> None:
    """Whatever the hashes in the header say."""
    model = MODELS[KL_1_0]
    write_tokens(tmp_path / "a.vtok", model, 5)
    with TokenFile(tmp_path / "a.vtok") as file:
        values, header = file.read(), file.header
    header = dataclasses.replace(
        header, latent=dataclasses.replace(header.latent, **latent), video=dataclasses.replace(header.video, **video)
    )
    with tokens.TokenWriter(tmp_path / "b.vtok", header) as writer:
        writer.write(values)
    with pytest.raises(TokenFileError, match=r"b\.vtok has a latent of another form than .* makes; get an undamaged"):
        decode_file(model, tmp_path / "b.vtok", tmp_path / "out.mp4")
    assert leftovers(tmp_path) == ["a.vtok", "b.vtok"]


@pytest.mark.parametrize("times", [[4.0, 3.0, 2.0, 1.0, 0.0], [0.0, 1e-300, 1.0, 1e12, 1e12], [-1e12, 0, 0, 0, 1e12]])
def test_times_that_no_video_has_give_a_video_or_one_error(tmp_path: Path, times: list[float]) -> None:
    model = MODELS[KL_1_0]
    write_tokens(tmp_path / "a.vtok", model, 5)
    with TokenFile(tmp_path / "a.vtok") as file:
        values, header = file.read(), file.header
    write_timed(tmp_path / "b.vtok", header, values, times)
    with pytest.raises(TokenFileError, match=r"has no time within 1e\+12 seconds of 0; give others"):
        write_timed(tmp_path / "c.vtok", header, values, [0.0, 1.0, 2.0, 3.0, 1e13])
    with contextlib.suppress(VideoError):
        assert decode_file(model, tmp_path / "b.vtok", tmp_path / "out.mp4").frames == 5
        (tmp_path / "out.mp4").unlink()
    assert leftovers(tmp_path) == ["a.vtok", "b.vtok"]


def write_timed(path: Path, header: tokens.TokenHeader, values: torch.Tensor, times: list[float]) -> None:
    with tokens.TokenWriter(path, header) as writer:
        writer.write(values, times)
