import contextlib
import copy
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from support import ALL_MODELS
from vidtok.config.read import read_config, show
from vidtok.config.registry import models
from vidtok.errors import ConfigError
from vidtok.models.config import FSQConfig, KLConfig

NAME = "vidtok_kl_causal_488_4chn"
NETWORK = "model.params.encoder_config.params"

# A file as the authors' repository carries them, with keys of the lineage that have one value in this family.
PUBLISHED = """
model:
  base_learning_rate: 1e-5
  target: vidtok.models.autoencoder_v1_1.AutoencodingEngine
  params:
    monitor: val/rec_loss
    mode: min
    ckpt_path: checkpoints/model.ckpt
    ignore_keys: []
    encoder_config:
      target: vidtok.modules.model_3dcausal_v1_1.EncoderCausal3DPadding
      params:
        double_z: false
        z_channels: 5
        in_channels: 3
        out_ch: 3
        ch: 128
        ch_mult: [1, 2, 4, 4]
        time_downsample_factor: 8
        num_res_blocks: 2
        dropout: 0.0
        use_checkpoint: false
        init_pad_mode: replicate
        norm_type: layernorm
        interpolation_mode: trilinear
        tempo_ds: [0, 1, 2]
        tempo_us: [1, 2, 3]
        fix_encoder: false
        fix_decoder: false
        is_causal: true
        attn_resolutions: []
        resamp_with_conv: true
        give_pre_end: false
        tanh_out: false
    decoder_config:
      target: vidtok.modules.model_3dcausal_v1_1.DecoderCausal3DPadding
      params: ${model.params.encoder_config.params}
    regularizer_config:
      target: vidtok.modules.regularizers.FSQRegularizer
      params:
        levels: [8, 8, 8, 8, 8]
        entropy_loss_weight: 0.1
        entropy_loss_annealing_steps: 2000
        entropy_loss_annealing_factor: 3
        commitment_loss_weight: 0.25
        num_codebooks: 1
        dim: 5
    loss_config:
      target: vidtok.modules.losses.GeneralLPIPSWithDiscriminator
      params: {dims: 3, disc_type: 2d, regularization_weights: {aux_loss: 1.0}}
data:
  target: vidtok.data.datamodule.DataModuleFromConfig
  params:
    batch_size: 2
    train: {target: vidtok.data.vidtok.VidTokDataset, params: {data_dir: videos}}
lightning:
  strategy: {target: lightning.pytorch.strategies.DDPStrategy}
  callbacks: {image_logger: {target: vidtok.modules.logger.ImageVideoLogger}}
  trainer: {precision: bf16-mixed}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def with_value(key: str, value: Any) -> dict[str, Any]:
    """The sections of a model of the family with `value` at the dotted `key`; the decoder's follow the encoder's."""
    config = OmegaConf.create(show(NAME))
    OmegaConf.update(config, key, value, force_add=True, merge=False)
    return OmegaConf.to_container(config)  # type: ignore[return-value]


def test_a_published_file_describes_the_model_that_bears_its_name(tmp_path: Path) -> None:
    run = read_config(write(tmp_path / "mine.yaml", PUBLISHED))
    assert run.model == read_config("vidtok_fsq_causal_888_32768_v1_1").model
    assert (run.name, run.ckpt_path) == ("mine", "checkpoints/model.ckpt")
    assert run.raw["model"]["base_learning_rate"] == 1e-5
    assert run.raw["model"]["params"]["decoder_config"]["params"]["z_channels"] == 5
    assert run.raw["lightning"]["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_file_has_the_published_sections_and_values(name: str) -> None:
    raw = read_config(name).raw
    params = raw["model"]["params"]
    assert raw["model"]["base_learning_rate"] == 1e-5
    assert (params["monitor"], params["mode"]) == ("val/rec_loss", "min")
    assert params["decoder_config"]["params"] == params["encoder_config"]["params"]
    assert params["loss_config"]["params"] == {
        "dims": 3,
        "perceptual_weight": 1.0,
        "disc_start": 20001,
        "disc_weight": 0.2,
        "disc_type": "2d",
        "disc_loss": "hinge",
        "learn_logvar": True,
        "gen_loss_cross_entropy": True,
        "lecam_loss_weight": 0.005,
        "regularization_weights": {"kl_loss": 1e-6} if "_kl_" in name else {"aux_loss": 1.0},
    }
    data = raw["data"]["params"]
    frames = 16 if "_noncausal_" in name else 17
    for part, fps in (("train", 3), ("validation", 8)):
        video = data[part]["params"]["video_params"]
        assert (video["sample_num_frames"], video["sample_fps"]) == (frames, fps)
    assert raw["lightning"]["modelcheckpoint"]["params"]["every_n_train_steps"] == 5000


def test_names_files_and_mappings_mean_the_same() -> None:
    by_name = read_config(NAME)
    by_file = read_config(models()[NAME].config)
    assert by_name == by_file
    assert read_config(by_name.raw).model == by_name.model
    assert read_config(OmegaConf.to_container(OmegaConf.create(PUBLISHED))).model == (  # type: ignore[arg-type]
        read_config("vidtok_fsq_causal_888_32768_v1_1").model
    )


def test_defaults_fill_in_what_a_short_file_leaves_out(tmp_path: Path) -> None:
    text = """
        model:
          target: vidtok.models.autoencoder.AutoencodingEngine
          params:
            encoder_config: {target: vidtok.modules.model_3dnoncausal.Encoder3D, params: {z_channels: 6}}
            decoder_config: {target: vidtok.modules.model_3dnoncausal.Decoder3D}
            regularizer_config:
              target: vidtok.modules.regularizers.FSQRegularizer
              params: {levels: [8, 6, 5, 5, 4, 3]}
    """
    model = read_config(write(tmp_path / "short.yaml", text)).model
    assert model.bottleneck == FSQConfig(levels=(8, 6, 5, 5, 4, 3))
    assert (model.temporal_padding, model.interpolation, model.ch) == ("both_sides", "nearest", 128)


def test_overrides_go_over_everything_and_keep_interpolations() -> None:
    run = read_config(
        NAME,
        [
            f"{NETWORK}.ch=64",
            "--model.base_learning_rate=1e-4",
            f"{NETWORK}.ch_mult=[1,2,2,2]",
            "data.params.new={a: 1}",
        ],
    )
    assert (run.model.ch, run.model.ch_mult) == (64, (1, 2, 2, 2))
    assert run.raw["model"]["params"]["decoder_config"]["params"]["ch"] == 64
    assert run.raw["model"]["base_learning_rate"] == 1e-4
    assert run.raw["data"]["params"]["new"] == {"a": 1}
    assert read_config(NAME).model.ch == 128


def test_the_regularisers_sampling_is_read() -> None:
    assert read_config(NAME).model.bottleneck == KLConfig(sample=True)
    run = read_config(NAME, ["model.params.regularizer_config.params.sample=false"])
    assert run.model.bottleneck == KLConfig(sample=False)


def test_version_1_1_may_interpolate_as_1_0_does() -> None:
    run = read_config(f"{NAME}_v1_1", [f"{NETWORK}.interpolation_mode=nearest"])
    assert (run.model.temporal_padding, run.model.interpolation) == ("first_frame", "nearest")


def test_show_gives_the_whole_file_which_reads_as_the_name_does(tmp_path: Path) -> None:
    text = show(NAME)
    assert "base:" not in text
    assert "params: ${model.params.encoder_config.params}" in text
    assert text.index("target: vidtok.modules.model_3dcausal.EncoderCausal3DPadding") < text.index("z_channels: 4")
    whole = read_config(write(tmp_path / f"{NAME}.yaml", text))
    assert whole == read_config(NAME)


def test_what_has_no_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vidtok"):
        read_config(NAME, [f"{NETWORK}.resolution=256", "model.params.use_tiling=true"])
    assert "model.params.encoder_config.params.resolution has no effect here" in caplog.text
    assert "model.params.use_tiling has no effect here" in caplog.text
    caplog.clear()
    read_config(NAME)
    assert not caplog.records


FSQ = "vidtok.modules.regularizers.FSQRegularizer"
V11 = "vidtok.modules.model_3dcausal_v1_1."


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("modle", {}, r"configuration: modle is not known \(did you mean model\?\)"),
        ("model.parms", {}, r"model\.parms is not known \(did you mean params\?\)"),
        ("model.params.monitr", "x", r"model\.params\.monitr is not known \(did you mean monitor\?\)"),
        (f"{NETWORK}.z_chanels", 4, r"encoder_config\.params\.z_chanels is not known \(did you mean z_channels"),
        (f"{NETWORK}.qqq", 4, r"encoder_config\.params\.qqq is not known; expected some of z_channels, in_channels"),
        ("model.params.encoder_config.parms", {}, r"encoder_config\.parms is not known \(did you mean params\?\)"),
        (
            "model.params.regularizer_config.params.sampel",
            True,
            r"params\.sampel is not known \(did you mean sample\?\)",
        ),
        (f"{NETWORK}.time_downsample_factor", 2, r"time_downsample_factor is 2; expected 4 \(tempo_ds \[1, 2\]\)"),
        (f"{NETWORK}.double_z", False, r"double_z is False; expected True \(DiagonalGaussianRegularizer takes mean"),
        (f"{NETWORK}.double_z", "yes", r"double_z is 'yes'; expected true or false"),
        (f"{NETWORK}.is_causal", False, r"is_causal is False; expected True \(as the targets say\)"),
        (f"{NETWORK}.fix_encoder", 1, r"fix_encoder is 1; expected true or false"),
        (
            f"{NETWORK}.interpolation_mode",
            "trilinear",
            r"interpolation_mode is 'trilinear'; causal 1\.0 models know near",
        ),
        (f"{NETWORK}.init_pad_mode", "constant", r"init_pad_mode is 'constant'; the family knows 'replicate' alone"),
        (f"{NETWORK}.attn_resolutions", [16], r"attn_resolutions is \[16\]; the family knows \[\] alone"),
        (f"{NETWORK}.tanh_out", True, r"tanh_out is True; the family knows False alone"),
        (f"{NETWORK}.interpolation_mode", ["nearest"], r"interpolation_mode is \['nearest'\]; causal 1\.0 models know"),
        (f"{NETWORK}.is_causal", "x" * 5000, r"is_causal is 'xxx[x]*\.\.\.; expected true or false$"),
        (f"{NETWORK}.z_channels", "four", r"z_channels is 'four'; expected a whole number"),
        ("model.params.decoder_config.params", None, None),
        (f"{NETWORK}.spatial_ds", [1, 2], r"spatial_us is \[1, 2, 3\]; expected as many levels as spatial_ds \[1, 2\]"),
        ("model.params.regularizer_config", 3, r"model\.params\.regularizer_config is 3; expected a mapping"),
        (
            "model.params.encoder_config.target",
            "os.system",
            r"encoder_config\.target is 'os\.system', which is not known; expected one that the published",
        ),
        (
            "model.params.encoder_config.target",
            FSQ,
            r"is vidtok.*FSQRegularizer, a name for the regularizer; the encoder is",
        ),
        (
            "model.params.encoder_config.target",
            None,
            r"encoder_config\.target is missing; expected one of vidtok\.modules",
        ),
        (
            "model.params.encoder_config.target",
            f"{V11}EncoderCausal3DPadding",
            r"is for causal 1\.1 models and .*decoder",
        ),
        (
            "model.target",
            "vidtok.models.autoencoder_v1_1.AutoencodingEngine",
            r"is for causal 1\.0 models and model\.tar",
        ),
        (
            "model.target",
            "vidtok.models.vidtok.autoencoder.AutoencodingEngin",
            r"did you mean vidtok\.models\.autoencoder\.Auto",
        ),
        (
            "data.target",
            "vidtok.data.vidtok.VidTokDataset",
            r"data\.target is .*, a name for the dataset; the data module",
        ),
        (
            "data.params.train.target",
            "mine.Dataset",
            r"data\.params\.train\.target is 'mine\.Dataset', which is not known",
        ),
        (
            "lightning.callbacks.mine",
            {"target": "subprocess.run"},
            r"lightning\.callbacks\.mine\.target is 'subprocess\.",
        ),
        ("lightning.loggers", [{"target": "a.B"}], r"lightning\.loggers\[0\]\.target is 'a\.B', which is not known"),
        ("model.params.loss_config", None, r"model\.params\.loss_config is None; expected a mapping"),
        ("model.params.optimizer_config.target", "torch.optim.Adan", r"did you mean torch\.optim\.Adam"),
        ("model.params.ckpt_path", 3, r"model\.params\.ckpt_path is 3; expected a path or null"),
    ],
)
def test_errors_name_key_place_and_what_was_expected(key: str, value: Any, expected: str | None) -> None:
    values = with_value(key, value)
    if expected is None:
        assert read_config(values).model == read_config(NAME).model
        return
    with pytest.raises(ConfigError, match=r"^configuration: ") as caught:
        read_config(values)
    assert caught.match(expected)


RAW = read_config(NAME).raw
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def leaves(values: dict[str, Any], place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The place of every value in `values`, sections included."""
    found = []
    for key, value in values.items():
        found.append((*place, key))
        if isinstance(value, dict):
            found += leaves(value, (*place, key))
    return found


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_value_of_any_kind_anywhere_brings_nothing_but_a_config_error(data: st.DataObject) -> None:
    raw = copy.deepcopy(RAW)
    *section, key = data.draw(st.sampled_from(leaves(raw)))
    parent = raw
    for part in section:
        parent = parent[part]
    parent[key] = data.draw(VALUES)
    with contextlib.suppress(ConfigError):
        read_config(raw)


