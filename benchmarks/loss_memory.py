"""The most memory that head and loss hold at once, against a plain log-softmax, at a vocabulary of 151,936."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

import torch

from benchmarks.timing import at_most
from student_train.losses.fused import fused_divergence
from student_train.losses.targets import SparseTargets

POSITIONS, HIDDEN, VOCAB, K = 2048, 256, 151_936, 64


def bench_loss_memory() -> Iterator[str]:
    """Both peaks, gradients of hidden states and head included, and their ratio."""
    hidden = torch.randn(POSITIONS, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(VOCAB, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    ids = torch.randint(VOCAB // K, (POSITIONS, K)) * K + torch.arange(K)
    logprobs = torch.full((POSITIONS, K), 0.9 / K).log()
    targets = SparseTargets(ids, logprobs, torch.full((POSITIONS,), 0.1).log())

    def plain() -> torch.Tensor:
        student = (hidden @ head.T).float().log_softmax(dim=1)
        return (logprobs.exp() * (logprobs - student.gather(1, ids))).sum()

    peaks = {}
    for name, loss in (("plain", plain), ("fused", lambda: fused_divergence("forward_kl", hidden, head, targets).loss)):
        hidden.grad = head.grad = None
        peaks[name] = _peak_bytes(loss)
    yield at_most(
        f"peak memory of loss and head / plain log-softmax ({peaks['fused'] / 2**20:.0f} / "
        f"{peaks['plain'] / 2**20:.0f} MiB, {POSITIONS} positions, V = {VOCAB})",
        peaks["fused"] / peaks["plain"],
        0.33,
    )


def _peak_bytes(loss: Callable[[], torch.Tensor]) -> int:
    """The most bytes that tensors held at once, beyond those of before, as torch's allocator reports them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss().backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
