"""Side-by-side timing on a noisy machine: the contenders take turns and each keeps its best round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

ROUNDS = 5


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: small tensors cost more to share between threads than to compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def best_seconds(contenders: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, float]:
    """The shortest of `rounds` runs of each contender, in seconds, after one run that does not count."""
    best = dict.fromkeys(contenders, float("inf"))
    for number in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if number:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def at_least(name: str, value: float, target: float, *, digits: int = 2, unit: str = "") -> str:
    """One line of a report: the larger the better."""
    return _line(name, value, f"at least {target:g}{unit}", met=value >= target, digits=digits, unit=unit)


def at_most(name: str, value: float, target: float, *, digits: int = 2, unit: str = "") -> str:
    """One line of a report: the smaller the better."""
    return _line(name, value, f"at most {target:g}{unit}", met=value <= target, digits=digits, unit=unit)


def _line(name: str, value: float, target: str, *, met: bool, digits: int, unit: str) -> str:
    return f"{name}: {value:.{digits}f}{unit} (target {target}) {'ok' if met else 'MISSED'}"
