"""What a run took and what its cache saved it, put together from plan, ledger and meter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np

from cache import TeacherCache
from cache.disk.spending import Spent, together
from configs.models import Device
from configs.schema import RuntimeConfig
from evaluation.cost import Saved, Usage, metrics, run_cost
from evaluation.results import RunCost
from orchestration.cluster.cluster_meter import ClusterMeter
from orchestration.comparison.cost_table import print_cost
from orchestration.energy.readings import StageCosts
from orchestration.energy.tracker import MachineMeter
from orchestration.fill.ledger import Counts
from orchestration.pipeline.run import AnyRun, Journal
from orchestration.plan.requests import FillPlan
from orchestration.plan.signal_requests import SignalPlan

NOTHING_SAVED = Saved(0, 0.0, 0.0)


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


def saved_by_cache(plan: FillPlan, *, cache: TeacherCache, spent_before: Counts) -> Saved:
    """What the rows of the plan that the cache holds took when they were bought.

    What the experiment bought itself, in a start that was ended (`spent_before`), is not saved. Gold answers and plain
    text that are kept as text cost nobody anything.
    """
    tokens, known = 0, list[Spent]()
    for part in plan.sets:
        sequences = part.sequences
        if sequences.source != "teacher" and sequences.k == 0:
            continue
        lacking = [*part.missing.generate, *(at for at, _ in part.missing.score)]
        held = np.setdiff1d(np.arange(len(sequences.requests)), np.array(lacking, dtype=np.int64)).tolist()
        found = cache.lookup([sequences.requests[at] for at in held], k=sequences.k)
        count, spent = cache.spent([key for key in found if key is not None], k=sequences.k)
        tokens, known = tokens + count, [*known, spent]
    total = together(known)
    return Saved(tokens, total.gpu_seconds, total.joules).beyond(spent_before.fill)


def saved_signals(plan: SignalPlan, *, cache: TeacherCache) -> Saved:
    """What the signals of the plan that the cache holds took when they were bought, whoever bought them."""
    requests = list(dict.fromkeys(plan.requests))
    lacking = set(cache.signals.missing(requests))
    held = [request for at, request in enumerate(requests) if at not in lacking]
    tokens, spent = cache.spent(cache.signals.keys(held), k=0)
    return Saved(tokens, spent.gpu_seconds, spent.joules)


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
