"""Clips of each batch, and the place at which a run goes on."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import ConfigError
from vidtok.training.data.order import EvaluationOrder, Place, Position, Ranks, TrainingOrder, this_process

COUNTS = st.integers(1, 60)
SIZES = st.integers(1, 5)


def training(
    count: int, size: int, rank: int = 0, world: int = 1, seed: int = 7, shuffle: bool = True
) -> TrainingOrder:
    return TrainingOrder(count, Ranks(size, rank, world), seed, shuffle=shuffle)


def items(places: list[Place]) -> list[int]:
    return [place.item for place in places]


@settings(max_examples=60, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_ranks_share_the_steps_of_one_process_with_a_larger_batch(count, size, world, epoch, shuffle):
    whole = training(count, size * world, shuffle=shuffle)
    ranks = [training(count, size, rank, world, shuffle=shuffle) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(whole)}
    for number in range(epoch * len(whole), (epoch + 1) * len(whole)):
        assert [place for rank in ranks for place in rank.batch(number)] == whole.batch(number)


@settings(max_examples=60, deadline=None)
@given(COUNTS, SIZES, st.integers(0, 3))
def test_an_epoch_takes_each_video_once_at_most_and_leaves_out_less_than_a_step(count, size, epoch):
    order = training(count, size)
    taken = [item for n in range(len(order)) for item in items(order.batch(epoch * len(order) + n))]
    if count >= size:
        assert len(set(taken)) == len(taken) > count - size
    else:
        assert len(taken) == size
        assert set(taken) == set(range(count))


def test_every_epoch_and_every_seed_has_its_own_order():
    order, other = training(50, 5), training(50, 5, seed=8)
    epochs = [[item for n in range(e * 10, e * 10 + 10) for item in items(order.batch(n))] for e in range(2)]
    first_of_other = [item for n in range(10) for item in items(other.batch(n))]
    assert len({tuple(o) for o in (*epochs, first_of_other, list(range(50)))}) == 4
    assert training(50, 5).batch(13) == order.batch(13)


def test_a_sequence_without_end_counts_on_through_the_epochs():
    order = training(10, 2, rank=1, world=2, shuffle=False)
    assert len(order) == 2
    assert [items(order.batch(n)) for n in range(4)] == [[2, 3], [6, 7], [10, 11], [14, 15]]
    assert order.batch(2)[0] == Place(epoch=1, position=2, item=10)


@settings(max_examples=60, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4))
def test_evaluation_takes_each_item_once_in_batches_on_every_rank(count, size, world):
    ranks = [EvaluationOrder(count, Ranks(size, rank, world)) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    taken: list[int] = []
    for number in range(len(ranks[0])):
        step = [items(rank.batch(number)) for rank in ranks]
        assert all(1 <= len(batch) <= size for batch in step)
        taken += [item for batch in step for item in batch]
    repeated = len(taken) - count
    assert set(taken) == set(range(count))
    assert repeated == (max(0, world - (count - 1) % (size * world) - 1) if count % (size * world) else 0)
    assert taken.count(0) == repeated + 1


@settings(max_examples=40, deadline=None)
@given(COUNTS, SIZES, st.integers(0, 90))
def test_position_is_taken_up_at_any_batch(count, size, done):
    order, position = training(count, size), Position()
    position.attach(order)
    for _ in range(done):
        position.mark_batch_done()
    state = position.state_dict()
    assert (state["epoch"], state["batches"]) == divmod(done, len(order))
    resumed = Position()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.attach(training(count, size))
    assert (resumed.batches, resumed.state_dict()) == (done, state)


def test_a_changed_order_is_told_and_goes_on_nearby(caplog):
    state = {"epoch": 2, "batches": 6, "batch_size": 2, "world_size": 2, "clips": 40, "seed": 7}
    position = Position()
    position.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        position.attach(training(40, 3))
    assert divmod(position.batches, 13) == (2, 8)
    assert "another order than before, since these changed: batch_size 2 -> 3, world_size 2 -> 1" in caplog.text
    position.attach(training(40, 2, 0, 2))
    assert divmod(position.batches, 10) == (2, 6)


@pytest.mark.parametrize("state", [{}, {"next_index": 3}, {"epoch": 1.5}])
def test_a_foreign_state_is_refused(state):
    with pytest.raises(
        ConfigError, match=r"place in the training data is .*; expected whole numbers for epoch, batches, "
    ):
        Position().load_state_dict(state)


def test_ranks_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert this_process() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert this_process() == (3, 4)
