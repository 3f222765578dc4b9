"""What a run took beside what its cache saved it, put together from ledger and meter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from configs.models import Device
from configs.schema import RuntimeConfig
from evaluation.cost import Saved, Usage, metrics, run_cost
from evaluation.results import RunCost
from orchestration.cluster.cluster_meter import ClusterMeter
from orchestration.comparison.cost_table import print_cost
from orchestration.energy.readings import StageCosts
from orchestration.energy.tracker import MachineMeter
from orchestration.pipeline.run import AnyRun, Journal


@contextmanager
def counting(runtime: RuntimeConfig) -> Iterator[StageCosts]:
    """What stages take while the context lasts: of this machine, or of all machines of a cluster of the user's."""
    kind = MachineMeter if runtime.ray_address is None else ClusterMeter
    with closing(kind(country=runtime.energy_country)) as meter:
        yield StageCosts(meter)


def publish_cost(cost: RunCost, journal: Journal, *, device: Device) -> None:
    """Show and track what a run on a `device` took."""
    journal.tracker.log_final("pipeline", metrics(cost))
    print_cost(cost, journal.console, device=device)


def cost_of_run(*, settings: AnyRun, journal: Journal, saved: Saved) -> RunCost:
    """The cost of the run up to now; tokens and hours are over all its starts, stages those of this one."""
    spent, costs = journal.ledger.counts(), journal.console.costs
    students = max(spent.gpu_seconds - spent.teacher_gpu_seconds, 0.0)
    return run_cost(
        costs.stages,
        total=costs.total(),
        energy_source=costs.meter.source,
        usage=Usage(spent.tokens, spent.teacher_gpu_seconds, students + spent.training_gpu_seconds, spent.paid),
        saved=saved,
        prices=settings.config.prices,
    )
