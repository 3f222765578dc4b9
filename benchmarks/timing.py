"""Side-by-side timing on a noisy machine: the contenders take turns and each keeps its best round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

ROUNDS = 5


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: small tensors cost more to share between threads than to compute."""
    # Imported late: an engine's environment has to stand before torch is imported.
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def best_seconds(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The shortest of `rounds` runs of each contender, in seconds of the clock, after one run that does not count.

    `time.process_time` says more than time itself of what waits for nobody, beside other programs.
    """
    best = dict.fromkeys(contenders, float("inf"))
    for number in range(rounds + 1):
        for name, run in contenders.items():
            started = clock()
            run()
            if number:
                best[name] = min(best[name], clock() - started)
    return best
