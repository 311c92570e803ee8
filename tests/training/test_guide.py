"""The guided start: what encoder and decoder are held to, and that a model learns so."""

from __future__ import annotations

import pytest
import torch
from tests.training.test_module import FSQ, changed, fit, make, tiny, weights
from tests.twin import CONFIG
from torch import Tensor

from vidtok import VidTwin
from vidtok.errors import ConfigError
from vidtok.evaluation.linear import BlockShape, BlockTransform
from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.training.config import TrainingConfig
from vidtok.training.guide import TransformGuide


def clips(count: int = 2, frames: int = 9) -> Tensor:
    return synthetic_batch(SyntheticConfig(frames=frames, height=32, width=40), 5, range(count))


@pytest.fixture(scope="module")
def guide() -> TransformGuide:
    shape = BlockShape(4, 8, 16, first_alone=False)
    return TransformGuide(BlockTransform.fit(shape, [clips(8, 16)]), lead=3)


def test_the_wanted_latent_has_a_models_shape_and_unit_variance(guide: TransformGuide) -> None:
    assert guide.latent(clips()).shape == (2, 16, 3, 4, 5)
    inner = TransformGuide(guide._transform, lead=0).latent(clips(8, 16))
    assert torch.allclose(inner.var((0, 2, 3, 4), correction=0), torch.ones(16), atol=1e-3)


def test_the_first_frame_counts_as_a_block_of_equal_ones(guide: TransformGuide) -> None:
    video = clips()
    still = TransformGuide(guide._transform, lead=0).latent(video[:, :, :1].expand(-1, -1, 4, -1, -1))
    assert torch.allclose(guide.latent(video)[:, :, :1], still, atol=1e-5)


def test_the_loss_is_zero_where_both_are_right_and_counts_each_part(guide: TransformGuide) -> None:
    video = clips()
    wanted = guide.latent(video)
    sure = torch.full_like(wanted, -8)
    loss, parts = guide.loss(torch.cat([wanted, sure], 1), video, video)
    assert float(loss) == pytest.approx(0, abs=1e-9)
    wrong = wanted.clone()
    wrong[:, 3] += 2
    assert float(guide.loss(torch.cat([wrong, sure], 1), video, video)[0]) == pytest.approx(4 / 16, rel=1e-4)
    assert float(guide.loss(torch.cat([wanted, sure + 8], 1), video, video)[0]) > 0.1
    # one colour's error is told by the coefficients as well as by the pixels
    tinted = video.clone()
    tinted[:, 0] += 0.1
    loss, parts = guide.loss(torch.cat([wanted, sure], 1), tinted, video)
    assert float(parts["guide_encoder"]) == 0
    assert float(parts["rec_loss"]) == pytest.approx(0.01 / 3, rel=1e-3)
    assert float(loss) > 20 * float(parts["rec_loss"])


def test_half_precision_around_it_changes_nothing(guide: TransformGuide) -> None:
    video = clips()
    with torch.autocast("cpu", torch.bfloat16):
        inside = guide.latent(video)
    assert torch.equal(inside, guide.latent(video))


def test_a_guided_model_learns_both_halves_apart_and_then_goes_on_together() -> None:
    module = make(tiny(ch=16), settings=TrainingConfig(base_learning_rate=3e-3, guide_steps=4))
    assert module._guide is not None
    video = clips(2, 5)
    moments, reconstruction = module.model.moments(video), module.model.decode(module._guide.latent(video))
    before = module._guide.loss(moments, reconstruction, video)[1]
    seen: list[set[str]] = []
    log = module.log_dict
    module.log_dict = lambda values, **options: (seen.append(set(values)), log(values, **options))[1]  # type: ignore[method-assign]
    fit(module, video, 6)
    assert ["train/guide_encoder" in names for names in seen] == [True] * 4 + [False] * 2
    moments, reconstruction = module.model.moments(video), module.model.decode(module._guide.latent(video))
    after = module._guide.loss(moments, reconstruction, video)[1]
    assert after["guide_encoder"] < before["guide_encoder"]


def test_a_discrete_model_is_guided_to_values_that_use_all_levels_and_decodes_their_codes() -> None:
    module = make(tiny(FSQ), settings=TrainingConfig(base_learning_rate=3e-3, guide_steps=2))
    guide = module._guide
    assert guide is not None
    video = clips(8, 17)
    codes = guide.latent(video)
    assert torch.equal(codes, module.model.regularization(guide._coefficients(video) / guide._deviations(video))[0])
    for channel in codes.unbind(1):
        assert len(channel.unique()) == 8
    values = guide._coefficients(video) / guide._deviations(video)
    assert float(guide.loss(values, video, video)[0]) == pytest.approx(0, abs=1e-9)
    assert float(guide.loss(values + 1, video, video)[0]) == pytest.approx(1, rel=1e-4)
    fit(module, clips(2, 5), 3)
    assert module.batches_done == 3


def test_the_discriminator_waits_until_the_guide_is_done() -> None:
    settings = TrainingConfig(base_learning_rate=1e-3, guide_steps=2)
    adversarial = {"disc_weight": 0.2, "disc_start": 0}
    module = make(tiny(ch=16), adversarial, settings)
    before = weights(module.loss.discriminator)
    video = clips(2, 5)
    fit(module, video, 2 * 2)  # two optimiser steps a batch
    assert changed(before, module.loss.discriminator) == set()
    assert module.batches_done == 2
    module = make(tiny(ch=16), adversarial, settings)
    fit(module, video, 2 * 3)
    assert changed(before, module.loss.discriminator) != set()


def test_refuses_a_model_whose_latent_is_not_of_blocks() -> None:
    twin = VidTwin(CONFIG)
    with pytest.raises(ConfigError, match=r"guide_steps is set, and this model cannot be guided: .* leave it out"):
        TransformGuide.fit(CONFIG, twin.regularization)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fix_encoder": True}, "guide_steps is 4 and a part is fixed; expected both to learn, or 0"),
        ({"guide_steps": -1}, "guide_steps is -1; expected a whole number of steps"),
    ],
)
def test_refuses_what_it_cannot_guide(settings: dict[str, object], said: str) -> None:
    def guided() -> None:
        values = TrainingConfig(base_learning_rate=1e-3, **{"guide_steps": 4, **settings})  # type: ignore[arg-type]
        make(settings=values)

    with pytest.raises(ConfigError, match=said):
        guided()
