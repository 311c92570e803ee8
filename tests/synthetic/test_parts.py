"""Parts of procedural clips: random numbers, textures, camera, optics."""

import itertools
import math

import pytest
import torch

from vidtok.synthetic import SyntheticConfig, camera, draws, optics, textures

CPU = torch.device("cpu")
SMALL = SyntheticConfig(frames=5, height=32, width=40)


def stream(rows: int = 1, seed: int = 0) -> draws.Draws:
    return draws.Draws.of(seed, range(rows), CPU)


def path(position: torch.Tensor) -> camera.Path:
    return camera.Path(position, torch.zeros(position.shape[:2]), torch.zeros(position.shape[:2]))


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
