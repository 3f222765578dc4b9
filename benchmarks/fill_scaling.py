"""Whether a fill goes as much faster as it has engines: paced ones, which compute nothing, in actors of a real pool.

Each engine finishes `BATCH` rows every `STEP_S`, as one on a GPU of its own would; queue, pulse, keeping and committing
are those of every fill. What they take of processors bounds how many engines the cores of this machine serve, so it is
told beside the rate.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fills import fill_order, require_all
from benchmarks.measurement import Measurement, at_least
from orchestration.environment import prepare_environment

ENGINES = (1, 2, 4, 8)
SECONDS = 10.0
"""How long a fill takes whose engines wait for nobody."""

LEAST = 0.9
"""Of the rate of one engine, the least that each of several has to have."""

ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Filled:
    """Rows that so many engines answered, the seconds by the clock, and those of the engines' processors."""

    engines: int
    rows: int
    seconds: float
    worked: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def measured(self) -> Iterator[Measurement]:
        """Rate, and what a row takes of the engines' processors."""
        name = f"fill with {self.engines} paced engine{'s' if self.engines > 1 else ''}"
        yield Measurement(name, self.rate, "rows/s", digits=0)
        yield Measurement(f"{name}, processor time a row", 1e3 * self.worked / self.rows, "ms")


def bench_fill_scaling() -> Iterator[Measurement]:
    """The rate of each number of engines, beside so many times that of one."""
    # Before Ray is imported, which reads it once.
    prepare_environment(ray_address=None)
    from orchestration.cluster.private import cluster

    with cluster(address=None, gpus=0), tempfile.TemporaryDirectory() as folder:
        one, *more = (filled(engines, Path(folder) / str(engines)) for engines in ENGINES)
        yield from one.measured()
        for took in more:
            yield from took.measured()
            yield at_least(f"rate / {took.engines} x that of one engine", took.rate / took.engines / one.rate, LEAST)


def paced_pool(engines: int, *, log_dir: Path) -> Any:
    """A pool of paced engines, which can also say how long their processes have worked."""
    import ray

    from benchmarks.door import IDENTITY, VOCAB, K, Paced
    from cache import TeacherCache
    from orchestration.cluster.actor_pool import ActorPool
    from orchestration.cluster.places import Wanted
    from orchestration.cluster.pulse import Life
    from orchestration.fill.answers import SequenceAnswers
    from orchestration.fill.engine_loop import EngineLoop, FillOrder, Leases

    class Engine:
        def __init__(self, life: Life) -> None:
            life.beat()

        def ready(self) -> None:
            """It is as soon as it is there."""

        def worked_s(self) -> float:
            return time.process_time()

        def fill(self, leases: Leases[Any], order: FillOrder) -> None:
            cache = TeacherCache.open(order.cache_root, IDENTITY)
            with cache.writer(vocab=VOCAB, licence=None, provenance={}, encoding=order.encoding) as writer:  # type: ignore[arg-type]
                EngineLoop(leases, order, SequenceAnswers(Paced(), writer, k=K)).work()

        def close(self) -> None:
            """There is nothing to end."""

    @dataclass(frozen=True)
    class Spec:
        log_dir: Path
        memory: None = None

    class Pool(ActorPool):
        spec = Spec(log_dir)
        counted = (1.0, "teacher")
        wanted = Wanted("engines", engines, {}, "SPREAD", "ask for fewer")

        def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> ray.actor.ActorHandle:
            return ray.remote(Engine).options(**options).remote(life)

        def worked_s(self) -> float:
            return sum(self.ask([actor.worked_s.remote() for actor in self._actors]))

    return Pool()


def filled(engines: int, root: Path) -> Filled:
    """The best of some fills with so many engines, which are up, into a new cache below `root`."""
    pool, best = paced_pool(engines, log_dir=root), None
    try:
        pool.start()
        for number in range(ROUNDS):
            took = _filled(pool, engines, root / str(number))
            best = took if best is None or took.seconds < best.seconds else best
    finally:
        pool.release()
    assert best is not None
    return best


def _filled(pool: Any, engines: int, root: Path) -> Filled:
    from benchmarks.door import BATCH, STEP_S, K, request_of
    from orchestration.outputs.console import StageProgress

    rows = round(engines * SECONDS / STEP_S) * BATCH
    order = fill_order(root, k=K)
    progress = StageProgress("fill", total=rows, unit="rows", started=time.monotonic())
    work = [(at, request_of(at)) for at in range(rows)]
    before, started = pool.worked_s(), time.perf_counter()
    done = pool.fill_items(work, order, progress=progress, token_budget=None, seconds_budget=None)
    seconds, worked = time.perf_counter() - started, pool.worked_s() - before
    require_all(done, rows=rows)
    return Filled(engines, rows, seconds, worked)
