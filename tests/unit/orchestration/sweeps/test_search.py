"""What is tried next: every value can come, a killed sweep goes on as if it had not been killed, good places are found."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sweep_builders import LAYERS, RATE, swept

from orchestration.sweeps.search import Search, pareto_front
from orchestration.sweeps.space import Values

SPACE: dict[str, Any] = {
    RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    LAYERS: {"low": 2, "high": 8, "step": 2},
    "students.kd.stages.0.divergence": ["forward_kl", {"kind": "jsd", "beta": 0.3}],
}


def search(kind: str, *, trials: int = 20, seed: int = 0) -> Search:
    sweep = swept(SPACE, search=kind, trials=trials, seed=seed).sweep
    assert sweep is not None
    return Search(sweep)


def score(values: Values) -> float:
    rate, layers = values[RATE], values[LAYERS]
    assert isinstance(rate, float) and isinstance(layers, int)
    return abs(math.log10(rate) + 4) + 0.001 * layers


def run(over: Search, numbers: range) -> list[Values]:
    asked = []
    for number in numbers:
        asked.append(over.ask(number))
        over.tell(number, score(asked[-1]))
    return asked


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_values_come_from_the_space(kind: str) -> None:
    for values in run(search(kind), range(20)):
        rate, layers = values[RATE], values[LAYERS]
        assert isinstance(rate, float) and 1e-5 <= rate <= 1e-3
        assert layers in (2, 4, 6, 8)
        assert values["students.kd.stages.0.divergence"] in ("forward_kl", {"kind": "jsd", "beta": 0.3})


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_sweep_that_was_killed_goes_on_as_if_it_had_not_been(kind: str) -> None:
    whole = run(search(kind), range(12))
    again = search(kind)
    for values in whole[:7]:
        again.learn(values, score(values))
    assert run(again, range(7, 12)) == whole[7:]


def test_a_trial_that_was_under_way_keeps_its_values() -> None:
    first = search("random").ask(3)
    again = search("random")
    assert again.ask(3, values=first) == first


def test_another_seed_is_another_search() -> None:
    assert run(search("random"), range(3)) != run(search("random", seed=1), range(3))


def test_a_good_place_is_found_with_fewer_trials_than_by_chance() -> None:
    best = {
        kind: sum(min(map(score, run(search(kind, seed=seed), range(20)))) for seed in range(5))
        for kind in ("random", "tpe")
    }
    assert best["tpe"] < best["random"]


def test_what_matters_is_told_from_what_does_not() -> None:
    over = search("random")
    run(over, range(20))
    found = over.importance()
    assert found[RATE] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)


def test_nothing_is_said_of_what_did_not_vary() -> None:
    over = search("random")
    assert over.importance() == {}
    run(over, range(1))
    assert over.importance() == {}


def test_a_failed_trial_teaches_nothing() -> None:
    over = search("tpe")
    for number, value in enumerate([None, math.nan, math.inf]):
        over.ask(number)
        over.tell(number, value)
    assert over.importance() == {}


def test_a_grid_is_gone_through_by_number() -> None:
    sweep = swept().sweep
    assert sweep is not None
    over = Search(sweep)
    assert over.trials == 6
    asked = [tuple(over.ask(number).items()) for number in (5, 0, 3, 1, 2, 4)]
    assert len(set(asked)) == 6


def test_the_front_holds_whatever_nothing_else_beats() -> None:
    assert pareto_front([(1.0, 5.0), (2.0, 4.0), (2.0, 5.0), (3.0, 1.0)]) == [0, 1, 3]
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]
    assert pareto_front([]) == []
