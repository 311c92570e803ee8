"""The VidTwin network: agreement with the published implementation, clips, sizes, parts, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from safetensors import safe_open

from support import TESTS, fill, make_clip
from twin import CONFIG, NAME, SIDE, tiny_twin
from vidtok import Tokenizer, TwinLatent, VidTwin, VidTwinConfig
from vidtok.config.read import read_config
from vidtok.errors import ConfigError
from vidtok.models.vidtwin.resize import fit_frames
from vidtok.video import to_float
from vidtok.video.frames import resize_and_crop

GOLDEN = TESTS / "golden" / "vidtwin.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with safe_open(GOLDEN, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def published() -> VidTwin:
    """The model of the golden file."""
    config = dataclasses.replace(VidTwinConfig(), input_size=(16, 64, 64), hidden_size=96, depth=3, num_heads=4)
    model = VidTwin(config).eval()
    with torch.no_grad():
        fill(model)
    return model


@pytest.fixture(scope="module")
def twin() -> VidTwin:
    return tiny_twin()


def agree(value: torch.Tensor | None, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert value is not None
    torch.testing.assert_close(value, expected, atol=tolerance, rtol=0)


def test_agrees_with_the_golden_file(published: VidTwin, golden: dict[str, torch.Tensor]) -> None:
    video, other = make_clip(1, 3, 16, 64, 64), make_clip(1, 3, 16, 64, 64, name="other")
    features = published.encoder(video)
    agree(features.permute(0, 3, 1, 2).reshape(golden["features"].shape), golden["features"])
    agree(published.query_tokens(features), golden["qformer"])
    z, reconstruction, log = published(video, sample=False)
    agree(z.structure, golden["structure"])
    agree(z.dynamics_x, golden["dynamics_x"])
    agree(z.dynamics_y, golden["dynamics_y"])
    torch.testing.assert_close(log["kl_loss"], golden["kl_loss"], atol=0, rtol=1e-5)
    agree(reconstruction, golden["recon"])
    agree(published.decode(z._replace(dynamics_x=None, dynamics_y=None)), golden["only_structure"])
    agree(published.decode(z._replace(structure=None)), golden["only_dynamics"])
    agree(published.decode(published.encode(other, sample=False)._replace(structure=z.structure)), golden["cross"])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.015)])
def test_half_precision(
    published: VidTwin, golden: dict[str, torch.Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    """Relative to the standard deviation, of the order of the dtype's own rounding."""
    model = VidTwin(published.config).eval()
    model.load_state_dict(published.state_dict())
    model.to(dtype)
    z, reconstruction, _ = model(make_clip(1, 3, 16, 64, 64), sample=False)
    assert reconstruction.dtype == z.structure.dtype == dtype
    for value, name in ((z.structure, "structure"), (reconstruction, "recon")):
        error = (value.float() - golden[name]).square().mean().sqrt() / golden[name].std()
        assert error < tolerance


def test_names_and_shapes_are_those_of_the_published_checkpoint() -> None:
    expected = json.loads((TESTS / "golden" / "state_dict" / "vidtwin.json").read_text())
    with torch.device("meta"):
        model = Tokenizer(read_config(NAME).model)
    assert isinstance(model, VidTwin)
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    derived = set(expected) - set(own)
    assert derived == set(VidTwin.derived)
    assert own == {name: shape for name, shape in expected.items() if name not in derived}
    assert sum(parameter.numel() for parameter in model.parameters()) == 312_701_490
    assert model.config.z_channels == 8064
    children = {name for name, _ in model.named_children()} - {"regularization"}
    assert {*VidTwin.encoding_modules, *VidTwin.decoding_modules} == children


