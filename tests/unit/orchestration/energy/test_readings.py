"""What stages take, by a meter and a clock whose readings are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from evaluation.cost import phases
from orchestration.energy.readings import NoMeter, Reading, StageCosts


@dataclass
class Machine:
    """100 W, and 0.1 g of CO2 a second."""

    now: float = 0.0
    source: str = "known"

    def clock(self) -> float:
        return self.now

    def read(self) -> Reading:
        return Reading(100.0 * self.now, 1e-4 * self.now)


def costs() -> tuple[Machine, StageCosts]:
    machine = Machine()
    return machine, StageCosts(machine, clock=machine.clock)


def test_a_stage_has_what_it_took() -> None:
    machine, found = costs()
    machine.now = 5.0
    with found.stage("fill"):
        machine.now = 25.0
    (stage,) = found.stages
    assert (stage.name, stage.seconds, stage.joules) == ("fill", 20.0, 2000.0)
    assert stage.co2_kg == pytest.approx(2e-3)


def test_a_stage_within_another_counts_once() -> None:
    machine, found = costs()
    with found.stage("train"):
        machine.now = 10.0
        with found.stage("ray"):
            machine.now = 14.0
            with found.stage("probe"):
                machine.now = 15.0
        machine.now = 30.0
    assert [(each.name, each.seconds) for each in found.stages] == [("probe", 1.0), ("ray", 4.0), ("train", 25.0)]
    assert math.fsum(each.joules for each in found.stages) == 3000.0


def test_phases_sum_to_the_total() -> None:
    machine, found = costs()
    for title in ("fill", "train", "compare"):
        machine.now += 1.5
        with found.stage(title):
            machine.now += 7.0
    machine.now += 2.0
    total = found.total()
    parts = phases(found.stages, total=total)
    assert (total.seconds, total.joules) == (27.5, 2750.0) and len(parts) == 4
    assert math.fsum(each.seconds for each in parts) == pytest.approx(total.seconds)
    assert math.fsum(each.joules for each in parts) == pytest.approx(total.joules)
    assert math.fsum(each.co2_kg for each in parts) == pytest.approx(total.co2_kg)


def test_a_stage_that_fails_is_not_counted_and_leaves_the_others_as_they_are() -> None:
    machine, found = costs()
    with pytest.raises(RuntimeError), found.stage("fill"):
        raise RuntimeError("no disk")
    with found.stage("fill"):
        machine.now = 3.0
    assert [each.seconds for each in found.stages] == [3.0]


def test_without_a_meter_times_are_known_and_energy_is_not() -> None:
    found = StageCosts(NoMeter(), clock=iter([0.0, 1.0, 3.0]).__next__)
    with found.stage("fill"):
        pass
    assert found.stages[0].seconds == 2.0 and math.isnan(found.stages[0].joules)
