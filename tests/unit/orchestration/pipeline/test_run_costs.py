"""What a run took, shown and tracked."""

from __future__ import annotations

from pathlib import Path

from pipeline_builders import fake_run

from configs.schema import RuntimeConfig
from evaluation.cost import Saved
from orchestration.cluster.cluster_meter import ClusterMeter
from orchestration.energy.readings import NOTHING
from orchestration.energy.tracker import MachineMeter
from orchestration.pipeline.run_costs import cost_of_run, counting, publish_cost


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
