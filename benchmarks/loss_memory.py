"""The most memory that head and loss hold at once, against a plain log-softmax, at a vocabulary of 151,936."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.measurement import Measurement, at_most
from benchmarks.memory import peak_bytes
from benchmarks.pair import device
from student_train.losses.fused import fused_divergence
from student_train.losses.targets import SparseTargets

POSITIONS, HIDDEN, VOCAB, K = 2048, 256, 151_936, 64


def bench_loss_memory() -> Iterator[Measurement]:
    """Both peaks, gradients of hidden states and head included, and their ratio."""
    hidden = torch.randn(POSITIONS, HIDDEN, dtype=torch.bfloat16, device=device(), requires_grad=True)
    head = torch.randn(VOCAB, HIDDEN, dtype=torch.bfloat16, device=device(), requires_grad=True)
    ids = torch.randint(VOCAB // K, (POSITIONS, K)) * K + torch.arange(K)
    logprobs = torch.full((POSITIONS, K), 0.9 / K).log()
    targets = SparseTargets(ids, logprobs, torch.full((POSITIONS,), 0.1).log()).to(device())
    assert targets.logprobs is not None
    ids, logprobs = targets.ids, targets.logprobs

    def plain() -> torch.Tensor:
        student = (hidden @ head.T).float().log_softmax(dim=1)
        return (logprobs.exp() * (logprobs - student.gather(1, ids))).sum()

    def fused() -> torch.Tensor:
        return fused_divergence("forward_kl", hidden, head, targets).loss

    peaks = {}
    for name, loss in (("plain", plain), ("fused", fused)):
        hidden.grad = head.grad = None
        peaks[name] = peak_bytes(partial(_differentiate, loss))
    name = f"peak memory of loss and head, {POSITIONS:,} positions, V = {VOCAB:,}"
    peers = {"plain log-softmax": peaks["plain"] / 2**20}
    yield Measurement(name, peaks["fused"] / 2**20, "MiB", digits=0, peers=peers)
    yield at_most("peak memory / plain log-softmax", peaks["fused"] / peaks["plain"], 0.33)


def _differentiate(loss: Callable[[], torch.Tensor]) -> None:
    loss().backward()
