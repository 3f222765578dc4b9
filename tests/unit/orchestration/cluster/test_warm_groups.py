"""Which stage gets which group, when groups are ended, and what happens when several stages come at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import TrainingError
from orchestration.cluster import warm_groups
from orchestration.cluster.warm_groups import WarmGroups
from orchestration.cluster.worker_group import GroupShape

ONE, WIDE = GroupShape(1, 1.0, "cpu"), GroupShape(2, 1.0, "cpu")


class Group:
    """A group that notes what is done with it."""

    made: list[Group]

    def __init__(self, shape: GroupShape, *, meeting: Path) -> None:
        self.shape, self.meeting = shape, meeting
        self.alive, self.ended = True, False
        self.started: tuple[float, float] | None = (1.0, 2.0)
        self.made.append(self)

    def answers(self) -> bool:
        return self.alive

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Group]:
    """The groups that were made, in a cluster of two CPUs; a stage is the function that is given as its job."""
    monkeypatch.setattr(Group, "made", [], raising=False)
    monkeypatch.setattr(warm_groups, "WorkerGroup", Group)
    monkeypatch.setattr(warm_groups, "ray", SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0}))
    monkeypatch.setattr(warm_groups, "train_in_group", lambda job, *, group, **_: job(group))
    return Group.made


def train(groups: WarmGroups, stage: Callable[[Group], Any], shape: GroupShape = ONE, **named: Any) -> Any:
    job: Any = stage
    return groups.train(job, shape=shape, log_dir=Path(), on_step=lambda _: None, meanwhile=lambda: None, **named)


def itself(group: Group) -> Group:
    assert not group.ended
    return group


def test_stages_of_one_shape_have_the_same_group(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path / "meetings")
    assert train(groups, itself) is train(groups, itself)
    assert len(made) == 1 and made[0].meeting.parent == tmp_path / "meetings"
    groups.close()
    assert made[0].ended


def test_a_start_is_told_once_of_every_group(made: list[Group], tmp_path: Path) -> None:
    groups, told = WarmGroups(tmp_path / "meetings"), list[tuple[float, float]]()
    for shape in (ONE, ONE, WIDE):
        train(groups, itself, shape, started=lambda began, ended: told.append((began, ended)))
    assert len(made) == 2 and told == [(1.0, 2.0)] * 2


def test_another_shape_ends_the_group_that_waits(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)
    narrow, wide, again = train(groups, itself), train(groups, itself, WIDE), train(groups, itself)
    assert made == [narrow, wide, again]
    assert [group.ended for group in made] == [True, True, False]


@pytest.mark.parametrize("error", [TrainingError("lost"), KeyboardInterrupt()])
def test_after_a_failure_a_group_is_thrown_away(error: BaseException, made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)

    def fail(_: Group) -> None:
        raise error

    train(groups, itself)
    with pytest.raises(type(error)):
        train(groups, fail)
    assert [group.ended for group in made] == [True]
    train(groups, itself)
    assert [group.ended for group in made] == [True, False]


def test_a_group_that_died_while_it_waited_costs_no_stage(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)
    train(groups, itself).alive = False
    assert train(groups, itself) is made[1]
    assert [group.ended for group in made] == [True, False]


def test_who_needs_room_gets_it_from_groups_that_wait_now_and_later(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)
    train(groups, itself)
    with groups.room():
        assert made[0].ended
        # Somebody waits for Ray to free these places: a group that has become idle must not sit on them.
        train(groups, itself)
        assert made[1].ended
    train(groups, itself)
    assert not made[2].ended


def test_a_group_at_work_is_left_alone_by_who_needs_room(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)

    def stage(group: Group) -> None:
        with groups.room():
            assert not group.ended

    train(groups, stage)
    # Nobody waits any more.
    assert not made[0].ended


def test_what_a_killed_run_left_is_removed_before_the_first_group(made: list[Group], tmp_path: Path) -> None:
    (tmp_path / "meetings/0123").mkdir(parents=True)
    groups = WarmGroups(tmp_path / "meetings")
    assert (tmp_path / "meetings").exists()
    train(groups, itself)
    assert not (tmp_path / "meetings").exists()


def test_as_many_stages_at_once_as_there_is_room_for(made: list[Group], tmp_path: Path) -> None:
    groups = WarmGroups(tmp_path)
    both_at_work, may_end = threading.Barrier(3), threading.Event()
    late: list[Group] = []

    def stage(group: Group) -> None:
        both_at_work.wait(30)
        assert may_end.wait(30)

    threads = [threading.Thread(target=train, args=(groups, stage)) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_at_work.wait(30)
    assert len(made) == 2
    third = threading.Thread(target=lambda: late.append(train(groups, itself)))
    third.start()
    third.join(0.2)
    assert third.is_alive() and len(made) == 2
    may_end.set()
    for thread in (*threads, third):
        thread.join(30)
    # It has one of the two, and no third was started.
    assert len(made) == 2 and late[0] in made
    assert not any(group.ended for group in made)
