"""The energy of a cluster that a run has attached to: one tracker on each of its machines, read from here.

A tracker is an actor that reserves nothing. Machines that join get theirs at the next reading. One that leaves counts
up to its last answer. Nodes of Ray that share a machine, as pods do, count it once, for a tracker measures the whole
machine. Whatever else works in the cluster is counted too.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.energy.readings import NOTHING, UNKNOWN, UNKNOWN_SOURCE, Reading
from orchestration.energy.tracker import MachineMeter

ANSWER_S = 5.0
"""How long a reading waits for trackers that have answered before; of one that is late the last answer counts."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Equal in all containers of a machine, and in no two machines."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tracker of a node says; `machine` is equal for nodes of one machine."""

    reading: Reading
    source: str
    machine: str


class NodeTracker:
    """A `MachineMeter` in an actor. `node` stands for the machine where it has no name of its own."""

    def __init__(self, country: str | None, node: str) -> None:
        self._meter = MachineMeter(country=country)
        self._machine = BOOT_ID.read_text().strip() if BOOT_ID.is_file() else node

    def read(self) -> Answer:
        """What its machine took since the tracker came up."""
        return Answer(self._meter.read(), self._meter.source, self._machine)


@dataclass(slots=True)
class _Node:
    """A node of the cluster as the meter sees it.

    `asked` is a question that is not answered yet; `prompt` says that the last one was answered in time.
    """

    address: str
    actor: Any
    asked: Any = None
    last: Answer | None = None
    prompt: bool = False
    lost: bool = False


class ClusterMeter:
    """An `EnergyMeter` of all machines of the cluster that this process is attached to; before that, of none."""

    def __init__(self, *, country: str | None = None) -> None:
        self._country = country
        self._nodes: dict[str, _Node] = {}
        self._lock = threading.Lock()

    @property
    def source(self) -> str:
        """How the numbers came about, and on how many machines; empty when there are none."""
        with self._lock:
            known = [answer for answer in self._machines() if answer.source != UNKNOWN_SOURCE]
        ways = Counter(answer.source for answer in known)
        return "; ".join(f"{source}, on {count} machine{'s'[: count > 1]}" for source, count in sorted(ways.items()))

    def read(self) -> Reading:
        """What the machines took since their trackers came up; not known if one of them cannot be measured."""
        with self._lock:
            if ray.is_initialized():
                self._follow()
                self._ask()
            return sum((answer.reading for answer in self._machines()), NOTHING)

    def close(self) -> None:
        """End the trackers; what they said remains."""
        with self._lock:
            for node in self._nodes.values():
                if ray.is_initialized() and not node.lost:
                    ray.kill(node.actor)
                node.lost = True

    def _machines(self) -> list[Answer]:
        """The last answer of each machine; where several nodes share one, of the tracker that was up first."""
        found: dict[str, Answer] = {}
        for answer in sorted((node.last for node in self._nodes.values() if node.last is not None), key=_joules):
            found[answer.machine] = answer
        return list(found.values())

    def _follow(self) -> None:
        """Start trackers where there are none yet."""
        for node in ray.nodes():
            name = node["NodeID"]
            if not node["Alive"] or name in self._nodes:
                continue
            there = NodeAffinitySchedulingStrategy(node_id=name, soft=False)
            tracker = ray.remote(NodeTracker).options(num_cpus=0, scheduling_strategy=there)
            self._nodes[name] = _Node(node["NodeManagerAddress"], tracker.remote(self._country, name))

    def _ask(self) -> None:
        """Take answers that are there; then ask those who answered last time, and wait for them a little."""
        self._take(at_most_s=0.0)
        self._take(at_most_s=ANSWER_S)

    def _take(self, *, at_most_s: float) -> None:
        asked = dict[Any, _Node]()
        for node in self._nodes.values():
            if not node.lost:
                node.asked = node.asked or node.actor.read.remote()
                if node.prompt or not at_most_s:
                    asked[node.asked] = node
        if not asked:
            return
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=at_most_s)
        for question in done:
            _hear(asked[question])
        if at_most_s:
            for question in late:
                asked[question].prompt = False


def _hear(node: _Node) -> None:
    """Take note of an answer that is there."""
    try:
        answer: Answer = ray.get(node.asked)
    except RayError:
        _lose(node)
        return
    known = node.last is None or not math.isnan(node.last.reading.joules)
    if known and math.isnan(answer.reading.joules):
        logger.warning("energy is not measured: no tracker starts on %s", node.address)
    node.asked, node.last, node.prompt = None, answer, True


def _lose(node: _Node) -> None:
    """Ask a node no more."""
    node.lost = True
    if node.last is None:
        node.last = Answer(UNKNOWN, UNKNOWN_SOURCE, node.address)
        logger.warning("energy is not measured: the tracker of %s does not answer", node.address)
    else:
        logger.warning("the energy of %s is counted up to here: its tracker is gone", node.address)


def _joules(answer: Answer) -> float:
    return -1.0 if math.isnan(answer.reading.joules) else answer.reading.joules
