"""What one engine spends between two commits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines, Watched, lease_queue, run_engine_loop

from cache.disk.spending import Spent
from orchestration.fill.spending import Spending


def test_each_commit_gets_what_was_spent_since_the_last() -> None:
    times, joules = iter([100.0, 110.0, 125.0]), iter([50.0, 90.0])
    spending = Spending(gpus=4, joules=lambda: next(joules), clock=lambda: next(times))
    assert spending.take() == Spent(10.0, 40.0, 50.0)
    assert spending.take() == Spent(15.0, 60.0, 40.0)


def test_energy_that_is_not_known_at_one_commit_is_in_the_next() -> None:
    joules = iter([math.nan, 90.0, 100.0])
    spending = Spending(gpus=1, joules=lambda: next(joules), clock=lambda: 0.0)
    assert math.isnan(spending.take().joules)
    assert spending.take().joules == 90.0
    assert spending.take().joules == 10.0


def test_the_engines_of_a_fill_share_its_energy() -> None:
    queue = lease_queue([], token_budget=None, engines=2)
    assert math.isnan(queue.joules())
    queue.measured(300.0)
    assert queue.joules() == 150.0


def test_what_a_fill_took_is_credited_to_whoever_finds_its_rows(tmp_path: Path) -> None:
    filling, asked = Filling(tmp_path / "cache"), teacher_set(prompts(6))
    queue = lease_queue(list(enumerate(asked.requests)), token_budget=None)
    queue.measured(600.0)
    run_engine_loop(queue, filling.order(), lambda _: Watched())
    filling.cache.refresh()
    keys = [key for key in filling.cache.lookup(asked.requests) if key is not None]
    tokens, spent = filling.cache.spent(keys, k=0)
    records = filling.records(teacher_set(prompts(6), k=0))
    assert tokens == sum(len(record.token_ids) for record in records)
    assert spent.joules == pytest.approx(600.0)
    assert 0.0 < spent.seconds < 60.0 and spent.gpu_seconds == spent.seconds
    half, of_half = filling.cache.spent(keys[:3], k=0)
    assert of_half.joules == pytest.approx(600.0 * half / tokens)


def test_a_fill_that_nobody_measures_says_how_long_it_took(tmp_path: Path) -> None:
    filling, asked = Filling(tmp_path / "cache"), teacher_set(prompts(2), k=4)
    filling.fill(asked, engines=LocalEngines())
    keys = [key for key in filling.cache.lookup(asked.requests) if key is not None]
    spent = filling.cache.spent(keys, k=4)[1]
    assert spent.seconds > 0.0 and math.isnan(spent.joules)
