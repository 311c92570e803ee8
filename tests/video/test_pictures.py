"""Pictures, animations and folders of pictures as input."""

from fractions import Fraction

import numpy as np
import pytest
from tests.video.video_files import make_video, number_of, numbered

from vidtok.errors import VideoError
from vidtok.video import FOLDER_FPS, VideoReader, VideoWriter, probe, read_video


def picture(path, index, size=(32, 192)):
    with VideoWriter(path, 1) as writer:
        writer.write(numbered(index, size)[None])
    return path


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    path = picture(tmp_path / "one.png", 77)
    info = probe(path)
    assert (info.is_picture, info.fps, info.duration, info.frame_count) == (True, None, None, 1)
    assert (info.width, info.height, info.codec, info.pixel_format) == (192, 32, "png", "rgb24")
    with VideoReader(path, sample_fps=8, start=3.0) as reader:
        assert (reader.fps, reader.frame_estimate) == (1, 1)
        (frame,) = reader
        assert frame.time == 0
        np.testing.assert_array_equal(frame.pixels, numbered(77))


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), [("gif", "gif", "rgb8"), ("apng", "apng", "rgb24")])
def test_animations_are_videos_and_with_one_frame_pictures(tmp_path, suffix, codec, pix_fmt, count):
    path = make_video(
        tmp_path / f"moving.{suffix}", [numbered(i) for i in range(count)], codec=codec, pix_fmt=pix_fmt, fps=10
    )
    info = probe(path)
    assert info.is_picture == (count == 1)
    assert info.fps == (None if count == 1 else 10)
    with VideoReader(path) as reader:
        assert [number_of(frame.pixels) for frame in reader] == list(range(count))


def test_a_folder_is_read_in_natural_order(tmp_path):
    names = ["2.png", "10.png", "1.png", "frame 3.png", "frame 12.PNG"]
    for index, name in enumerate(names):
        picture(tmp_path / name, index)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    info = probe(tmp_path)
    assert (info.fps, info.frame_count, info.duration, info.is_picture) == (25, 5, 0.2, False)
    with VideoReader(tmp_path) as reader:
        frames = list(reader)
        assert [number_of(frame.pixels) for frame in frames] == [2, 0, 1, 3, 4]
        assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
        assert reader.fps == FOLDER_FPS == 25
    with VideoReader(tmp_path, sample_fps=12, start=0.04) as reader:
        assert [number_of(frame.pixels) for frame in reader] == [0, 3]
        assert reader.fps == Fraction(25, 2)
        assert reader.frame_estimate == 2
    assert read_video(tmp_path, max_frames=2, height=16).shape == (2, 16, 16, 3)


def test_pictures_of_a_folder_have_one_size(tmp_path):
    picture(tmp_path / "1.png", 1)
    picture(tmp_path / "2.png", 2, (32, 190))
    message = r"2\.png is 190 x 32, but 1\.png is 192 x 32; expected pictures of one size"
    with pytest.raises(VideoError, match=message):
        read_video(tmp_path)
    assert len(read_video(tmp_path, max_frames=1)) == 1


def test_a_folder_of_no_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(VideoError, match=r"is a folder with no pictures in it; expected files that end in \.png, "):
        VideoReader(tmp_path)


def test_a_percent_sign_in_a_name_is_no_pattern(tmp_path):
    path = picture(tmp_path / "q%03d.png", 5)
    picture(tmp_path / "q001.png", 9)
    (frame,) = read_video(path).numpy()
    assert number_of(frame) == 5


@pytest.mark.parametrize("name", ["a:b.png", "http:x.png", "concat:y.png"])
def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch, name):
    picture(tmp_path / "plain.png", 3)
    (tmp_path / "plain.png").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert number_of(read_video(name).numpy()[0]) == 3
