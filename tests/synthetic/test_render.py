"""Procedural clips: what they look like, that they depend on seed and index alone, and how they are shared out."""

import itertools
import math
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vidtok.errors import ConfigError
from vidtok.synthetic import (
    SyntheticClips,
    SyntheticConfig,
    camera,
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


class TestConfig:
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("frames", 0, "a whole number of at least 1"),
            ("frames", 4.0, "a whole number of at least 1"),
            ("height", 8, "a whole number of at least 16"),
            ("width", True, "a whole number of at least 16"),
            ("clips_per_scene", 0, "a whole number of at least 1"),
            ("max_objects", -1, "a whole number of at least 0"),
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
        monkeypatch.setattr("vidtok.synthetic.dataset.synthetic_batch", mark)
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
