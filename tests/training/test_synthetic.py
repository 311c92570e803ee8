"""Procedural clips: what they look like, that they depend on seed and index alone, and how they are shared out."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vidtok.errors import ConfigError
from vidtok.training.synthetic import (
    SyntheticClips,
    SyntheticConfig,
    camera,
    draws,
    optics,
    render,
    synthetic_batch,
    textures,
)

CPU = torch.device("cpu")
SMALL = SyntheticConfig(frames=5, height=32, width=40)
PLAIN = {
    "max_objects": 0,
    "warp_share": 0.0,
    "light_share": 0.0,
    "max_noise": 0.0,
    "overlay_share": 0.0,
    "letterbox_share": 0.0,
    "cut_share": 0.0,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Many small operations: on a busy machine threads wait for each other far longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stream(rows: int = 1, seed: int = 0) -> draws.Draws:
    return draws.Draws.of(seed, range(rows), CPU)


def path(position: torch.Tensor) -> camera.Path:
    return camera.Path(position, torch.zeros(position.shape[:2]), torch.zeros(position.shape[:2]))


class TestConfig:
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("frames", 0, "a whole number from 1 up"),
            ("frames", 4.0, "a whole number from 1 up"),
            ("height", 8, "a whole number from 16 up"),
            ("width", True, "a whole number from 16 up"),
            ("clips_per_scene", 0, "a whole number from 1 up"),
            ("max_objects", -1, "a whole number from 0 up"),
            ("max_objects", 9, "at most 8"),
            ("static_share", 0.6, "a number from 0 to 0.5"),
            ("cut_share", 1.1, "a number from 0 to 1"),
            ("max_speed", 0, "a number from 0.1 to 100"),
            ("clutter", float("nan"), "a number from 0 to 1"),
            ("saturation", "high", "a number from 0 to 4"),
            ("max_defocus", -1, "a number from 0 to 32"),
        ],
    )
    def test_refuses_values_out_of_range(self, name: str, value: object, expected: str) -> None:
        with pytest.raises(ConfigError, match=rf"synthetic clips: {name} is .*; expected {expected}\. Change it"):
            SyntheticConfig(**{name: value})

    def test_every_knob_is_documented(self) -> None:
        documented = (SyntheticConfig.__doc__ or "").replace(",", ":")
        assert [field.name for field in fields(SyntheticConfig) if f"{field.name}:" not in documented] == []


class TestDraws:
    def test_mix_is_a_bijection(self) -> None:
        values = torch.arange(0, 1 << 18)
        hashed = draws.mix(values * 16384 + 5)
        assert hashed.unique().numel() == values.numel()
        assert hashed.min() >= 0
        assert hashed.max() < 1 << 32

    def test_uniform_numbers_are_even_and_uncorrelated(self) -> None:
        u = stream(64).uniform(4096)
        counts = torch.histc(u, 16, 0, 1) / u.numel()
        assert torch.allclose(counts, torch.full((16,), 1 / 16), atol=2e-3)
        assert abs(float(torch.corrcoef(torch.stack([u[:, :-1].flatten(), u[:, 1:].flatten()]))[0, 1])) < 5e-3
        assert abs(float(torch.corrcoef(torch.stack([u[:-1].flatten(), u[1:].flatten()]))[0, 1])) < 5e-3

    def test_rows_do_not_depend_on_each_other(self) -> None:
        whole, one = stream(6), stream(6).select(torch.tensor([4]))
        for shape in ((3,), (100, 2), (90,), (1000,)):
            assert torch.equal(whole.uniform(*shape)[4:5], one.uniform(*shape))

    def test_forks_differ_and_repeat(self) -> None:
        first, again = stream(2).fork("a").uniform(100), stream(2).fork("a").uniform(100)
        assert torch.equal(first, again)
        assert not torch.isclose(first, stream(2).fork("b").uniform(100)).any(1).all()
        assert not torch.equal(first[0], first[1])

    def test_seed_and_index_use_all_64_bits(self) -> None:
        keys = [
            tuple(draws.Draws.of(seed, [index], CPU).keys[0].tolist())
            for seed, index in ((0, 0), (1, 0), (0, 1), (1 << 40, 0), (0, 1 << 40), (-1, 0))
        ]
        assert len(set(keys)) == len(keys)

    def test_distributions(self) -> None:
        source = stream(4)
        spread = source.log_uniform(20000, low=0.5, high=8.0)
        assert float(spread.min()) >= 0.5 - 1e-6
        assert float(spread.max()) <= 8.0 + 1e-5
        assert float(spread.median()) == pytest.approx(2.0, rel=0.03)
        assert float(source.happens(0.3, 20000).mean()) == pytest.approx(0.3, abs=0.01)
        normal = source.normal(20000)
        assert float(normal.mean()) == pytest.approx(0, abs=0.02)
        assert float(normal.std()) == pytest.approx(1, abs=0.02)
        pairs = source.pairs(20000)
        assert float(pairs.mean()) == pytest.approx(0, abs=0.01)
        assert float(pairs.std()) == pytest.approx(1 / math.sqrt(3), abs=0.01)


class TestTextures:
    def test_noise_has_unit_variance_and_a_natural_slope(self) -> None:
        noise = textures.noise_fields(stream(8), 120, 180)
        assert noise.shape == (8, 4, 120, 180)
        assert torch.allclose(noise.mean((-2, -1)), torch.zeros(8, 4), atol=1e-4)
        assert torch.allclose(noise.square().mean((-2, -1)), torch.ones(8, 4), atol=1e-3)
        power = torch.fft.rfft2(noise[:, 0]).abs().square()
        fy, fx = textures.frequencies(120, 180, CPU)
        radius = (fy.square() + fx.square()).sqrt().expand(120, -1)
        low = power[:, (radius > 0.03) & (radius < 0.05)].mean(1)
        high = power[:, (radius > 0.24) & (radius < 0.4)].mean(1)
        slope = 0.5 * (high / low).log() / math.log(8)
        assert ((slope > -1.7) & (slope < -0.6)).all()

    def test_cells_are_undone(self) -> None:
        planes = torch.randn(2, 3, 120, 180)
        for size in ((10, 10), (60, 60), (120, 180)):
            cells = textures._to_cells(planes, size)
            assert cells.shape == (2, 3, (120 // size[0]) * (180 // size[1]), size[0] * size[1])
            assert torch.equal(textures._from_cells(cells, size, 120, 180), planes)
        assert torch.equal(textures._to_cells(planes, (60, 60))[1, 2, 4].view(60, 60), planes[1, 2, 60:, 60:120])

    def test_clutter_adds_edges(self) -> None:
        def edges(clutter: float) -> float:
            config = SyntheticConfig(clutter=clutter, text_share=0)
            colour = textures.dead_leaves(stream(8), config, 180, 180, textures.OBJECT_PASSES).colour
            return float(((colour[..., 1:] - colour[..., :-1]).abs().mean(1) > 0.1).float().mean())

        assert edges(1.0) > 2 * edges(0.0)

    def test_saturation_scales_colour(self) -> None:
        grey, vivid = (textures.palette(stream(32), saturation) for saturation in (0.0, 2.0))
        assert torch.allclose(grey, grey[..., :1].expand_as(grey))
        assert float((vivid.amax(-1) - vivid.amin(-1)).mean()) > 0.05

    def test_silhouettes_end_inside_their_canvas(self) -> None:
        canvas = textures.dead_leaves(stream(16), SMALL, 180, 180, (60,))
        alpha = textures.silhouettes(stream(16), canvas)
        assert float(alpha.min()) >= 0
        assert float(alpha.max()) <= 1
        border = torch.cat([alpha[..., 0, :], alpha[..., -1, :], alpha[..., 0], alpha[..., -1]], -1)
        assert not border.any()
        covered = (alpha > 0.5).float().mean((1, 2, 3))
        assert float(covered.median()) > 0.03
        assert float(covered.max()) < 0.9

    def test_shaded_colour_is_premultiplied(self) -> None:
        canvas = textures.dead_leaves(stream(8), SMALL, 180, 180, (60,))
        layer = textures.shaded(canvas, torch.zeros(8, 1, 180, 180), stream(8))
        assert not layer.any()
        full = textures.shaded(canvas, torch.ones(8, 1, 180, 180), stream(8))
        assert torch.allclose(full[:, :3], canvas.colour * full[:, 3:], rtol=1e-3, atol=1e-3)

    def test_text_is_strokes(self) -> None:
        ink, alpha = textures.text(stream(12), 180, 180)
        assert ink.shape == (12, 3, 1, 1)
        assert float(alpha.min()) >= 0
        assert float(alpha.max()) <= 1
        covered = (alpha > 0.2).float().mean((1, 2))
        assert float(covered.median()) > 0.002
        assert float(covered.max()) < 0.5


class TestCamera:
    times = torch.arange(9.0).sub(4).expand(400, -1)

    def test_shares_of_still_and_moving_cameras(self) -> None:
        config = SyntheticConfig(static_share=0.3)
        seen = camera.camera(stream(400), config, self.times)
        moves = (seen.position - seen.position[:, :1]).norm(dim=-1).amax(1)
        still = (moves == 0) & (seen.angle == seen.angle[:, :1]).all(1) & (seen.zoom == seen.zoom[:, :1]).all(1)
        assert float(still.float().mean()) == pytest.approx(0.3, abs=0.07)
        assert float((moves > 8).float().mean()) > 0.1
        assert float(moves[~still].min()) > 0

    def test_max_speed_bounds_pans(self) -> None:
        slow = camera.camera(stream(400), SyntheticConfig(max_speed=0.1), self.times)
        fast = camera.camera(stream(400), SyntheticConfig(max_speed=30), self.times)
        assert float(camera.drift(slow.matrix()).norm(dim=-1).quantile(0.9)) < 3
        assert float(camera.drift(fast.matrix()).norm(dim=-1).quantile(0.9)) > 4

    def test_matrix_turns_and_scales(self) -> None:
        one = camera.Path(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[math.pi / 2]]), torch.tensor([[math.log(2)]]))
        seen = one.matrix()[0, 0] @ torch.tensor([2.0, 0.0, 1.0])
        assert torch.allclose(seen, torch.tensor([3.0, 5.0]), atol=1e-6)

    def test_parallax(self) -> None:
        """A pan to the right by 10 pixels moves a thing at depth 2 by 20 to the left, one at depth 0 not at all."""
        eye = path(torch.tensor([[[0.0, 0.0], [10.0, 0.0]]]).repeat(2, 1, 1))
        thing = path(torch.tensor([[[1.0, 2.0], [1.0, 2.0]]]).repeat(2, 1, 1))
        matrix = camera.seen_by(eye, thing, torch.tensor([2.0, 0.0]))
        moved = matrix[:, 1, :, 2] - matrix[:, 0, :, 2]
        assert torch.allclose(moved, torch.tensor([[20.0, 0.0], [0.0, 0.0]]))
        assert torch.allclose(matrix[1, 0, :, 2], torch.tensor([-1.0, -2.0]))
        assert torch.allclose(camera.drift(matrix), moved)

    def test_drift_of_a_picture_is_nothing(self) -> None:
        assert not camera.drift(path(torch.ones(2, 1, 2)).matrix()).any()

    def test_cuts(self) -> None:
        shots = camera.shots(stream(300), SyntheticConfig(cut_share=0.5))
        switches = (shots.shot[:, 1:] != shots.shot[:, :-1]).sum(1)
        assert not shots.shot[:, 0].any()
        assert int(switches.max()) == 1
        assert float(switches.float().mean()) == pytest.approx(0.5, abs=0.1)

    def test_bending_is_smooth(self) -> None:
        config = SyntheticConfig(frames=9, height=64, width=48)
        field = camera.bending(stream(4), config, self.times[:4])
        assert field.shape == (4, 9, 64, 48, 2)
        assert float(field.abs().amax()) > 0.3
        assert float((field[:, :, :, 1:] - field[:, :, :, :-1]).abs().amax()) < 2.0


class TestOptics:
    @staticmethod
    def spread(response: torch.Tensor) -> tuple[float, float]:
        """Variance along y and x of a point's image at the middle of a square."""
        offset = torch.arange(response.shape[-1]) - response.shape[-1] // 2
        return float((response.sum(1) * offset**2).sum()), float((response.sum(0) * offset**2).sum())

    def point(self) -> torch.Tensor:
        planes = torch.zeros(1, 1, 60, 60)
        planes[..., 30, 30] = 1
        return planes

    def test_gaussian_disc_and_streak(self) -> None:
        zero, still = torch.zeros(1), torch.zeros(1, 2)
        soft = optics.blur(self.point(), torch.tensor([2.0]), zero, still, zero)[0, 0]
        assert float(soft.sum()) == pytest.approx(1, abs=1e-4)
        assert self.spread(soft) == pytest.approx((4, 4), rel=0.01)
        # A uniform disc has a variance of r^2 / 4 along each axis, a uniform line of length^2 / 12.
        gaussian = torch.tensor([0.8])
        disc = optics.blur(self.point(), gaussian, torch.tensor([6.0]), still, zero)[0, 0]
        assert self.spread(disc) == pytest.approx((9.64, 9.64), rel=0.05)
        line = optics.blur(self.point(), gaussian, zero, torch.tensor([[9.0, 0.0]]), zero)[0, 0]
        assert self.spread(line) == pytest.approx((0.64, 7.39), rel=0.05)

    def test_sharpening_overshoots_edges_and_keeps_the_mean(self) -> None:
        planes = torch.zeros(1, 1, 60, 60)
        planes[..., 20:40] = 1
        sharp = optics.blur(planes, torch.tensor([0.8]), torch.zeros(1), torch.zeros(1, 2), torch.tensor([0.8]))
        assert float(sharp.amax()) > 1.05
        assert float(sharp.mean()) == pytest.approx(1 / 3, abs=1e-4)

    def test_noise_has_its_strength_and_differs_between_frames(self) -> None:
        video = optics.sensor_noise(torch.zeros(2, 3, 6, 64, 64), stream(2), torch.tensor([0.0, 0.1]))
        assert not video[0].any()
        assert float(video[1, 1].std()) == pytest.approx(0.1, rel=0.05)
        for first, second in itertools.combinations(video[1, 1], 2):
            assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.1

    def test_caption_stands_still(self) -> None:
        config = SyntheticConfig(frames=3, height=64, width=64, overlay_share=1.0)
        before = torch.full((6, 3, 3, 64, 64), 0.5)
        after = optics.caption(before.clone(), stream(6), config)
        assert (after != before).any(dim=4).any(dim=3).any(dim=2).any(dim=1).sum() >= 4
        assert torch.equal(after[:, :, :1].expand_as(after), after)
        assert torch.equal(optics.caption(before.clone(), stream(6), SyntheticConfig(overlay_share=0)), before)

    def test_letterbox_blackens_the_borders(self) -> None:
        config = SyntheticConfig(frames=2, height=64, width=64, letterbox_share=1.0)
        video = optics.letterbox(torch.ones(12, 3, 2, 64, 64), stream(12), config)
        assert (video[..., 32, 32] == 1).all()
        barred = [bool((clip[:, :, 0] == 0).all() or (clip[..., 0] == 0).all()) for clip in video]
        assert sum(barred) >= 4

    def test_contrast_fades_only_where_asked(self) -> None:
        video = torch.rand(60, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
        assert torch.equal(optics.fade_contrast(video.clone(), stream(60), SyntheticConfig()), video)
        faded = optics.fade_contrast(video.clone(), stream(60), SyntheticConfig(low_contrast_share=0.5))
        left = faded.std((2, 3, 4)) / video.std((2, 3, 4))
        untouched = (faded == video).flatten(1).all(1)
        assert 0.3 < float(untouched.float().mean()) < 0.7
        assert float(left[~untouched].amax()) < 0.61
        assert 0.039 < float(left[~untouched].amin()) < 0.1
        levels = faded[~untouched].mean((1, 2, 3, 4))
        assert float(levels.amin()) < 0.25
        assert float(levels.amax()) > 0.75

    def test_light_changes_only_where_asked(self) -> None:
        times, shot = torch.arange(-4.0, 5).expand(40, -1), torch.zeros(40, 9)
        grey = torch.full((40, 3, 9, 16, 16), 0.5)
        dark = optics.relight(grey.clone(), stream(40), SyntheticConfig(light_share=0.0), times, shot)
        assert torch.allclose(dark, grey)
        lit = optics.relight(grey.clone(), stream(40), SyntheticConfig(light_share=1.0), times, shot)
        changes = (lit[:, :, 1:] - lit[:, :, :-1]).abs().amax((1, 2, 3, 4))
        assert float((changes > 1e-3).float().mean()) > 0.9
        assert float(lit.min()) >= 0


class TestRender:
    def test_a_pan_shifts_the_picture(self) -> None:
        """Whole texels of movement shift the frames by whole pixels where the canvas has a texel for every pixel."""
        config = SyntheticConfig(frames=4, height=40, width=48)
        canvas = torch.rand(1, 3, 60, 60)
        steps = torch.arange(4.0)[None, :, None] * torch.tensor([5.0, -4.0])
        # 1.25 texels a pixel: zooming in by as much leaves one.
        eye = camera.Path(steps / 1.25 + 4000, torch.zeros(1, 4), torch.full((1, 4), math.log(textures.DENSITY)))
        video = render._wrapped(canvas, eye.matrix(), config, None)
        for t in range(1, 4):
            expected = torch.roll(video[0, :, 0], (0, 0), (1, 2))[:, : 40 - 4 * t, 5 * t :]
            assert torch.allclose(video[0, :, t, 4 * t :, : 48 - 5 * t], expected, atol=1e-3)

    def test_things_hide_what_is_behind(self) -> None:
        below, layer = torch.full((2, 3, 1, 2, 2), 0.4), torch.zeros(1, 4, 1, 2, 2)
        layer[0, :, 0, 0, 0] = torch.tensor([0.9, 0.8, 0.7, 1.0])
        layer[0, :, 0, 1, 1] = torch.tensor([0.3, 0.3, 0.3, 0.5])
        seen = render._over(below.clone(), layer, torch.tensor([1]))
        assert torch.equal(seen[0], below[0])
        assert torch.allclose(seen[1, :, 0, 0, 0], torch.tensor([0.9, 0.8, 0.7]))
        assert torch.allclose(seen[1, :, 0, 1, 1], torch.full((3,), 0.5))
        assert torch.allclose(seen[1, :, 0, 0, 1], torch.full((3,), 0.4))

    @settings(max_examples=8, deadline=None)
    @given(
        frames=st.integers(1, 6),
        height=st.integers(16, 70),
        width=st.integers(16, 70),
        objects=st.integers(0, 4),
        scene=st.integers(1, 3),
        seed=st.integers(-(2**63), 2**63),
    )
    def test_any_shape(self, frames: int, height: int, width: int, objects: int, scene: int, seed: int) -> None:
        config = SyntheticConfig(frames, height, width, clips_per_scene=scene, max_objects=objects)
        clips = synthetic_batch(config, seed, [3, 7])
        assert clips.shape == (2, 3, frames, height, width)
        assert clips.dtype == torch.float32
        assert float(clips.min()) >= -1
        assert float(clips.max()) <= 1
        assert float(clips.std()) > 0

    def test_the_number_of_threads_is_left_as_it_was(self) -> None:
        torch.set_num_threads(2)
        try:
            synthetic_batch(SMALL, 0, [0])
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)

    def test_nothing_asked_nothing_made(self) -> None:
        assert synthetic_batch(SMALL, 0, []).shape == (0, 3, 5, 32, 40)

    @pytest.mark.parametrize("scene", [1, 3])
    def test_a_clip_depends_on_seed_and_index_alone(self, scene: int) -> None:
        config = SyntheticConfig(frames=5, height=32, width=40, clips_per_scene=scene)
        clips = synthetic_batch(config, 7, range(8))
        again = synthetic_batch(config, 7, [6, 1, 1, 4])
        assert torch.allclose(again, clips[[6, 1, 1, 4]], atol=1e-4)
        assert float((synthetic_batch(config, 8, range(8)) - clips).abs().mean((1, 2, 3, 4)).min()) > 1e-3
        pairs = itertools.combinations(range(8), 2)
        assert min(float((clips[a] - clips[b]).abs().mean()) for a, b in pairs) > 1e-3

    def test_still_clips_are_still(self) -> None:
        config = SyntheticConfig(frames=4, height=32, width=32, static_share=0.5, **PLAIN)
        clips = synthetic_batch(config, 0, range(16))
        changes = (clips[:, :, 1:] - clips[:, :, :1]).abs().amax((1, 2, 3, 4))
        assert 4 <= int((changes < 1e-5).sum()) <= 12

    def test_cut_shows_another_view(self) -> None:
        config = SyntheticConfig(frames=6, height=48, width=48, static_share=0.5, **{**PLAIN, "cut_share": 1.0})
        clips = synthetic_batch(config, 0, range(12))
        changes = (clips[:, :, 1:] - clips[:, :, :-1]).square().mean((1, 3, 4)).sqrt()
        highest, others = changes.amax(1), changes.sort(1).values[:, :-1].amax(1)
        assert int((highest > 4 * others).sum()) >= 8

    def test_statistics_are_those_of_photographs(self) -> None:
        clips = synthetic_batch(SyntheticConfig(frames=1), 0, range(24))[:, :, 0]
        centred = clips.flatten(2) - clips.flatten(2).mean(-1, keepdim=True)
        covariance = centred @ centred.mT
        scale = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1e-9).sqrt()
        correlation = covariance / scale[:, :, None] / scale[:, None]
        assert float(correlation[:, 0, 1].median()) > 0.9

        light = clips.mean(1)
        window = torch.hann_window(128)
        power = torch.fft.rfft2((light - light.mean((-2, -1), keepdim=True)) * window * window[:, None]).abs().square()
        fy, fx = textures.frequencies(128, 128, CPU)
        radius = (fy.square() + fx.square()).sqrt()
        low = power[:, (radius > 0.03) & (radius < 0.05)].mean(1)
        high = power[:, (radius > 0.18) & (radius < 0.3)].mean(1)
        slope = 0.5 * (high / low).log().median() / math.log(6)
        assert -2.1 < float(slope) < -1.2

        gradient = light[..., 1:] - light[..., :-1]
        kurtosis = gradient.pow(4).mean((1, 2)) / gradient.square().mean((1, 2)).square()
        assert float(kurtosis.median()) > 10

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_makes_the_same_clips(self) -> None:
        here, there = (synthetic_batch(SMALL, 0, range(6), device) for device in ("cpu", "cuda"))
        # A texel may fall on the other side of a contour; the picture is the same.
        assert float((here - there.cpu()).abs().mean()) < 1e-3


