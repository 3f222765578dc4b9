"""The trackers of a cluster, asked over a Ray whose nodes and answers are known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import pytest
from ray.exceptions import RayActorError

from orchestration.cluster import cluster_meter
from orchestration.cluster.cluster_meter import Answer, ClusterMeter, NodeTracker
from orchestration.energy.readings import NOTHING, UNKNOWN, Reading


@dataclass(eq=False)
class Tracker:
    """An actor whose answers the test sets; with none it is still coming up, or hangs."""

    answers: Answer | RayActorError | None = None
    asked: int = 0

    @property
    def read(self) -> Self:
        return self

    def remote(self) -> Self:
        self.asked += 1
        return self


@dataclass
class KnownRay:
    """Nodes by name, each with the tracker that is started there. A question is the tracker that it went to."""

    trackers: dict[str, Tracker] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    attached: bool = True
    started: list[str] = field(default_factory=list)
    killed: list[Tracker] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def is_initialized(self) -> bool:
        return self.attached

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "NodeManagerAddress": name, "Alive": name not in self.gone} for name in self.trackers]

    def remote(self, kind: type) -> Self:
        assert kind is NodeTracker
        return self

    def options(self, *, num_cpus: int, scheduling_strategy: Any) -> Any:
        assert num_cpus == 0 and not scheduling_strategy.soft
        name = scheduling_strategy.node_id
        ray = self

        class Start:
            def remote(self, country: str | None, node: str) -> Tracker:
                assert (country, node) == ("DEU", name)
                ray.started.append(name)
                return ray.trackers[name]

        return Start()

    def wait(self, asked: list[Tracker], *, num_returns: int, timeout: float) -> tuple[list[Tracker], list[Tracker]]:
        assert num_returns == len(asked)
        late = [tracker for tracker in asked if tracker.answers is None]
        if late:
            self.waits.append(timeout)
        return [tracker for tracker in asked if tracker.answers is not None], late

    def get(self, tracker: Tracker) -> Answer:
        if isinstance(tracker.answers, RayActorError):
            raise tracker.answers
        assert tracker.answers is not None
        return tracker.answers

    def kill(self, tracker: Tracker) -> None:
        self.killed.append(tracker)


def said(joules: float, *, machine: str, source: str = "counted") -> Answer:
    return Answer(Reading(joules, joules / 1000.0), source, machine)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> KnownRay:
    known = KnownRay()
    monkeypatch.setattr(cluster_meter, "ray", known)
    monkeypatch.setattr(cluster_meter, "NodeAffinitySchedulingStrategy", SimpleNamespace)
    return known


def warnings(caplog: pytest.LogCaptureFixture) -> Iterable[str]:
    return [record.getMessage() for record in caplog.records]


def test_before_a_cluster_is_attached_to_nothing_is_counted(ray: KnownRay) -> None:
    ray.attached = False
    meter = ClusterMeter(country="DEU")
    assert meter.read() == NOTHING and meter.source == "" and ray.started == []
    meter.close()


def test_the_machines_of_a_cluster_are_added_up_those_that_join_too(ray: KnownRay) -> None:
    ray.trackers = {"a": Tracker(said(100.0, machine="1")), "b": Tracker(said(30.0, machine="2"))}
    meter = ClusterMeter(country="DEU")
    assert meter.read() == Reading(130.0, pytest.approx(0.13))
    ray.trackers["c"] = Tracker(said(7.0, machine="3", source="estimated"))
    assert meter.read().joules == 137.0 and ray.started == ["a", "b", "c"]
    assert meter.source == "counted, on 2 machines; estimated, on 1 machine"
    meter.close()
    assert len(ray.killed) == 3
    ray.attached = False
    assert meter.read().joules == 137.0, "what was counted remains"


def test_nodes_that_share_a_machine_count_it_once(ray: KnownRay) -> None:
    ray.trackers = {"pod": Tracker(said(40.0, machine="1")), "other": Tracker(said(100.0, machine="1"))}
    meter = ClusterMeter(country="DEU")
    assert meter.read().joules == 100.0 and meter.source == "counted, on 1 machine"


def test_nobody_waits_for_a_tracker_that_comes_up_or_hangs(ray: KnownRay) -> None:
    one, other = Tracker(said(100.0, machine="1")), Tracker()
    ray.trackers = {"a": one, "b": other}
    meter = ClusterMeter(country="DEU")
    assert meter.read().joules == 100.0 and ray.waits == [0.0]
    other.answers = said(5.0, machine="2")
    assert meter.read().joules == 105.0
    other.answers = None
    assert meter.read().joules == 105.0 and ray.waits[-1] == cluster_meter.ANSWER_S, "it answered before"
    ray.waits.clear()
    questions = other.asked
    assert meter.read().joules == 105.0 and ray.waits == [0.0]
    assert other.asked == questions, "its question stands"


def test_a_node_that_leaves_counts_up_to_its_last_answer(ray: KnownRay, caplog: pytest.LogCaptureFixture) -> None:
    ray.trackers = {"a": Tracker(said(100.0, machine="1")), "b": Tracker(said(30.0, machine="2"))}
    meter = ClusterMeter(country="DEU")
    meter.read()
    ray.gone, ray.trackers["b"].answers = {"b"}, RayActorError()
    ray.trackers["a"].answers = said(120.0, machine="1")
    assert meter.read().joules == meter.read().joules == 150.0
    assert warnings(caplog) == ["the energy of b is counted up to here: its tracker is gone"]


@pytest.mark.parametrize(
    "trouble", [Answer(UNKNOWN, "", "2"), RayActorError()], ids=["no codecarbon", "no process"]
)  # fmt: skip
def test_with_a_machine_that_cannot_be_measured_the_sum_is_not_known(
    trouble: Answer | RayActorError, ray: KnownRay, caplog: pytest.LogCaptureFixture
) -> None:
    ray.trackers = {"a": Tracker(said(100.0, machine="1")), "b": Tracker(trouble)}
    meter = ClusterMeter(country="DEU")
    assert math.isnan(meter.read().joules) and math.isnan(meter.read().joules)
    (line,) = warnings(caplog)
    assert line.startswith("energy is not measured: ") and " b" in line


def test_a_tracker_names_the_machine_that_it_measures() -> None:
    answer = NodeTracker(None, "node")
    assert answer.read().machine == NodeTracker(None, "other").read().machine != ""
