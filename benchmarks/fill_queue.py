"""Whether the queue of a fill keeps up with 200 engines: one actor of Ray, asked what they ask it.

For each lease an engine also reports, as often as it does in the time that it takes for a lease
(`orchestration.fill.engine_loop`). How long that is, is an assumption about a fast engine of a small model on a large
GPU; slower ones ask less. To the pulse each engine says that it lives, and asks it before a commit. What counts is the
processor time of the two processes, Ray's part in it included, because whoever asks here shares the cores with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measurement import Measurement, at_least
from orchestration.environment import prepare_environment

ENGINES = 200
TOKENS_PER_S = 5_000
"""Written by one engine."""

PROMPT, ANSWER = 512, 256
"""Tokens of a request, and of what is written to it."""

LEASES, BEATS, ROUNDS = 400, 2000, 3


def bench_fill_queue() -> Iterator[Measurement]:
    """What a lease and a sign of life take, and how many engines that would serve."""
    # Before Ray is imported, which reads it once.
    prepare_environment(ray_address=None)
    from orchestration.cluster.leases import LEASE
    from orchestration.cluster.private import cluster
    from orchestration.cluster.pulse import BEAT_EVERY_S

    engine_s = LEASE * ANSWER / TOKENS_PER_S
    with cluster(address=None, gpus=0):
        queue_s, beat_s = seconds_a_lease(engine_s), seconds_a_beat()
    pace = f"an engine of {TOKENS_PER_S:,} tokens/s has a lease in {engine_s:.2f} s"
    what = f"queue of a fill, work a lease of {LEASE} prompts of {PROMPT} tokens, reports included"
    yield Measurement(what, 1e3 * queue_s, "ms", note=pace)
    yield at_least(f"queue's rate / that of {ENGINES} such engines", engine_s / (ENGINES * queue_s), 1.0, digits=1)
    pace = f"an engine gives one in {BEAT_EVERY_S:g} s"
    yield Measurement("pulse of a run, work a sign of life", 1e3 * beat_s, "ms", note=pace)
    yield at_least(f"pulse's rate / that of {ENGINES} engines", BEAT_EVERY_S / (ENGINES * beat_s), 1.0, digits=1)


def seconds_a_lease(engine_s: float) -> float:
    """What the queue takes for a lease and all that its engine reports in the `engine_s` that it works on it."""
    import ray

    from cache import GenerateRequest
    from cache.answers import Request
    from orchestration.cluster.leases import LEASE, ItemQueue
    from orchestration.fill.engine_loop import REPORT_EVERY_S, FillProgress

    class Measured(ItemQueue[Request]):
        def worked_s(self) -> float:
            return time.process_time()

    requests = [GenerateRequest(tuple(range(at, at + PROMPT)), (2,), ANSWER) for at in range(LEASES * LEASE)]
    best = float("inf")
    for _ in range(ROUNDS):
        queue = ray.remote(num_cpus=0)(Measured).remote(list(enumerate(requests)), token_budget=None, engines=ENGINES)
        started: float = ray.get(queue.worked_s.remote())
        asked: list[Any] = []
        reports = 0.0
        for _ in range(LEASES):
            asked.append(queue.lease.remote())
            reports += engine_s / REPORT_EVERY_S
            asked += [queue.report.remote(FillProgress(rows=LEASE)) for _ in range(int(reports))]
            reports %= 1
        ray.get(asked)
        best = min(best, (ray.get(queue.worked_s.remote()) - started) / LEASES)
        ray.kill(queue)
    return best


def seconds_a_beat() -> float:
    """What the pulse takes to hear an engine once, of all that it expects."""
    import ray

    from orchestration.cluster.pulse import Pulse

    class Measured(Pulse):
        def worked_s(self) -> float:
            return time.process_time()

    names, best = [f"engine-{number}" for number in range(ENGINES)], float("inf")
    for _ in range(ROUNDS):
        pulse = ray.remote(num_cpus=0)(Measured).remote()
        ray.get(pulse.expect.remote(names))
        started: float = ray.get(pulse.worked_s.remote())
        ray.get([pulse.hear.remote(names[beat % ENGINES]) for beat in range(BEATS)])
        best = min(best, (ray.get(pulse.worked_s.remote()) - started) / BEATS)
        ray.kill(pulse)
    return best
