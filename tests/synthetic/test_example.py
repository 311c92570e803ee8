from __future__ import annotations

import itertools

import numpy as np

from vidtok.synthetic.example import CLIP_SIZE, draw_clip, write_clip
from vidtok.video import read_video


def test_the_clip_moves_smoothly_and_has_detail_and_colour() -> None:
    frames = np.stack(list(itertools.islice(draw_clip(), 4))).astype(float)
    assert frames.shape == (4, *CLIP_SIZE, 3)
    changes = abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert ((changes > 1) & (changes < 20)).all()
    assert frames.std() > 40
    assert abs(frames[..., 0] - frames[..., 2]).mean() > 20
    assert abs(np.diff(frames, axis=2)).mean() > 2


def test_the_clip_is_always_the_same() -> None:
    first, second = (list(draw_clip(3, (24, 32))) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_clip_as_a_file(tmp_path) -> None:
    video = read_video(write_clip(tmp_path / "clip.mp4"), max_frames=2).numpy().astype(float)
    drawn = np.stack(list(itertools.islice(draw_clip(), 2))).astype(float)
    assert abs(video - drawn).mean() < 4