def test_a_long_video_is_its_clips_one_after_another(twin: VidTwin) -> None:
    video = make_clip(2, 3, 40, SIDE, SIDE)
    z = twin.encode(video, sample=False)
    assert [tuple(part.shape) for part in z if part is not None] == [(2, 18, 2, 2, 3), (2, 2, 48, 2), (2, 2, 48, 2)]
    filled = torch.cat([video[:, :, 32:], video[:, :, -1:].expand(-1, -1, 8, -1, -1)], 2)
    clips = [twin.encode(clip, sample=False) for clip in (video[:, :, :16], video[:, :, 16:32], filled)]
    for part, dim, name in (
        (z.structure, 1, "structure"),
        (z.dynamics_x, 2, "dynamics_x"),
        (z.dynamics_y, 2, "dynamics_y"),
    ):
        agree(part, torch.cat([getattr(clip, name) for clip in clips], dim), 1e-6)
    decoded = torch.cat([twin.decode(clip) for clip in clips], 2)
    agree(twin.decode(z), decoded, 1e-5)
    latent, reconstruction, *_ = twin(video, sample=False)
    assert latent._fields == ("structure", "dynamics_x", "dynamics_y")
    agree(reconstruction, decoded[:, :, :40], 1e-5)
    agree(twin.decode(z, size=(40, SIDE, SIDE)), decoded[:, :, :40], 1e-5)


@pytest.mark.parametrize("size", [(48, 64), (70, 33), (20, 31), (SIDE, 50)])
def test_any_size_is_resized_and_cropped_as_files_are(twin: VidTwin, size: tuple[int, int]) -> None:
    pixels = ((make_clip(1, 3, 2, *size)[0].permute(1, 2, 3, 0) + 1) * 127.5).clamp(0, 255).byte().numpy()
    fitted = fit_frames(to_float(pixels), (SIDE, SIDE))
    expected = to_float(resize_and_crop(pixels, SIDE, SIDE))
    assert fitted.shape == (1, 3, 2, SIDE, SIDE)
    assert (fitted - expected).abs().max() <= 0.5 / 127.5 + 1e-6
    agree(twin.encode(to_float(pixels), sample=False).structure, twin.encode(fitted, sample=False).structure, 1e-6)


def test_packed_latents_are_the_same_latents(twin: VidTwin) -> None:
    video = make_clip(1, 3, 32, SIDE, SIDE)
    z = twin.encode(video, sample=False)
    packed = twin.encode_packed(video)
    assert packed.shape == (1, CONFIG.z_channels, 2, 1, 1)
    for part, again in zip(z, twin.unpack(packed), strict=True):
        assert torch.equal(part, again)
    # A latent frame of the file is a clip, its streams as the configuration lists them, channels first.
    structure, dynamics_x, dynamics_y = torch.split(packed[0, :, 1, 0, 0], [s.values for s in CONFIG.parts])
    assert z.structure is not None
    assert z.dynamics_x is not None
    assert z.dynamics_y is not None
    assert torch.equal(structure.view(3, 6, 2, 2), z.structure[0, 6:].permute(3, 0, 1, 2))
    assert torch.equal(dynamics_x.view(2, 16, 2), z.dynamics_x[0, :, 16:])
    assert torch.equal(dynamics_y.view(2, 16, 2), z.dynamics_y[0, :, 16:])
    assert torch.equal(twin.decode_packed(packed), twin.decode(z))


