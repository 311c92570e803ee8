"""Odd clocks, pauses and any exception, through the jobs from file to file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.tiny import FSQ_1_0, tiny_model
from tests.video.test_clocks import joined, packed
from tests.video.video_files import click_time, make_video, numbered

from vidtok import Tokenizer
from vidtok.errors import VidTokError
from vidtok.jobs import EncodeOptions, decode_file, encode_file, encode_tree
from vidtok.jobs.encode import EncodeJob
from vidtok.jobs.reconstruct import ReconstructOptions, reconstruct
from vidtok.tokens import TokenFile
from vidtok.video import VideoReader, VideoWriter, source


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    return tiny_model(FSQ_1_0)


def times(path: Path) -> list[float]:
    with VideoReader(path) as reader:
        return [frame.time for frame in reader]


def two_at_once(folder: Path) -> Path:
    ticks = [40 * i for i in range(20)]
    ticks[5] = ticks[4]
    return packed(folder / "v.mkv", ticks, codec="ffv1", options={})


def one_in_hours(folder: Path) -> Path:
    return make_video(folder / "v.mp4", [numbered(i) for i in range(4)], fps=1, ticks=[0, 10, 36_007, 900_000])


def fast(folder: Path) -> Path:
    return make_video(folder / "v.mkv", [numbered(i) for i in range(24)], fps=10_000, options={"preset": "ultrafast"})


def slow(folder: Path) -> Path:
    with VideoWriter(folder / "v.mp4", Fraction(1, 50_000)) as writer:
        writer.write(np.stack([numbered(i) for i in range(3)]))
    return folder / "v.mp4"


def restarted(folder: Path) -> Path:
    return joined(folder, "ts", [range(20), range(50, 62)])


@pytest.mark.parametrize("make", [two_at_once, one_in_hours, fast, slow, restarted])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_all_that_can_be_encoded_can_be_decoded(make: Any, suffix: str, tmp_path: Path, model: Tokenizer) -> None:
    video = make(tmp_path)
    encode_file(model, video, tmp_path / "v.vtok", EncodeOptions(height=16, width=16))
    decode_file(model, tmp_path / "v.vtok", tmp_path / f"out{suffix}")
    reconstruct(model, video, tmp_path / f"r{suffix}", ReconstructOptions(height=16, width=16))
    expected = times(video)
    tick = 1.01e-3 if suffix == ".mkv" or video.suffix == ".mkv" else 1e-4
    for output in (tmp_path / f"out{suffix}", tmp_path / f"r{suffix}"):
        shown = times(output)
        assert len(shown) == len(expected)
        np.testing.assert_allclose(shown, expected, atol=tick + 1e-6)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_pause_stays_where_it_is(tmp_path: Path, model: Tokenizer) -> None:
    """The click is heard after a pause of the pictures, which the sound does not have."""
    ticks = [10 * i + (500 if i >= 10 else 0) for i in range(20)]
    video = make_video(tmp_path / "v.mp4", [numbered(i) for i in range(20)], fps=25, ticks=ticks)
    silent = tmp_path / "s.mp4"
    make_video(silent, [numbered(0)] * 70, fps=25, sound=True, options={"preset": "ultrafast"})
    with (
        av.open(str(video)) as pictures,
        av.open(str(silent)) as sounds,
        av.open(str(tmp_path / "in.mp4"), "w") as both,
    ):
        streams = [both.add_stream_from_template(s) for s in (pictures.streams.video[0], sounds.streams.audio[0])]
        for stream, packets in zip(streams, (pictures.demux(video=0), sounds.demux(audio=0)), strict=True):
            for packet in packets:
                if packet.size:
                    packet.stream = stream
                    both.mux(packet)
    reconstruct(model, tmp_path / "in.mp4", tmp_path / "out.mp4", ReconstructOptions(height=16, width=16))
    np.testing.assert_allclose(times(tmp_path / "out.mp4"), [tick / 250 for tick in ticks], atol=1e-4)
    assert click_time(tmp_path / "out.mp4") == pytest.approx(click_time(tmp_path / "in.mp4"), abs=0.03)
    # At a rate that is asked for, nothing varies.
    options = ReconstructOptions(height=16, width=16, fps=12.5)
    reconstruct(model, tmp_path / "in.mp4", tmp_path / "even.mp4", options)
    with VideoReader(tmp_path / "even.mp4") as reader:
        assert (reader.rate_varies, float(reader.fps)) == (False, 12.5)
    assert click_time(tmp_path / "even.mp4") == pytest.approx(click_time(tmp_path / "in.mp4"), abs=0.03)


def loud(path: Path) -> list[float]:
    """Seconds from the first frame at which sound is loud, a few hundredths apart counted once."""
    with av.open(str(path)) as container:
        first = float(next(container.decode(video=0)).time)
    found: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            over = np.flatnonzero(np.abs(frame.to_ndarray().astype(float)).max(0) > 0.3)
            at = float(frame.time) - first + (int(over[0]) / frame.sample_rate if len(over) else 0)
            if len(over) and (not found or at - found[-1] > 0.1):
                found.append(at)
    return found


def test_sound_of_recordings_one_after_another(tmp_path: Path, model: Tokenizer) -> None:
    """Each has its click half a second after its first frame."""
    video = joined(tmp_path, "ts", [range(30), range(50, 80), range(100, 130)], sound=True)
    reconstruct(model, video, tmp_path / "out.mp4", ReconstructOptions(height=16, width=16))
    assert times(tmp_path / "out.mp4") == pytest.approx([i / 25 for i in range(90)], abs=1e-3)
    assert loud(tmp_path / "out.mp4") == pytest.approx([0.5, 1.7, 2.9], abs=0.06)


@pytest.mark.parametrize("error", [IndexError("tuple index out of range"), ZeroDivisionError(), MemoryError("much")])
def test_whatever_one_file_of_a_folder_brings_about(
    error: Exception, tmp_path: Path, model: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        make_video(tmp_path / "in" / f"{name}.mp4", [numbered(i, (16, 48)) for i in range(5)])
    options, broken = EncodeOptions(height=16, width=16), tmp_path / "in" / "b.mp4"
    text = " ".join(str(error).split()) or type(error).__name__

    class Failing(source.FileSource):
        def frames(self, start: float) -> Iterator[Any]:
            if Path(self.path).name == "b.mp4":
                raise error
            return super().frames(start)

    with monkeypatch.context() as patched:
        patched.setattr(source, "FileSource", Failing)
        result = encode_tree(model, tmp_path / "in", tmp_path / "out", options)
    assert [encoded.output.name for encoded in result.encoded] == ["a.mp4.vtok", "c.mp4.vtok"]
    assert [(path.name, str(cause)) for path, cause in result.failed] == [
        ("b.mp4", f"{broken} cannot be read ({type(error).__name__}: {text}); get an undamaged copy, or convert it")
    ]
    # The same outside of what reads: a defect of ours is named, and costs one file.
    run = EncodeJob.run

    def failing(self: EncodeJob, *arguments: Any, **named: Any) -> Any:
        if self._output.name.startswith("b"):
            raise error
        return run(self, *arguments, **named)

    monkeypatch.setattr(EncodeJob, "run", failing)
    result = encode_tree(model, tmp_path / "in", tmp_path / "other", options)
    assert len(result.encoded) == 2
    assert [(path.name, type(cause), str(cause).split(":")[0]) for path, cause in result.failed] == [
        ("b.mp4", VidTokError, type(error).__name__)
    ]


def test_the_stream_that_is_asked_for(tmp_path: Path, model: Tokenizer) -> None:
    from tests.video.test_container import streams

    video = streams(tmp_path / "v.mkv", [(32, 96), (64, 192)])
    for number, size in ((None, (64, 192)), (0, (32, 96)), (1, (64, 192))):
        output = tmp_path / f"{number}.vtok"
        encode_file(model, video, output, EncodeOptions(stream=number))
        with TokenFile(output) as file:
            assert (file.header.video.height, file.header.video.width) == size
            assert file.header.encoding["settings"].get("stream") == number
