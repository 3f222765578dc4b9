"""Places on machines: how many fit, what is refused, and who waits. On a cluster of several machines: tests/slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configs import ConfigError
from orchestration.cluster import places
from orchestration.cluster.places import Wanted, begin_to_take, room_for, take_places, wait_for

LARGE, SMALL = {"CPU": 16.0, "GPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}
PAIRS = Wanted("engines", 4, {"GPU": 2, "CPU": 2}, "SPREAD", "lower runtime.teacher_engine.count")


class Cluster:
    """Machines, and placement groups that are there after as many looks as are `slow`."""

    def __init__(self, *machines: dict[str, float]) -> None:
        self.machines = list(machines)
        self.slow = 0
        self.groups: list[tuple[list[dict[str, float]], str]] = []
        self.removed: list[Any] = []
        self.leaves: dict[str, float] | None = None

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": LARGE}
        return [dead, *({"Alive": True, "Resources": machine} for machine in self.machines)]

    def group(self, bundles: list[dict[str, float]], *, strategy: str) -> Any:
        self.groups.append((bundles, strategy))
        return SimpleNamespace(wait=self.wait)

    def wait(self, _: float) -> bool:
        self.slow -= 1
        if self.leaves is not None:
            self.machines.remove(self.leaves)
            self.leaves = None
        return self.slow < 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster(LARGE, SMALL)
    monkeypatch.setattr(places, "ray", fake)
    monkeypatch.setattr(places, "placement_group", fake.group)
    monkeypatch.setattr(places, "remove_placement_group", fake.removed.append)
    return fake


@pytest.mark.parametrize(
    ("bundle", "room"),
    [
        ({"GPU": 1}, 9), ({"GPU": 2}, 4), ({"GPU": 8, "CPU": 1}, 1), ({"GPU": 9}, 0), ({"GPU": 0.15}, 53 + 6),
        ({"CPU": 3}, 5 + 1), ({"TPU": 1}, 0),
    ],
)  # fmt: skip
def test_a_place_lies_on_one_machine(bundle: dict[str, float], room: int) -> None:
    assert room_for(bundle, [LARGE, SMALL]) == room


def test_a_tenth_of_a_gpu_fits_ten_times() -> None:
    assert [room_for({"GPU": 1 / n}, [{"GPU": 1.0}]) for n in range(1, 20)] == list(range(1, 20))


def test_all_places_are_taken_together_and_given_back_once(cluster: Cluster) -> None:
    taken = take_places(PAIRS)
    assert cluster.groups == [([{"GPU": 2, "CPU": 2}] * 4, "SPREAD")] and taken.count == 4
    chosen = [taken.options(index)["scheduling_strategy"] for index in range(4)]
    assert [each.placement_group_bundle_index for each in chosen] == [0, 1, 2, 3]
    assert {id(each.placement_group) for each in chosen} == {id(taken.group)}
    taken.release()
    assert cluster.removed == [taken.group]


def test_what_reserves_nothing_is_only_spread(cluster: Cluster) -> None:
    taken = take_places(Wanted("engines", 30, {"GPU": 0, "CPU": 0}, "SPREAD", ""))
    assert (taken.count, taken.group, cluster.groups) == (30, None, [])
    assert taken.options(3) == {"scheduling_strategy": "SPREAD"}
    taken.release()
    assert cluster.removed == []


def test_what_can_never_fit_says_what_is_asked_and_what_there_is(cluster: Cluster) -> None:
    cluster.machines += [LARGE, SMALL]
    wide = Wanted("engines", 3, {"GPU": 8, "CPU": 8}, "SPREAD", "lower runtime.teacher_engine.count")
    for take in (take_places, begin_to_take):
        with pytest.raises(ConfigError) as told:
            take(wide)
        assert str(told.value) == (
            "3 engines of 8 GPUs, 8 CPUs each do not fit the cluster, which has room for 2: 2 x (1 GPU, 4 CPUs), "
            "2 x (8 GPUs, 16 CPUs); lower runtime.teacher_engine.count"
        )
    assert cluster.groups == []


def test_who_goes_on_takes_what_is_left_and_nothing_is_refused(cluster: Cluster) -> None:
    cluster.machines = [SMALL, SMALL]
    single = Wanted("engines", 4, {"GPU": 1, "CPU": 1}, "SPREAD", "")
    assert take_places(single, fewer=True).count == 2
    with pytest.raises(ConfigError, match=r"4 engines of 2 GPUs, 2 CPUs each do not fit .* room for 0: 2 x"):
        take_places(PAIRS, fewer=True)


def test_a_machine_that_leaves_while_places_are_waited_for_is_noticed(cluster: Cluster) -> None:
    cluster.machines, cluster.slow = [dict(LARGE), SMALL], 2
    cluster.leaves = cluster.machines[0]
    with pytest.raises(ConfigError, match="room for 0: 1 x"):
        take_places(PAIRS)
    assert len(cluster.removed) == 1
    cluster.machines, cluster.slow = [dict(LARGE), LARGE], 2
    cluster.leaves = cluster.machines[0]
    six = Wanted("engines", 6, {"GPU": 2}, "SPREAD", "")
    # All six are asked for first, and four once it is known that one machine is gone.
    assert take_places(six, fewer=True).count == 4
    assert [len(bundles) for bundles, _ in cluster.groups] == [4, 6, 4] and len(cluster.removed) == 2


def test_places_that_others_have_are_waited_for_and_a_log_says_so(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(places, "SAID_EVERY_S", -1.0)
    cluster.slow = 3
    with caplog.at_level("INFO"):
        assert take_places(PAIRS).count == 4
    assert len(caplog.records) == 3 and "engines wait for their places, which others have" in caplog.text


def test_an_interrupt_gives_the_places_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        take_places(PAIRS)
    assert len(cluster.removed) == 1


def test_who_is_not_wanted_any_more_waits_no_longer(cluster: Cluster) -> None:
    cluster.slow = 10**9
    wait_for(begin_to_take(PAIRS), PAIRS, given_up=lambda: True)
