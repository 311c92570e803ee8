"""Short clips from anywhere in a video: the right frames, and little decoded for them."""

import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.video.test_reader import FAST, FORMATS
from tests.video.video_files import SIZE, make_video, number_of, numbered

from vidtok.errors import VideoError
from vidtok.video import DamagedVideoError, MediaSlice, VideoWriter, clip, decoder, read_clip
from vidtok.video.container import open_container, video_stream


def numbers(found: clip.Clip) -> list[int]:
    return [number_of(pixels) for pixels in found.pixels]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames at 30 a second, a key frame every tenth."""
    folder = tmp_path_factory.mktemp("clips")
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0", **FAST["libx264"]}
    return make_video(folder / "v.mp4", [numbered(i) for i in range(90)], options=options)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 77), st.sampled_from([0.01, 0.5, 0.99]))
def test_positions_share_the_possible_starts_evenly(video, first, within):
    # 5 frames, every third: 13 stored ones, so a clip can start at 78 of the 90.
    found = read_clip(video, 5, sample_fps=10, position=(first + within) / 78)
    assert numbers(found) == [first + 3 * i for i in range(5)]
    assert (found.fps, found.repeated) == (10, 0)
    assert found.start == pytest.approx(first / 30, abs=1e-3)
    assert found.pixels.shape == (5, *SIZE, 3)


def test_the_ends_of_the_range_are_the_ends_of_the_video(video):
    assert numbers(read_clip(video, 4)) == [0, 1, 2, 3]
    assert numbers(read_clip(video, 4, position=1.0)) == [86, 87, 88, 89]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_container_gives_whole_clips(tmp_path, suffix):
    codec, pixel_format = FORMATS[suffix]
    path = tmp_path / f"v.{suffix}"
    make_video(
        path, [numbered(i) for i in range(50)], codec=codec, pix_fmt=pixel_format, fps=25, options=FAST.get(codec)
    )
    for position in (0.0, 0.31, 0.77, 1.0):
        found = read_clip(path, 4, sample_fps=12.5, position=position)
        first = min(int(position * 44), 43)
        assert numbers(found) == [first, first + 2, first + 4, first + 6]
        assert found.repeated == 0


def test_clips_of_variable_rate_follow_the_clock(tmp_path):
    ticks = np.cumsum([0, *np.random.default_rng(0).choice([5, 10, 30], 79)])
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(80)], ticks=ticks.tolist())
    shown = ticks / 300

    def at(start: float) -> list[int]:
        return (np.searchsorted(shown, start + np.arange(9) / 15 + 1e-3, side="right") - 1).tolist()

    for position in np.linspace(0.05, 1, 6):
        found = read_clip(path, 9, sample_fps=15, position=float(position))
        first = numbers(found)[0]
        assert (found.repeated, found.fps) == (0, 15)
        assert any(numbers(found) == at(start) for start in np.arange(shown[first], shown[first + 1], 1e-3))


def test_short_videos_repeat_their_last_frame(tmp_path):
    path = make_video(tmp_path / "v.mp4", [numbered(i) for i in range(7)], fps=30)
    found = read_clip(path, 6, sample_fps=10, position=0.9)
    assert (numbers(found), found.repeated) == ([0, 3, 6, 6, 6, 6], 3)


def test_pictures_and_folders_of_pictures_are_clips_too(tmp_path):
    for i in range(12):
        with VideoWriter(tmp_path / f"{i}.png", fps=1) as picture:
            picture.write(numbered(i)[None])
    assert numbers(read_clip(tmp_path / "3.png", 3, position=0.7)) == [3, 3, 3]
    assert numbers(read_clip(tmp_path, 3, sample_fps=12.5, position=1.0)) == [7, 9, 11]


def test_a_start_frame_is_kept_to(video):
    for first in (0, 1, 37):
        assert numbers(read_clip(video, 3, sample_fps=15, start_frame=first)) == [first, first + 2, first + 4]
    found = read_clip(video, 3, sample_fps=15, start_frame=87, height=16)
    assert (numbers(read_clip(video, 3, sample_fps=15, start_frame=87)), found.repeated) == ([87, 89, 89], 1)
    assert found.pixels.shape == (3, 16, 16, 3)


def test_only_what_a_clip_needs_is_decoded(video, monkeypatch):
    decoded = []
    whole = decoder.StreamDecoder.pictures
    monkeypatch.setattr(decoder.StreamDecoder, "pictures", lambda self: (decoded.append(f) or f for f in whole(self)))
    found = read_clip(video, 5, sample_fps=10, position=58.5 / 78, threads=1)
    assert numbers(found)[0] == 58
    # The file's first frame for its size; then from the key frame at 50 to the last of the clip, 70, and those that are
    # stored before a frame that they are shown after.
    assert len(decoded) <= 1 + 21 + 3


def test_threads_are_the_caller_s_to_choose(video):
    with open_container(video) as container:
        assert video_stream(container, video, 1).codec_context.thread_count == 1


@pytest.mark.parametrize("seconds", [4, 60])
def test_a_header_that_promises_too_much_is_found_out(video, monkeypatch, seconds):
    monkeypatch.setattr(clip, "_stated_extent", lambda path: clip._Extent(seconds, Fraction(30)))
    assert numbers(read_clip(video, 4, position=0.99)) == [86, 87, 88, 89]


@pytest.mark.parametrize("name", ["v.mp4", "with, comma,,:.mp4", "file:%d.mp4"])
def test_a_video_inside_an_archive_is_read_like_a_file(video, tmp_path, name):
    archive = tmp_path / "a,,:b.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(__file__, "before.txt")
        tar.add(video, name)
        tar.add(__file__, "after.txt")
    with tarfile.open(archive) as tar:
        member = tar.getmember(name)
    inside = MediaSlice(str(archive), member.offset_data, member.size, name)
    for position in (0, 0.4, 1):
        expected = read_clip(video, 5, sample_fps=10, position=position)
        found = read_clip(inside, 5, sample_fps=10, position=position)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert found.start == expected.start
    assert str(inside) == f"{archive}/{name}"


def test_pictures_inside_an_archive_keep_within_it(tmp_path):
    with VideoWriter(tmp_path / "p.png", fps=1) as picture:
        picture.write(numbered(77)[None])
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "both").write_bytes(b"x" * 100 + data + b"y" * 100)
    assert numbers(read_clip(MediaSlice(str(tmp_path / "both"), 100, len(data), "p.png"), 1)) == [77]
    with pytest.raises(VideoError, match=r"both/q\.png is neither a video nor a picture"):
        read_clip(MediaSlice(str(tmp_path / "both"), 0, 100, "q.png"), 1)
    with pytest.raises(VideoError, match=r"gone/q\.png: no such file"):
        read_clip(MediaSlice(str(tmp_path / "gone"), 0, 100, "q.png"), 1)


def test_damage_matters_where_the_clip_is(tmp_path):
    options = {"g": "10", **FAST["libx264"]}
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(90)], options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert numbers(read_clip(path, 4, position=0.1)) == [8, 9, 10, 11]
    with pytest.raises(DamagedVideoError, match=r"v\.mkv is cut off or damaged"):
        read_clip(path, 4, position=0.99)


@pytest.mark.parametrize(("frames", "changes"), [(0, {}), (1, {"position": 1.1}), (1, {"start_frame": -1})])
def test_values_out_of_range_are_told(video, frames, changes):
    with pytest.raises(VideoError, match=r"were asked for; expected at least 1 frame, a position from 0 to 1, and"):
        read_clip(video, frames, **changes)


def test_a_start_frame_beyond_the_end_is_told(video):
    with pytest.raises(
        VideoError, match=r"v\.mp4 has 90 frames, so no clip can start at frame 90; expected a longer video"
    ):
        read_clip(video, 3, start_frame=90)


def published(total: int, frames: int, interval: int, start: int) -> list[int]:
    """The frames that published training takes from `start` on."""
    frames = min(frames, total)
    last = min(total - 1, start + (frames - 1) * interval + 1)
    return np.floor(np.linspace(start, last, frames)).astype(int).tolist()


@pytest.mark.parametrize(("position", "first"), [(0.0, 0), (37.5 / 77, 37), (76.5 / 77, 76), (1.0, 76)])
def test_published_clips_take_their_last_frame_later(video, position, first):
    # 5 frames, every third and one more: they span 14, so a clip can start at 77 of the 90.
    found = read_clip(video, 5, sample_fps=10, position=position, published=True)
    assert numbers(found) == published(90, 5, 3, first) == [first + i for i in (0, 3, 6, 9, 13)]
    assert (found.fps, found.repeated) == (10, 0)
    assert found.start == pytest.approx(first / 30, abs=1e-3)


@pytest.mark.parametrize("total", [13, 14])
def test_published_clips_of_short_videos_are_denser(tmp_path, total):
    path = make_video(tmp_path / "v.mp4", [numbered(i) for i in range(total)], fps=30)
    found = read_clip(path, 5, sample_fps=10, position=0.9, published=True)
    assert numbers(found) == published(total, 5, 3, 0) == {13: [0, 3, 6, 9, 12], 14: [0, 3, 6, 9, 13]}[total]
    assert (found.start, found.repeated) == (0, 0)
    found = read_clip(path, 10, sample_fps=10, published=True)
    assert numbers(found) == published(total, 10, 3, 0)
    assert found.fps == Fraction(30 * 9, total - 1)
    found = read_clip(path, total + 2, sample_fps=10, position=0.5, published=True)
    assert numbers(found) == [*range(total), total - 1, total - 1]
    assert (found.fps, found.repeated) == (30, 2)


def test_published_clips_from_a_frame_on_end_with_the_video(video):
    assert numbers(read_clip(video, 5, sample_fps=15, start_frame=37, published=True)) == published(90, 5, 2, 37)
    found = read_clip(video, 5, sample_fps=15, start_frame=87, published=True)
    assert numbers(found) == published(90, 5, 2, 87) == [87, 87, 88, 88, 89]
    with pytest.raises(VideoError, match=r"v\.mp4 has 90 frames, so no clip can start at frame 90"):
        read_clip(video, 5, start_frame=90, published=True)


@pytest.mark.parametrize("seconds", [0.4, 4, 60])
def test_published_clips_trust_no_header(video, monkeypatch, seconds):
    monkeypatch.setattr(clip, "_stated_extent", lambda path: clip._Extent(seconds, Fraction(30)))
    assert numbers(read_clip(video, 5, sample_fps=10, position=1.0, published=True)) == published(90, 5, 3, 76)


def test_published_clips_of_variable_rate_follow_the_clock_where_they_can(tmp_path):
    ticks = np.cumsum([0, *np.random.default_rng(0).choice([5, 10, 30], 39)])
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(40)], ticks=ticks.tolist())
    for position in (0.1, 1.0):
        found = read_clip(path, 4, sample_fps=15, position=position, published=True)
        assert (found.repeated, found.fps) == (0, 15)
        first = numbers(found)[0]
        starts = np.arange(ticks[first], ticks[first + 1]) / 300
        shown = [(np.searchsorted(ticks / 300, s + np.arange(4) / 15 + 1e-3, side="right") - 1) for s in starts]
        assert any(numbers(found) == each.tolist() for each in shown)
    assert numbers(read_clip(path, 30, sample_fps=3, published=True)) == published(40, 30, 9, 0)


def test_published_clips_of_pictures_repeat_them(tmp_path):
    for i in range(6):
        with VideoWriter(tmp_path / f"{i}.png", fps=1) as picture:
            picture.write(numbered(i)[None])
    assert numbers(read_clip(tmp_path / "3.png", 3, sample_fps=8, position=0.7, published=True)) == [3, 3, 3]
    assert numbers(read_clip(tmp_path, 4, sample_fps=12.5, published=True)) == published(6, 4, 2, 0)


def test_clips_narrower_than_the_crop_are_enlarged_or_have_black_sides(video):
    height, width = SIZE
    wide = {"height": height, "width": 2 * width, "start_frame": 37}
    bordered = read_clip(video, 1, enlarge=False, **wide).pixels[0]
    assert bordered.shape == (height, 2 * width, 3)
    np.testing.assert_array_equal(
        bordered[:, width // 2 : -(width // 2)], read_clip(video, 1, start_frame=37).pixels[0]
    )
    assert not bordered[:, [*range(width // 2), *range(-(width // 2), 0)]].any()
    assert number_of(read_clip(video, 1, **wide).pixels[0]) == 37
