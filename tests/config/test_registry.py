from pathlib import Path

import pytest

from support import ALL_MODELS
from vidtok.config.read import read_config
from vidtok.config.registry import SHIPPED, entry, models
from vidtok.errors import ConfigError


def test_the_family_is_complete_and_in_the_published_order() -> None:
    assert list(models("vidtok")) == [*ALL_MODELS, *SHIPPED]
    names = ALL_MODELS
    assert len(names) == 23
    assert names[0] == "vidtok_kl_causal_488_4chn"
    assert names[-1] == "vidtok_fsq_causal_41616_262144_v1_1"


def test_entries_say_where_config_and_weights_are() -> None:
    first = entry("vidtok_kl_causal_488_4chn")
    assert (first.version, first.hub_repo) == ("1.0", "microsoft/VidTok")
    assert first.hub_file == "checkpoints/vidtok_kl_causal_488_4chn.ckpt"
    assert (first.psnr, first.ssim, first.lpips, first.fvd) == (29.64, 0.852, 0.114, 194.2)
    later = entry("vidtok_kl_causal_488_4chn_v1_1")
    assert later.version == "1.1"
    assert later.hub_file == "checkpoints/vidtok_v1_1/vidtok_kl_causal_488_4chn_v1_1.ckpt"
    assert later.psnr is later.ssim is later.lpips is later.fvd is None
    assert later.config.parent.name == "vidtok_v1_1"


@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_name_agrees_with_its_configuration(name: str) -> None:
    model = read_config(name).model
    _, kind, variant, compression, size, *version = name.split("_")
    assert model.bottleneck.kind == kind
    assert model.is_causal == (variant == "causal")
    assert (model.temporal_padding == "first_frame") == (model.interpolation == "linear") == bool(version)
    assert f"{model.temporal_factor}{model.spatial_factor}{model.spatial_factor}" == compression
    if model.bottleneck.kind == "kl":
        assert size == f"{model.z_channels}chn"
        assert model.moments_channels == 2 * model.z_channels
    else:
        assert model.bottleneck.codebook_size == int(size)
        assert set(model.bottleneck.levels) == {8}
    assert (model.ch, model.num_res_blocks, model.dropout, model.norm_type) == (128, 2, 0.0, "layernorm")


def test_every_name_has_its_file_at_the_published_place_in_the_repository() -> None:
    configs = Path(__file__).parents[2] / "configs"
    for name, known in models().items():
        folder = configs / "vidtwin" if known.family == "vidtwin" else configs
        folder = configs / "vidtok_v1_1" if known.version == "1.1" and name not in SHIPPED else folder
        assert (folder / f"{name}.yaml").read_text() == known.config.read_text()
    files = [path.stem for path in configs.rglob("*.yaml") if path.parent.name != "bases"]
    assert set(files) >= set(models())


def test_an_unknown_name_brings_the_near_ones_and_where_to_see_all() -> None:
    with pytest.raises(ConfigError) as caught:
        entry("vidtok_kl_causal_488_4ch")
    message = str(caught.value)
    assert "'vidtok_kl_causal_488_4ch'" in message
    assert "did you mean vidtok_kl_causal_488_4chn" in message
    assert "`vidtok models`" in message
    with pytest.raises(ConfigError, match="no model is called 'x'; `vidtok models` lists all 26"):
        entry("x")
