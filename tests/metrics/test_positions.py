"""Figures by place in a group: what repeats with a period is told from what does not."""

from __future__ import annotations

import numpy as np
import pytest

from vidtok.metrics.accumulate import Curve, VideoScores
from vidtok.metrics.positions import by_position


def curve(values: list[float]) -> Curve:
    made = Curve()
    made.update(0, values)
    return made


def test_the_first_frame_and_each_place_have_figures_of_their_own() -> None:
    found = by_position(curve([40.0, *[30.0, 31.0, 32.0, 34.0] * 3]).result(), 4, first_alone=True)
    assert found is not None
    assert (found.first, found.rest, found.means) == (40.0, 31.75, [30.0, 31.0, 32.0, 34.0])
    assert (found.spread, found.seam) == (4.0, 4.0)  # from the last place to the next group's first


def test_without_a_first_frame_places_count_from_it() -> None:
    found = by_position(curve([1.0, 2.0, 1.0, 2.0, 4.0]).result(), 2, first_alone=False)
    assert found is not None
    assert (found.first, found.rest, found.means) == (None, 2.0, [2.0, 2.0])


def test_every_frame_of_every_video_counts_the_same() -> None:
    both = curve([9.0, 1.0, 3.0])
    both.merge(curve([9.0, 5.0, 7.0, 2.0, 4.0]))
    found = by_position(both.result(), 2, first_alone=True)
    assert found is not None
    assert found.means == pytest.approx([(1 + 5 + 2) / 3, (3 + 7 + 4) / 3])
    assert found.rest == pytest.approx(np.mean([1, 3, 5, 7, 2, 4]))


def test_flicker_has_no_first_frame_and_long_videos_no_places() -> None:
    scores = VideoScores(points=8)
    scores.update(1, {"flicker": [1.0, 3.0, 1.0, 3.0]})
    found = by_position(scores.curve("flicker"), 2, first_alone=True)
    assert found is not None
    assert (found.first, found.means) == (None, [1.0, 3.0])
    scores.update(5, {"flicker": [1.0] * 20})  # now a point is several frames
    assert by_position(scores.curve("flicker"), 2, first_alone=True) is None


def test_there_are_none_where_a_place_has_no_frame() -> None:
    assert by_position(curve([1.0, 2.0, 3.0]).result(), 4, first_alone=True) is None
    assert by_position(Curve().result(), 4, first_alone=True) is None