def test_encoder_and_decoder_must_agree() -> None:
    with pytest.raises(
        ConfigError, match=r"encoder_config\.params\.ch is 128 and .*decoder_config\.params\.ch 64; expected"
    ):
        read_config(NAME, ["model.params.decoder_config.params.ch=64"])


@pytest.mark.parametrize("key", ["model", "model.params", "model.params.regularizer_config", "model.target"])
def test_what_a_model_needs_is_missed(key: str) -> None:
    parent, _, last = key.rpartition(".")
    values = OmegaConf.create(read_config(NAME).raw)
    del (OmegaConf.select(values, parent) if parent else values)[last]
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        read_config(OmegaConf.to_container(values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, r"levels is missing; expected the number of values of each channel"),
        ({"levels": [8, 8, 8]}, r"z_channels is 4; expected 3, one a level of the bottleneck \[8, 8, 8\]"),
        ({"levels": [8, 8, 8, 1]}, r"levels is \[8, 8, 8, 1\]; expected at least one channel with at least 2"),
        ({"levels": [8] * 4, "dim": 5}, r"dim is 5; expected 4, one a level of \[8, 8, 8, 8\], or none"),
        ({"levels": [8] * 4, "num_codebooks": 2}, r"num_codebooks is 2; the family knows 1 alone"),
        (
            {"levels": [8] * 4, "levles": 2},
            r"regularizer_config\.params\.levles is not known \(did you mean levels\?\)",
        ),
    ],
)
def test_errors_of_the_quantizers_parameters(params: dict[str, Any], expected: str) -> None:
    values = with_value("model.params.regularizer_config", {"target": FSQ})
    values["model"]["params"]["regularizer_config"]["params"] = params
    values["model"]["params"]["encoder_config"]["params"]["double_z"] = False
    with pytest.raises(ConfigError, match=expected):
        read_config(values)


def test_a_target_is_never_imported(tmp_path: Path) -> None:
    write(tmp_path / "trap.py", f"open({str(tmp_path / 'sprung')!r}, 'w')")
    values = with_value("model.params.encoder_config.target", "trap.Encoder")
    write(tmp_path / "trap.yaml", OmegaConf.to_yaml(OmegaConf.create(values)))
    code = (
        "from vidtok.errors import ConfigError\n"
        "from vidtok.config.read import read_config\n"
        "try: read_config('trap.yaml')\n"
        "except ConfigError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'trap.Encoder', which is not known" in run.stdout
    assert not (tmp_path / "sprung").exists()


def test_neither_file_nor_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'vidtok_kl_causal_488_16ch' is neither a file nor the name of a model or recipe \(did"
    ):
        read_config("vidtok_kl_causal_488_16ch")
