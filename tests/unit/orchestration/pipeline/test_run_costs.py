"""What the cache saved a run, from small caches that say what their rows took."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines, Watched, lease_queue, run_engine_loop
from local_signals import LocalSignals, SignalFilling, signal_set
from pipeline_builders import fake_run

from configs.schema import RuntimeConfig
from evaluation.cost import Saved
from orchestration.cluster.cluster_meter import ClusterMeter
from orchestration.energy.readings import NOTHING
from orchestration.energy.tracker import MachineMeter
from orchestration.fill.ledger import Counts
from orchestration.pipeline.run_costs import cost_of_run, counting, publish_cost, saved_by_cache, saved_signals
from orchestration.plan.requests import SequenceSet, plan_fill


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
    saved = saved_by_cache(plan, cache=filling.cache, spent_before=Counts())
    assert (saved.tokens, saved.joules) == (tokens, pytest.approx(500.0)) and saved.gpu_seconds > 0.0


def test_a_part_of_a_segment_credits_its_part(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    tokens = bought(filling, teacher_set(prompts(4), k=0), joules=500.0)
    plan = plan_fill([teacher_set(prompts(2), k=0)], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache, spent_before=Counts())
    assert 0 < saved.tokens < tokens and saved.joules == pytest.approx(500.0 * saved.tokens / tokens)


def test_what_an_earlier_start_of_the_experiment_bought_is_not_saved(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    tokens = bought(filling, teacher_set(prompts(4), k=0), joules=500.0)
    plan = plan_fill([teacher_set(prompts(4), k=0)], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache, spent_before=Counts(fill=tokens, rollout=7))
    assert (saved.tokens, saved.joules) == (0, 0.0)


def test_rows_of_which_nobody_knows_what_they_took_still_saved_their_tokens(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    filling.fill(teacher_set(prompts(3)), engines=LocalEngines())
    plan = plan_fill([teacher_set(prompts(3))], cache=filling.cache)
    saved = saved_by_cache(plan, cache=filling.cache, spent_before=Counts())
    assert saved.tokens > 0 and math.isnan(saved.joules)


def test_an_empty_cache_saves_nothing(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "cache")
    plan = plan_fill([teacher_set(prompts(3))], cache=filling.cache)
    assert saved_by_cache(plan, cache=filling.cache, spent_before=Counts()).tokens == 0


def test_signals_that_the_cache_holds_are_credited_and_those_of_an_earlier_start_are_not(tmp_path: Path) -> None:
    filling = SignalFilling(tmp_path / "cache")
    assert saved_signals(filling.plan(signal_set(6)), cache=filling.cache).tokens == 0
    filling.fill(signal_set(4), engines=LocalSignals())
    plan = filling.plan(signal_set(6), signal_set(3, name="again"))
    saved = saved_signals(plan, cache=filling.cache)
    assert saved.tokens == 4 * 3 * 5 and saved.gpu_seconds > 0.0, "four texts of five tokens, three signals each"
    assert saved.beyond(saved.tokens).tokens == 0


def test_in_a_cluster_that_is_attached_to_its_machines_are_measured_and_not_this_one() -> None:
    with counting(RuntimeConfig(ray_address="10.0.0.1:6379")) as costs:
        assert isinstance(costs.meter, ClusterMeter) and costs.meter.read() == NOTHING
        assert costs.total().seconds >= 0.0
    with counting(RuntimeConfig()) as costs:
        assert isinstance(costs.meter, MachineMeter)


def test_the_cost_of_a_run_is_shown_and_tracked(tmp_path: Path) -> None:
    run = fake_run(tmp_path, prices={"gpu_hour": 3600.0, "currency": "EUR"})
    journal = run.journal
    journal.ledger.add(fill=500)
    saved = Saved(2_000, 2.0, 7200.0)
    cost = cost_of_run(settings=run.settings, journal=journal, saved=saved)
    publish_cost(cost, journal, device=run.settings.device)
    assert (cost.teacher_tokens, cost.saved_tokens, cost.saved, cost.currency) == (500, 2_000, 2.0, "EUR")
    (tracked,) = [values for _, values in run.tracker.of("final", "pipeline") if "cost/saved" in values]
    assert tracked["cost/saved_tokens"] == 2_000.0
    assert "saved by the cache" in run.said and "engine hours" in run.said