def test_drawing_from_the_posterior(twin: VidTwin) -> None:
    video = make_clip(1, 3, 16, SIDE, SIDE)
    drawn = [twin.encode(video, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    mode = twin.encode(video, sample=False)
    for first, same, other, middle in zip(*drawn, mode, strict=True):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        assert not torch.equal(first, middle)


def test_dynamics_of_a_frame_depend_on_no_frame_behind_the_next(twin: VidTwin) -> None:
    video = make_clip(1, 3, 16, SIDE, SIDE)
    changed = video.clone()
    changed[:, :, 10:] = 0
    one, other = twin.encode(video, sample=False), twin.encode(changed, sample=False)
    assert one.dynamics_x is not None
    assert other.dynamics_x is not None
    moved = (one.dynamics_x - other.dynamics_x).abs().amax((0, 1, 3))
    # The convolution over time sees one frame ahead.
    assert (moved[:9] < 1e-6).all()
    assert (moved[10:] > 1e-4).all()


@pytest.mark.gradients
def test_recomputing_activations_changes_no_gradient(twin: VidTwin) -> None:
    video = make_clip(1, 3, 16, SIDE, SIDE)
    gradients = []
    for recompute in (False, True):
        model = VidTwin(dataclasses.replace(CONFIG, use_checkpoint=recompute))
        model.load_state_dict(twin.state_dict())
        model(video, sample=False)[1].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    unused = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert {name.rpartition(".")[0].partition(".")[0] for name in unused} == {"encoder", "decoder"}
    assert all(".final_layer." in name or ".x_embedder." in name for name in unused)
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_at_the_start_attention_over_time_adds_nothing() -> None:
    model = VidTwin(CONFIG)
    assert all(not block.attn_temp.proj.weight.any() for block in (*model.encoder.blocks, *model.decoder.blocks))  # type: ignore[union-attr, operator]
    assert model.encoder.blocks[0].attn.proj.weight.std() > 0  # type: ignore[union-attr, operator]


PARTS = TwinLatent(torch.zeros(1, 6, 2, 2, 3), torch.zeros(1, 2, 16, 2), torch.zeros(1, 2, 16, 2))


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        (TwinLatent(None, None, None), "has no part to decode: structure, dynamics_x and dynamics_y are all None"),
        (PARTS._replace(structure=torch.zeros(1, 6, 2, 3, 3)), r"structure is .* \(1, 6, 2, 3, 3\); expected float"),
        (PARTS._replace(structure=torch.zeros(1, 7, 2, 2, 3)), r"\(B, 6 n, 2, 2, 3\) for n clips"),
        (PARTS._replace(dynamics_x=torch.zeros(1, 2, 15, 2)), r"dynamics_x .* of shape \(B, 2, 16 n, 2\)"),
        (PARTS._replace(dynamics_y=torch.zeros(1, 2, 16, 2, dtype=torch.int32)), "dynamics_y is torch.int32"),
        (PARTS._replace(dynamics_y=torch.zeros(1, 2, 32, 2)), "of different numbers of videos x clips: structure"),
    ],
)  # fmt: skip
def test_latents_that_cannot_be_decoded(twin: VidTwin, latent: TwinLatent, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        twin.decode(latent)


def test_other_misuse(twin: VidTwin) -> None:
    with pytest.raises(ValueError, match="no token indices; decode the latent that encode returned"):
        twin.decode(PARTS, True)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3, 1, 1\); expected \(B, \d+, clips, 1, 1\)"):
        twin.unpack(torch.zeros(1, 2, 3, 1, 1))
    with pytest.raises(ValueError, match="without dynamics cannot be packed"):
        twin.pack(twin.recombine(twin.encode(torch.zeros(1, 3, 8, 32, 32)), None))
    with pytest.raises(ValueError, match=r"the video has shape \(3, 16, 32, 32\); expected \(B, 3, T, H, W\)"):
        twin.encode(torch.zeros(3, 16, SIDE, SIDE))
    with pytest.raises(ValueError, match="a non-causal model sees whole clips only and cannot stream"):
        twin.encode_stream()
    with pytest.raises(ValueError, match="a non-causal model sees whole clips only and cannot stream"):
        twin.decode_stream()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input_size": (16, 64, 32)}, r"input_size is \[16, 64, 32\]; expected \[T, N, N\], .* a multiple of 16"),
        ({"input_size": (16, 60, 60)}, "a multiple of 16"),
        ({"patch_size": (2, 16, 16)}, r"patch_size is \[2, 16, 16\]; expected \[1, P, P\]"),
        ({"num_heads": 5}, "hidden_size is 768; expected a multiple of 4 and of the 5 heads"),
        ({"depth": 0}, "depth is 0; expected a whole number of at least 1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0; expected a number above 0"),
        ({"qformer": {"num_heads": 7}}, "hidden_size is 64; expected a multiple of the 7 heads"),
        ({"qformer": {"num_queries": 0}}, "num_queries is 0; expected a whole number of at least 1"),
        ({"qformer": 3}, "qformer is 3; expected a mapping"),
        ({"bottleneck": {"kind": "fsq"}}, "bottleneck is .*; expected a mapping with kind: kl"),
        ({"widht": 3}, "widht is not known; expected some of input_size"),
    ],
)
def test_configurations_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VidTwinConfig.from_dict(values)


def test_configurations_survive_as_plain_values() -> None:
    assert VidTwinConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
