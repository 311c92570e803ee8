"""Ranges, resize and crop."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import VideoError
from vidtok.video import Fit, as_rate, resize_and_crop, to_float, to_uint8

ALL_LEVELS = np.arange(256 * 3, dtype=np.uint8).reshape(2, 8, 16, 3)


@pytest.mark.parametrize("given", [ALL_LEVELS, torch.from_numpy(ALL_LEVELS)], ids=["array", "tensor"])
def test_float_and_back_is_exact(given):
    video = to_float(given)
    assert video.shape == (1, 3, 2, 8, 16)
    assert video.dtype == torch.float32
    assert video.min() == -1
    assert video.max() == 1
    assert video[0, 1, 1, 3, 5] == ALL_LEVELS[1, 3, 5, 1] / 127.5 - 1
    np.testing.assert_array_equal(to_uint8(video), ALL_LEVELS)
    np.testing.assert_array_equal(to_uint8(video[0].half()), ALL_LEVELS)


def test_values_out_of_range_are_clamped_and_others_rounded():
    video = torch.tensor([-7.0, -1.001, 0.0, 0.5, 0.999, 1.2]).reshape(1, 1, 1, 1, 6).expand(1, 3, 1, 1, 6)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]


@pytest.mark.parametrize(
    ("convert", "wrong"),
    [
        (to_float, np.zeros((2, 8, 8, 3), np.float32)),
        (to_float, torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
        (to_uint8, torch.zeros(2, 3, 1, 8, 8)),
        (to_uint8, torch.zeros(4, 1, 8, 8)),
        (to_uint8, torch.zeros(3, 1, 8, 8, dtype=torch.uint8)),
    ],
)
def test_other_shapes_and_types_are_refused(convert, wrong):
    with pytest.raises(VideoError, match=r"of shape \(.*\); expected"):
        convert(wrong)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600), st.integers(1, 600))
def test_the_crop_always_fits(rows, columns, height, width):
    fit = Fit.plan((rows, columns), height, width)
    assert fit.cropped == (height, width)
    assert fit.resized[0] >= height
    assert fit.resized[1] >= width
    assert fit.resized[0] == height or fit.resized[1] in (width, height)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600))
def test_a_square_is_the_published_resize(rows, columns, size):
    longer = int(size * max(rows, columns) / min(rows, columns))
    expected = (size, longer) if rows <= columns else (longer, size)
    assert Fit.plan((rows, columns), size, size) == Fit(expected, (size, size))
    assert Fit.plan((rows, columns), size, None) == Fit.plan((rows, columns), None, size) == Fit(expected, (size, size))


def test_the_resize_is_that_of_a_float_picture_rounded_once():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 161, 3), np.uint8)
    got = resize_and_crop(pixels, 40, 56)
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    resized = torch.nn.functional.interpolate(picture, (40, 71), mode="bilinear", antialias=True)
    expected = (resized[0] * 255).permute(1, 2, 0).numpy()[:, 8:64]
    assert got.shape == (40, 56, 3)
    assert np.abs(got - expected).max() <= 0.501


def test_frames_of_the_right_size_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    np.testing.assert_array_equal(resize_and_crop(pixels), pixels)
    np.testing.assert_array_equal(resize_and_crop(pixels, 20, 30), pixels)
    np.testing.assert_array_equal(resize_and_crop(pixels, 20), pixels[:, :, 5:25])


@pytest.mark.parametrize(("width", "left", "right"), [(5, 0, 0), (6, 0, 1), (8, 1, 2), (9, 2, 2)])
def test_frames_narrower_than_the_crop_may_have_black_sides(width, left, right):
    fit = Fit.plan((20, 10), 5, width, enlarge=False)
    assert fit == Fit((10, 5), (5, width))
    got = fit(np.full((20, 10, 3), 200, np.uint8))
    assert got.shape == (5, width, 3)
    shown = np.flatnonzero(got.any((0, 2)))
    assert (shown[0], width - 1 - shown[-1]) == (left, right)
    assert (got[:, left : width - right] == 200).all()
    assert Fit.plan((20, 30), 5, 6, enlarge=False) == Fit.plan((20, 30), 5, 6)


@pytest.mark.parametrize(("height", "width", "name"), [(0, 8, "height"), (8, -1, "width")])
def test_sizes_below_one_are_refused(height, width, name):
    with pytest.raises(VideoError, match=f"{name} is .*; expected at least 1 pixel"):
        Fit.plan((10, 10), height, width)


def test_sizes_that_nothing_can_store_are_refused():
    with pytest.raises(VideoError, match="width is 65536; expected at most 65535 pixels"):
        Fit.plan((10, 10), 8, 65536)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (25, Fraction(25)),
        (30.0, Fraction(30)),
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (Fraction(7, 3), Fraction(7, 3)),
        (0.5, Fraction(1, 2)),
        (1e-5, Fraction(1, 100_000)),
    ],
)
def test_rates(fps, rate):
    assert as_rate(fps) == rate


@pytest.mark.parametrize("fps", [0, -1, 1e-9, 9.9e-6, float("nan"), float("inf"), Fraction(-1, 2), 1e21])
def test_rates_that_are_none(fps):
    with pytest.raises(VideoError, match=r"frame rate is .*; expected a positive number"):
        as_rate(fps)
