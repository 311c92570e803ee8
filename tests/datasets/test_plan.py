"""Plans: ids, groups, growth, and runs that plan at once."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vidtok.datasets import plan as planning
from vidtok.datasets.inputs import Absent, Input
from vidtok.datasets.plan import Plan, Unit, input_id

MARK = "f" * 64


def inputs(*numbers: int) -> list[Input]:
    return [Input(f"/videos/{number}.mp4", f"{number}-1", columns={"caption": f"ü {number}"}) for number in numbers]


def planned(plan: Plan) -> list[str]:
    return [unit.input.source for group in plan.groups() for unit in group.units()]


def test_ids_tell_all_apart_that_makes_a_record_another() -> None:
    one = Input("/a.mp4", "1-1")
    others = [
        dataclasses.replace(one, source="/b.mp4"), dataclasses.replace(one, stamp="1-2"),
        dataclasses.replace(one, member="c.mp4", offset=512),
    ]  # fmt: skip
    ids = {input_id(each, MARK, False) for each in [one, *others]} | {input_id(one, "0" * 64, False)}
    assert len(ids) == 5
    assert input_id(dataclasses.replace(one, columns={"caption": "x"}), MARK, False) in ids
    moved = dataclasses.replace(one, source="/b.mp4")
    assert input_id(one, MARK, True) == input_id(moved, MARK, True)


def test_groups_hold_all_inputs_in_order_with_their_columns(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan")
    result = plan.add(iter(inputs(*range(10))), MARK, together=4)
    assert (result.added, result.repeated, len(result.given)) == (10, 0, 10)
    assert [group.count for group in plan.groups()] == [4, 4, 2]
    assert planned(plan) == [each.source for each in inputs(*range(10))]
    unit = next(plan.groups()).units()[3]
    assert unit == Unit(input_id(inputs(3)[0], MARK, False), inputs(3)[0], 1)
    names = [group.name for group in plan.groups()]
    assert names == sorted(set(names))


def test_a_plan_grows_by_new_inputs_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan")
    plan.add(inputs(3, 1, 2, 1), MARK)
    before = [group.name for group in plan.groups()]
    again = plan.add([*inputs(1, 2, 3), Absent("/gone.mp4", "no such file")], MARK)
    assert (again.added, again.absent[0].name) == (0, "/gone.mp4")
    assert plan.add(inputs(5, 2, 5), MARK).repeated == 1
    assert planned(plan) == [each.source for each in inputs(3, 1, 2, 5)]
    assert [group.name for group in plan.groups()][: len(before)] == before
    assert plan.count() == 4
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["000000", "000001"]


def test_a_quicker_run_leaves_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, other = Plan(tmp_path / "plan"), Plan(tmp_path / "plan")
    publish = planning._Draft.publish

    def late(draft: planning._Draft, place: Path, together: int | None) -> bool:
        if not other.generations():
            monkeypatch.undo()
            other.add(inputs(2, 3, 4), MARK)
        return publish(draft, place, together)

    monkeypatch.setattr(planning._Draft, "publish", late)
    assert plan.add(inputs(1, 2, 3), MARK).added == 1
    assert planned(plan) == [each.source for each in inputs(2, 3, 4, 1)]


def test_a_retry_is_planned_once(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan")
    plan.add(inputs(1, 2), MARK)
    units = [unit for group in plan.groups() for unit in group.units()]
    assert plan.retry(units[:1], 0) == 1
    assert plan.retry(units[:1], 0) == 0
    assert [(unit.id, unit.attempt) for unit in plan.retried()] == [(units[0].id, 2)]
    assert plan.add(inputs(1, 2, 3), MARK).added == 1
    assert plan.count() == 3


def test_four_runs_plan_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            plan = Plan(tmp_path / f"plan{number}")
            waiting = [pool.submit(plan.add, inputs(*range(start, start + 6)), MARK) for start in range(4)]
            assert sum(each.result().added for each in waiting) == plan.count() == 9
            assert len(planned(plan)) == 9
