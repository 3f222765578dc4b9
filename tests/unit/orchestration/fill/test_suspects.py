"""A row that kills the engine is found by halves, whatever dies beside it, in few starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines, lease_queue, run_engine_loop

from cache import GenerateRequest
from cache.answers import Request
from configs import EngineError
from orchestration.fill import lots, suspects
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.suspects import KILLED
from orchestration.fill.work import EnginesDiedError, MemoryRanOutError


class Deadly(LocalEngines):
    """Engines that die with nothing committed once they have drawn a row that kills; sixteen rows are under way."""

    kills: Callable[[Request], bool]
    deaths: int = 0

    def fill(self, work: Iterable[tuple[int, Request]], order: FillOrder, **terms: Any) -> FillProgress:
        total, rows, drawn = FillProgress(), iter(work), list[int]()
        while part := list(islice(rows, 16)):
            drawn += [position for position, _ in part]
            if any(self.kills(request) for _, request in part):
                self.deaths += 1
                raise EnginesDiedError("killed", drawn)
            queue = lease_queue(part, token_budget=None)
            run_engine_loop(queue, order, lambda _: self.teacher)
            total.add(queue.progress())
        return total


def deadly(kills: Callable[[Request], bool]) -> Deadly:
    engines = Deadly()
    engines.kills = kills
    return engines


@pytest.fixture(params=[(lots.LOT, lots.PASS), (24, lots.PASS), (7, 24)], ids=["at once", "in lots", "in passes"])
def filling(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filling:
    monkeypatch.setattr(lots, "LOT", request.param[0])
    monkeypatch.setattr(lots, "PASS", request.param[1])
    return Filling(tmp_path / "cache")


def first_id(request: Request) -> int:
    assert isinstance(request, GenerateRequest)
    return request.prompt_ids[0]


@pytest.mark.parametrize("guilty", [3, 17, 40])
def test_the_guilty_row_is_found_and_all_others_are_answered(guilty: int, filling: Filling) -> None:
    rows, engines = prompts(40), deadly(lambda request: first_id(request) == guilty)
    result = filling.fill(teacher_set(rows), engines=engines)
    assert {first_id(request): why for request, why in result.failed.items()} == {guilty: KILLED}
    assert result.rows == len(filling.records(teacher_set(rows))) == 39
    assert engines.deaths <= math.log2(16) + 3
    again = LocalEngines()
    assert filling.fill(teacher_set(rows), engines=again, refused=filling.failures()).failed == result.failed
    assert again.orders == []


def test_several_guilty_rows_are_found(filling: Filling) -> None:
    engines = deadly(lambda request: first_id(request) in (5, 6, 30))
    result = filling.fill(teacher_set(prompts(40)), engines=engines)
    assert sorted(map(first_id, result.failed)) == [5, 6, 30]
    assert len(filling.records(teacher_set(prompts(40)))) == 37
    assert engines.deaths <= 3 * (math.log2(16) + 3)


def test_a_row_that_is_alone_is_guilty_when_it_kills_twice(filling: Filling) -> None:
    engines = deadly(lambda _: True)
    assert list(filling.fill(teacher_set(prompts(1)), engines=engines).failed.values()) == [KILLED]
    assert engines.deaths == 2


def test_a_death_by_chance_costs_no_row(filling: Filling) -> None:
    engines = Deadly()
    engines.kills = lambda _: engines.deaths == 0
    result = filling.fill(teacher_set(prompts(20)), engines=engines)
    assert result.failed == {} and len(filling.records(teacher_set(prompts(20)))) == 20
    assert engines.deaths == 1


def test_an_engine_that_dies_of_everything_ends_the_fill_and_no_row_is_to_blame(filling: Filling) -> None:
    engines = deadly(lambda _: True)
    with pytest.raises(EngineError, match=r"answered nothing, whatever they were asked; the last: killed"):
        filling.fill(teacher_set(prompts(40)), engines=engines)
    assert engines.deaths <= 2 * math.log2(16) + 2
    assert all(filling.failures().reason(request) is None for request in prompts(40))


def test_deaths_are_bounded_and_what_was_found_is_remembered(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_DEATHS", 12)
    engines = deadly(lambda request: first_id(request) % 2 == 1)
    with pytest.raises(EngineError, match=r"engines died 12 times in one fill, of \d+ rows"):
        filling.fill(teacher_set(prompts(40)), engines=engines)
    assert engines.deaths == 12
    known = [request for request in prompts(40) if filling.failures().reason(request) is not None]
    assert known and all(first_id(request) % 2 for request in known)


class Heavy(LocalEngines):
    """Engines that run out of memory at their first row, and are lighter after it as often as `halvings`."""

    halvings = 3
    deaths = 0

    def fill(self, work: Iterable[tuple[int, Request]], order: FillOrder, **terms: Any) -> FillProgress:
        if self.deaths < 3:
            self.deaths += 1
            kind = MemoryRanOutError if self.deaths <= self.halvings else EnginesDiedError
            raise kind("memory ran out", [position for position, _ in work])
        return super().fill(work, order, **terms)


def test_no_row_is_suspected_while_engines_grow_lighter(filling: Filling) -> None:
    engines = Heavy()
    result = filling.fill(teacher_set(prompts(40)), engines=engines)
    assert (result.failed, result.rows, engines.deaths) == ({}, 40, 3)
    # Over everything, pass by pass, not by halves.
    assert len(engines.orders) == math.ceil(40 / lots.PASS)


def test_rows_are_suspected_when_engines_are_as_light_as_they_can_be(filling: Filling) -> None:
    engines = Heavy()
    engines.halvings = 1
    result = filling.fill(teacher_set(prompts(40)), engines=engines)
    assert (result.failed, result.rows) == ({}, 40)
    assert len(engines.orders) > 1
