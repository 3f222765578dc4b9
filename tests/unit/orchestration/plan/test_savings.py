"""What the cache saves, from small caches that say what their rows took."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines, Watched, lease_queue, run_engine_loop
from local_signals import LocalSignals, SignalFilling, signal_set

from cache import ScoreRequest
from configs.doors import TokenPrice
from orchestration.plan.requests import SequenceSet, plan_fill
from orchestration.plan.savings import saved_by_cache, saved_signals


def bought(filling: Filling, asked: SequenceSet, *, joules: float) -> int:
    """Have the rows of a set bought for so much energy; their tokens."""
    queue = lease_queue(list(enumerate(asked.requests)), token_budget=None)
    queue.measured(joules)
    run_engine_loop(queue, filling.order(), lambda _: Watched())
    filling.cache.refresh()
    return sum(len(record.token_ids) for record in filling.records(asked))


def test_hits_credit_what_they_took_and_misses_nothing(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    tokens = bought(filling, teacher_set(prompts(4), k=0), joules=500.0)
    plan = plan_fill([teacher_set(prompts(8), k=0)], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache)
    assert (saved.tokens, saved.joules) == (tokens, pytest.approx(500.0)) and saved.gpu_seconds > 0.0


def test_a_part_of_a_segment_credits_its_part(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    tokens = bought(filling, teacher_set(prompts(4), k=0), joules=500.0)
    plan = plan_fill([teacher_set(prompts(2), k=0)], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache)
    assert 0 < saved.tokens < tokens and saved.joules == pytest.approx(500.0 * saved.tokens / tokens)


def test_what_an_earlier_start_of_the_experiment_bought_is_not_saved(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    tokens = bought(filling, teacher_set(prompts(4), k=0), joules=500.0)
    plan = plan_fill([teacher_set(prompts(4), k=0)], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache).beyond(tokens)
    assert (saved.tokens, saved.joules) == (0, 0.0)


def test_rows_of_which_nobody_knows_what_they_took_still_saved_their_tokens(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    filling.fill(teacher_set(prompts(3)), engines=LocalEngines())
    plan = plan_fill([teacher_set(prompts(3))], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache)
    assert saved.tokens > 0 and math.isnan(saved.joules)


def test_an_empty_cache_saves_nothing(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    plan = plan_fill([teacher_set(prompts(3))], cache=filling.cache)
    assert saved_by_cache(plan, cache=filling.cache).tokens == 0


def test_signals_that_the_cache_holds_are_credited_and_those_of_an_earlier_start_are_not(tmp_path: Path) -> None:
    filling = SignalFilling(tmp_path / "cache")
    assert saved_signals(filling.plan(signal_set(6)), cache=filling.cache).tokens == 0
    filling.fill(signal_set(4), engines=LocalSignals())
    plan = filling.plan(signal_set(6), signal_set(3, name="again"))
    saved = saved_signals(plan, cache=filling.cache)
    assert saved.tokens == 4 * 3 * 5 and saved.gpu_seconds > 0.0, "four texts of five tokens, three signals each"
    assert saved.beyond(saved.tokens).tokens == 0


def test_what_is_paid_by_the_token_would_cost_what_it_reads_and_writes(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    asked = teacher_set((*prompts(4), ScoreRequest((4, 5, 6, 7, 8), 2)))
    filling.fill(asked, engines=LocalEngines())
    filling.cache.refresh()
    # One more that is not there, and four of those that are there in two sets.
    plan = plan_fill([teacher_set(prompts(5)), asked], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache, price=TokenPrice(read=1e6, written=1e9))
    written = sum(record.response_len for record in filling.records(teacher_set(prompts(4))))
    # Four prompts of two tokens; a sequence that is scored is read whole.
    assert saved.paid == 4 * 2 + 5 + 1000 * written
    assert saved_by_cache(plan, cache=filling.cache).paid == 0.0
    assert saved.beyond(saved.tokens // 2).paid == pytest.approx(saved.paid * (1 - (saved.tokens // 2) / saved.tokens))