def mark(config: object, seed: int, indices: list[int], device: object) -> torch.Tensor:
    return torch.tensor([float(index) for index in indices])


class TestDataset:
    @pytest.fixture
    def marked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clips that are their own index."""
        monkeypatch.setattr("vidtok.training.synthetic.dataset.synthetic_batch", mark)
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)

    @staticmethod
    def take(clips: SyntheticClips, count: int) -> list[int]:
        return [int(index) for index in itertools.islice(clips, count)]

    def test_yields_the_clips_of_its_seed(self) -> None:
        clips = SyntheticClips(SMALL, seed=3, start=2, block=2, rank=0, world_size=1)
        for index, clip in enumerate(itertools.islice(clips, 3), 2):
            assert torch.allclose(clip, synthetic_batch(SMALL, 3, [index])[0], atol=1e-4)
            assert torch.allclose(clip, clips.clip(index), atol=1e-4)

    @pytest.mark.usefixtures("marked")
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_batches_do_not_depend_on_the_number_of_workers(self, workers: int) -> None:
        clips = SyntheticClips(SMALL, 0, start=10, block=4, rank=1, world_size=2)
        loader = DataLoader(clips, batch_size=4, num_workers=workers)
        batches = [batch.int().tolist() for batch in itertools.islice(loader, 3)]
        assert batches == [[14, 15, 16, 17], [22, 23, 24, 25], [30, 31, 32, 33]]

    @pytest.mark.usefixtures("marked")
    def test_ranks_share_the_sequence(self) -> None:
        shares = [self.take(SyntheticClips(SMALL, 0, block=2, rank=r, world_size=3), 8) for r in range(3)]
        assert sorted(itertools.chain(*shares)) == list(range(24))

    @pytest.mark.usefixtures("marked")
    def test_ranks_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.take(SyntheticClips(SMALL, 0), 3) == [0, 1, 2]
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "4")
        assert self.take(SyntheticClips(SMALL, 0), 3) == [1, 5, 9]

    @pytest.mark.usefixtures("marked")
    def test_ranks_from_torch_distributed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        group = SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: 2, get_world_size=lambda: 3
        )
        monkeypatch.setattr(torch, "distributed", group)
        assert self.take(SyntheticClips(SMALL, 0), 2) == [2, 5]

    @pytest.mark.usefixtures("marked")
    def test_resumes_where_it_stopped(self) -> None:
        clips = SyntheticClips(SMALL, 0, block=2, rank=0, world_size=2)
        assert clips.state_dict() == {"next_index": 0}
        assert self.take(clips, 4) == [0, 1, 4, 5]
        assert clips.state_dict() == {"next_index": 8}
        other = SyntheticClips(SMALL, 0, block=2, rank=1, world_size=2)
        other.load_state_dict(clips.state_dict())
        assert self.take(other, 2) == [10, 11]
        assert self.take(clips, 2) == [8, 9]

    @pytest.mark.usefixtures("marked")
    def test_a_block_begun_is_begun_again(self) -> None:
        clips = SyntheticClips(SMALL, 0, block=4, rank=0, world_size=1)
        self.take(clips, 6)
        assert clips.state_dict() == {"next_index": 4}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"start": -1}, "start -1 and block 1; expected start >= 0 and block >= 1"),
            ({"block": 0}, "start 0 and block 0; expected start >= 0 and block >= 1"),
            ({"rank": 0}, "give both rank and world_size, or neither"),
            ({"rank": 2, "world_size": 2}, "rank 2 of 2; expected a rank from 0 to world_size - 1"),
        ],
    )
    def test_refuses(self, arguments: dict[str, int], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SyntheticClips(SMALL, 0, **arguments)
