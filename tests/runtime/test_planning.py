"""What is predicted of memory, and what is chosen for a budget."""

from __future__ import annotations

import shutil
from collections import namedtuple
from typing import Any

import pytest
import torch

from support import make_clip
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from twin import CONFIG as TWIN
from vidtok import Tiling, Tokenizer, VidTokError
from vidtok.fields import memory_bytes
from vidtok.models.state import StreamState
from vidtok.runtime import planning as module
from vidtok.runtime.memory import Footprint, Footprints, _LiveBytes, footprints, resting_bytes
from vidtok.runtime.options import ComputeOptions
from vidtok.runtime.planning import Plan, plan

MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_1, KL_NONCAUSAL)}
MIB = 1 << 20


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the model needs counts, and there is room for files."""
    monkeypatch.setattr(module, "resting_bytes", lambda model: 0)
    monkeypatch.setattr(module, "with_unseen", lambda count, model: count)
    monkeypatch.setattr(module, "_SCATTERED", 0)
    monkeypatch.setattr(module, "_PIXEL_BYTES", 0)
    monkeypatch.setattr(module, "_CODEC_BYTES", 0)


def used(name: str, height: int, width: int, frames: int = 16) -> Footprints:
    return footprints(MODELS[name], frames, height, width)


def budget(count: int, name: str = KL_1_1, size: tuple[int, int] = (512, 512), **options: Any) -> Plan:
    length = options.pop("length", None)
    return plan(MODELS[name], size, ComputeOptions(max_memory=count, **options), "both", length)


@pytest.mark.parametrize("name", MODELS)
def test_a_dry_run_takes_what_a_run_takes(name: str) -> None:
    """Bytes of states and of live tensors at the peak, against a run with values."""
    model = MODELS[name]
    predicted = used(name, 64, 96, frames=8)
    lead = 1 if model.is_causal else 0
    factor = model.config.temporal_factor
    video, latent = make_clip(1, 3, lead + factor + 8, 64, 96), torch.randn(1, model.config.z_channels, 32, 8, 12)
    for coder, pieces, footprint in (
        (model.encoder, (video[:, :, : lead + factor], video[:, :, lead + factor :]), predicted.encode),
        (model.decoder, (latent[:, :, : lead + 1], latent[:, :, lead + 1 : lead + 1 + 8 // factor]), predicted.decode),
    ):
        state, watch = StreamState(end=not model.is_causal), _LiveBytes(coder)
        for piece in pieces if model.is_causal else pieces[1:]:
            watch.ignore(piece)
            with watch:
                coder(piece, state)
        states = sum(past.numel() * past.element_size() for past in state.past.values())
        assert footprint.states == states
        assert footprint.working == pytest.approx(watch.peak - states, rel=0.02)


def test_half_the_precision_takes_half_the_memory() -> None:
    half = footprints(tiny_model(KL_1_1).to(torch.bfloat16), 16, 512, 512)
    assert half.decode.states * 2 == used(KL_1_1, 512, 512).decode.states


def test_what_both_directions_take_together() -> None:
    both = Footprints(Footprint(10, 7), Footprint(20, 30))
    assert both.streaming("both", 4) == 4 * 30 + 30
    assert both.streaming("encode", 4) == 4 * 10 + 7
    assert both.one_tile("both") == both.one_tile("decode") == 50
    assert both.states("both") == 30


def test_a_process_rests_on_more_than_its_weights() -> None:
    weights = sum(parameter.numel() * 4 for parameter in MODELS[KL_1_1].parameters())
    assert resting_bytes(MODELS[KL_1_1]) > weights + 100 * MIB


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(5000, 5000), ("6GB", 6 * 10**9), ("6 GiB", 6 << 30), ("1.5g", 1_500_000_000), ("500M", 5 * 10**8), ("7", 7)],
)
def test_amounts_of_memory(amount: int | str, expected: int) -> None:
    assert memory_bytes(amount) == expected


@pytest.mark.parametrize("amount", ["", "6 elephants", "-1GB", "0", 0, -5, True, "GB"])
def test_no_amounts_of_memory(amount: Any) -> None:
    with pytest.raises(VidTokError, match=r"max_memory is .*; expected an amount of memory such as 6GB, 500MB or 6GiB"):
        ComputeOptions(max_memory=amount)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_frames": 0}, "chunk_frames is 0; expected at least 1"),
        ({"tile": 32}, "a tile has 32 pixels a side; expected at least 64"),
        ({"tile": 128, "tile_overlap": 100}, "tiles of 128 pixels overlap by 100; expected 0 to 64, half a tile"),
        ({"tile_overlap": 32}, "tile_overlap is 32, but there are no tiles; give --tile or --max-memory"),
        ({"tile_overlap": -1, "max_memory": "6GB"}, "tile_overlap is -1; expected at least 0"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VidTokError, match=message):
        ComputeOptions(**options)


def test_without_options_nothing_is_cut_but_what_the_model_cuts() -> None:
    model = MODELS[KL_1_1]
    assert plan(model, (512, 512), ComputeOptions(), "both") == Plan(None, 16, None)
    tiled = model.with_tiling(Tiling(128))
    assert plan(tiled, (512, 512), ComputeOptions(chunk_frames=8), "both") == Plan(Tiling(128), 8, None)


def test_tiles_by_hand() -> None:
    model = MODELS[KL_1_1]
    assert plan(model, (512, 512), ComputeOptions(tile=256), "both").tiling == Tiling(256, 64)
    assert plan(model, (512, 512), ComputeOptions(tile=96), "both").tiling == Tiling(96, 48)
    assert plan(model, (512, 512), ComputeOptions(tile=96, tile_overlap=8), "both").tiling == Tiling(96, 8)
    assert plan(model, (200, 256), ComputeOptions(tile=256), "both").tiling is None
    # Tiles, not frames, decide how many frames are computed at a time.
    assert plan(model, (1024, 1024), ComputeOptions(tile=256), "both").frames == 16
    assert plan(model, (1024, 1024), ComputeOptions(), "both").frames == 4


def test_a_large_budget_cuts_nothing(bare: None) -> None:
    needed = used(KL_1_1, 512, 512).streaming("both", 1)
    assert budget(needed) == Plan(None, 16, needed)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1])
def test_the_largest_tiles_that_fit_are_chosen(name: str, bare: None) -> None:
    """Of 2 x 2 tiles and 3 x 3 tiles, the states first in memory, then elsewhere."""
    two, three = used(name, 288, 288), used(name, 216, 216)
    assert budget(two.streaming("both", 4), name).tiling == Tiling(288, 64)
    assert budget(two.streaming("both", 4) - 1, name).tiling == Tiling(288, 64, offload=True)
    assert budget(two.one_tile("both"), name).tiling == Tiling(288, 64, offload=True)
    chosen = budget(two.one_tile("both") - 1, name)
    assert chosen.tiling is not None
    assert chosen.tiling.size == 216
    assert chosen.memory is not None
    assert three.one_tile("both") <= chosen.memory < two.one_tile("both")


def test_one_direction_needs_less(bare: None) -> None:
    limit = used(KL_1_1, 512, 512).streaming("encode", 1)
    options = ComputeOptions(max_memory=limit)
    assert plan(MODELS[KL_1_1], (512, 512), options, "encode").tiling is None
    assert plan(MODELS[KL_1_1], (512, 512), options, "both").tiling is not None


def test_a_clip_in_one_piece_keeps_no_states(bare: None) -> None:
    needed = used(KL_1_1, 288, 288).one_tile("both")
    assert budget(needed, length=17).tiling == Tiling(288, 64)
    assert budget(needed, length=18).tiling == Tiling(288, 64, offload=True)


def test_a_model_that_does_not_stream_is_cut_as_well(bare: None) -> None:
    needed = used(KL_NONCAUSAL, 288, 288).one_tile("both")
    assert budget(needed, KL_NONCAUSAL) == Plan(Tiling(288, 64), 16, needed)


def test_tiles_by_hand_below_a_budget(bare: None) -> None:
    two = used(KL_1_1, 288, 288)
    assert budget(two.streaming("both", 4), tile=300).tiling == Tiling(300, 64)
    assert budget(two.one_tile("both"), tile=300).tiling == Tiling(300, 64, offload=True)
    with pytest.raises(VidTokError, match=r"needs about .* GB for frames of 512 x 512 pixels in tiles of 288 x 288"):
        budget(two.one_tile("both") - 1, tile=300)


def test_large_frames_are_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "footprints", lambda *_: Footprints(Footprint(0, 0), Footprint(0, 0)))
    monkeypatch.setattr(module, "resting_bytes", lambda model: 0)
    assert budget("4GB", size=(512, 512)).frames == 16
    assert budget("6GB", size=(2160, 3840)).frames == 4
    assert budget("16GB", size=(2160, 3840), chunk_frames=8).frames == 8


def test_too_small_a_budget_says_how_much_is_needed() -> None:
    message = (
        r"max_memory is 20MB, but \w+ needs about \d\.\d GB for frames of 512 x 512 pixels in tiles of .*; allow more"
    )
    with pytest.raises(VidTokError, match=message):
        budget("20MB")  # type: ignore[arg-type]


def test_too_little_room_for_files_is_named(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 0))
    needed = used(KL_1_1, 288, 288).one_tile("both")
    assert budget(needed, length=17).tiling == Tiling(288, 64)
    message = r"has to keep .* GB for frames of 512 x 512 pixels in temporary files, more than .* has room for; name a"
    with pytest.raises(VidTokError, match=message):
        budget(needed)


def test_a_model_of_one_size_has_no_budget() -> None:
    with pytest.raises(VidTokError, match="cannot take them in tiles"):
        plan(Tokenizer(TWIN, name="twin"), (32, 32), ComputeOptions(max_memory="6GB"), "both")
