"""Whether the queue of a fill keeps up with 200 engines: one actor of Ray, asked what they ask it.

For each lease an engine also reports and says that it lives, as often as it does in the time that it takes for a lease
(`orchestration.fill.engine_loop`). How long that is, is an assumption about a fast engine of a small model on a large
GPU; slower ones ask less. What counts is the processor time of the queue's process, Ray's part in it included, because
whoever asks here shares the cores with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.timing import at_least
from orchestration.environment import prepare_environment

ENGINES = 200
TOKENS_PER_S = 5_000
"""Written by one engine."""

PROMPT, ANSWER = 512, 256
"""Tokens of a request, and of what is written to it."""

LEASES, ROUNDS = 400, 3


def bench_fill_queue() -> Iterator[str]:
    """Two lines, from a process of its own: Ray reads its environment once, when it is imported."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fill_queue"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    yield from done.stdout.splitlines()


def seconds_a_lease(engine_s: float) -> float:
    """What the queue takes for a lease and all that its engine asks beside it in the `engine_s` that it works on it."""
    import ray

    from cache import GenerateRequest
    from cache.answers import Request
    from orchestration.cluster.leases import LEASE, ItemQueue
    from orchestration.fill.engine_loop import BEAT_EVERY_S, REPORT_EVERY_S, FillProgress

    class Measured(ItemQueue[Request]):
        def worked_s(self) -> float:
            return time.process_time()

    requests = [GenerateRequest(tuple(range(at, at + PROMPT)), (2,), ANSWER) for at in range(LEASES * LEASE)]
    best = float("inf")
    for _ in range(ROUNDS):
        queue = ray.remote(num_cpus=0)(Measured).remote(list(enumerate(requests)), token_budget=None, engines=ENGINES)
        started: float = ray.get(queue.worked_s.remote())
        asked: list[Any] = []
        reports = beats = 0.0
        for lease in range(LEASES):
            asked.append(queue.lease.remote())
            reports, beats = reports + engine_s / REPORT_EVERY_S, beats + engine_s / BEAT_EVERY_S
            asked += [queue.report.remote(FillProgress(rows=LEASE)) for _ in range(int(reports))]
            asked += [queue.holds.remote(lease % ENGINES) for _ in range(int(beats))]
            reports, beats = reports % 1, beats % 1
        ray.get(asked)
        best = min(best, (ray.get(queue.worked_s.remote()) - started) / LEASES)
        ray.kill(queue)
    return best


def main() -> None:
    """Print what was measured."""
    prepare_environment(ray_address=None)
    from orchestration.cluster.leases import LEASE
    from orchestration.cluster.private import cluster

    engine_s = LEASE * ANSWER / TOKENS_PER_S
    with cluster(address=None, gpus=0):
        queue_s = seconds_a_lease(engine_s)
    print(
        f"queue of a fill: {1e3 * queue_s:.2f} ms of work a lease of {LEASE} prompts of {PROMPT} tokens, reports "
        f"included; an engine of {TOKENS_PER_S:,} tokens/s has one in {engine_s:.2f} s"
    )
    print(at_least(f"queue's rate / that of {ENGINES} such engines", engine_s / (ENGINES * queue_s), 1.0, digits=1))


if __name__ == "__main__":
    main()
