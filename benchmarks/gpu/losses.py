"""The fused losses at several vocabularies: time, memory and share of the matrix peak, beside what others do.

The floor of every contender is three products of the size positions x hidden x vocabulary: logits, and the gradients of
hidden states and head. `plain` makes the whole table of logits and a log-softmax of it. Liger's losses work in chunks
like ours. Its KL takes no sparse teacher: it is given the teacher's hidden states and head (as wide as the student's),
and so makes a fourth product.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.measure import ON_GPU, Floors, host_waits, median_seconds, ratio, shown
from benchmarks.memory import peak_bytes
from benchmarks.pair import beliefs, device
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms
from student_train.losses.fused import fused_cross_entropy, fused_divergence, fused_policy
from student_train.losses.head import Head, chunk_budget
from student_train.losses.targets import SparseTargets

Loss = Callable[[], Tensor]
SIZES = (
    ((32_000, 2048, 8192), (128_256, 2048, 8192), (151_936, 1536, 8192), (262_144, 1152, 8192))
    if ON_GPU
    else ((2_000, 64, 256), (8_000, 64, 256))
)
"""Vocabulary, hidden size and positions: the heads of Llama 2 (cut), Llama 3.2 1B, Qwen2.5 1.5B and Gemma 3 1B."""

CHUNKED = 2 if ON_GPU else 1
"""Of the sizes the one at which the size of the chunks varies."""

CHUNK_MIB = (64, 256, 1024, 4096) if ON_GPU else (1, 4)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Hidden states [N, H] and a head [V, H] in bfloat16, and what is learned at the positions."""

    hidden: Tensor
    head: Tensor
    labels: Tensor
    targets: SparseTargets
    terms: PolicyTerms

    @classmethod
    def random(cls, vocab: int, hidden: int, positions: int) -> Problem:
        """One whose logits have a standard deviation of two."""
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(positions, hidden, device=device()).bfloat16().requires_grad_()
        head = (2 * hidden**-0.5 * torch.randn(vocab, hidden, device=device())).bfloat16().requires_grad_()
        labels = torch.randint(vocab, (positions,), generator=generator)
        advantages, behaviour = torch.randn(2, positions, generator=generator).double()
        terms = PolicyTerms(advantages, behaviour - 10.0, torch.ones(positions).double())
        targets = beliefs(positions, vocab=vocab, generator=generator)
        return cls(states, head, labels.to(device()), targets.to(device()), terms.to(device()))

    @property
    def flops(self) -> int:
        """Of the three products that no loss goes without."""
        return 6 * self.hidden.numel() * len(self.head)

    def kl(self, kind: str = "forward_kl", *, chunk_bytes: int | None = None) -> Tensor:
        """Our divergence from the sparse teacher."""
        return fused_divergence(kind, self.hidden, Head(self.head, chunk_bytes=chunk_bytes), self.targets).loss

    def policy(self) -> Tensor:
        """Our loss of sampled tokens."""
        return fused_policy(
            self.hidden, self.head, self.targets, labels=self.labels, terms=self.terms, policy=PolicyConfig()
        ).loss

    def cross_entropy(self) -> Tensor:
        """Our loss of text."""
        return fused_cross_entropy(self.hidden, self.head, labels=self.labels).loss

    def plain(self) -> Tensor:
        """The same forward KL from a log-softmax over the whole table."""
        student = (self.hidden @ self.head.T).float().log_softmax(dim=1)
        kept, logprobs, tail = student.gather(1, self.targets.ids), self.targets.logprobs, self.targets.tail_logmass
        assert logprobs is not None and tail is not None
        rest = torch.log1p(-kept.exp().sum(dim=1).clamp_max(1 - 1e-6))
        return (logprobs.exp() * (logprobs - kept)).sum() + (tail.exp() * (tail - rest)).sum()

    def products(self) -> None:
        """The three products alone, in one piece."""
        with torch.no_grad():
            logits = self.hidden @ self.head.T
            torch.mm(logits, self.head)
            torch.mm(logits.T, self.hidden)

    def differentiated(self, loss: Loss) -> Callable[[], None]:
        """Loss and both gradients."""

        def run() -> None:
            self.hidden.grad = self.head.grad = None
            loss().backward()

        return run


def bench_losses(floors: Floors) -> Iterator[str]:
    """The distance from float64, then each vocabulary, the size of chunks and the host's waits."""
    yield from _accuracy()
    for number, size in enumerate(SIZES):
        problem = Problem.random(*size)
        losses: dict[str, Loss] = {
            "fused forward KL": problem.kl,
            "fused reverse KL": partial(problem.kl, "reverse_kl"),
            "fused policy loss": problem.policy,
            "fused cross-entropy": problem.cross_entropy,
            "plain forward KL": problem.plain,
        }
        yield from _compared(problem, losses, floors=floors)
        if number == CHUNKED:
            yield from _chunk_sizes(problem, floors=floors)
            yield from _waits(problem)


def bench_liger(floors: Floors) -> Iterator[str]:
    """Liger's chunked losses beside ours, where they are installed."""
    if importlib.util.find_spec("liger_kernel") is None or not ON_GPU:
        yield "Liger: left out, it needs a GPU and the package liger-kernel"
        return
    # Imported late: the rest does without.
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD

    for size in SIZES[1:3]:
        problem = Problem.random(*size)
        # The default adds up the chunks' gradients of the head in bfloat16, ours in float32.
        rough, exact = (
            LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=dtype) for dtype in (None, torch.float32)
        )
        text = (problem.head, problem.hidden, problem.labels)
        teacher = (torch.randn_like(problem.hidden), problem.head.detach().roll(1, dims=0), problem.labels)
        losses: dict[str, Loss] = {
            "fused forward KL": problem.kl,
            "fused cross-entropy": problem.cross_entropy,
            "Liger cross-entropy": partial(rough, *text),
            "Liger cross-entropy, sums in float32": partial(exact, *text),
            "Liger forward KL, teacher live": partial(
                LigerFusedLinearJSD(jsd_beta=0.0), problem.hidden, problem.head, *teacher
            ),
        }
        yield from _compared(problem, losses, floors=floors)


def _compared(problem: Problem, losses: Mapping[str, Loss], *, floors: Floors) -> Iterator[str]:
    (positions, hidden), vocab = problem.hidden.shape, len(problem.head)
    yield f"loss and both gradients, V={vocab}, H={hidden}, {positions} positions, K={problem.targets.k}, bfloat16:"
    runs: dict[str, Callable[[], None]] = {name: problem.differentiated(loss) for name, loss in losses.items()}
    seconds = median_seconds({"three products alone": problem.products, **runs})
    yield f"  three products alone: {shown(seconds['three products alone'], flops=problem.flops, floors=floors)}"
    first: tuple[float | None, int] | None = None
    for name, run in runs.items():
        if (taken := seconds[name]) is None:
            yield f"  {name}: out of memory"
            continue
        problem.hidden.grad = problem.head.grad = None
        peak = peak_bytes(run)
        first = first or (taken, peak)
        yield (
            f"  {name}: {shown(taken, flops=problem.flops, floors=floors)}, {peak / 2**20:.0f} MiB at the peak; "
            f"time and memory {ratio(taken, first[0])} and {peak / first[1]:.2f} of the first"
        )


def _chunk_sizes(problem: Problem, *, floors: Floors) -> Iterator[str]:
    default = chunk_budget(problem.hidden.device)
    sizes = {f"{mib} MiB": mib * 2**20 for mib in CHUNK_MIB} | {f"default, {default / 2**20:.0f} MiB": default}
    runs = {name: problem.differentiated(partial(problem.kl, chunk_bytes=size)) for name, size in sizes.items()}
    seconds = median_seconds(runs)
    for name, run in runs.items():
        problem.hidden.grad = problem.head.grad = None
        memory = "" if seconds[name] is None else f", {peak_bytes(run) / 2**20:.0f} MiB at the peak"
        yield f"  forward KL, chunks of {name}: {shown(seconds[name], flops=problem.flops, floors=floors)}{memory}"


def _waits(problem: Problem) -> Iterator[str]:
    """One wait for the look at all ids, whatever the number of chunks; so none in the loop."""
    row = 4 * len(problem.head)
    counts = []
    for chunks in (1, 16):
        size = row * -(-len(problem.hidden) // chunks)
        run = problem.differentiated(partial(problem.kl, chunk_bytes=size))
        # What is allocated or built at the first time does not count.
        run()
        counts.append(host_waits(run))
    one, many = counts
    if one is None or many is None:
        yield "  waits of the host in the loop over chunks: not counted without a GPU"
    else:
        yield f"  waits of the host: {one} with one chunk, {many} with 16, so {(many - one) / 15:g} a turn of the loop"


def _accuracy() -> Iterator[str]:
    """Loss and gradients in bfloat16 against float64 on the same numbers, in several chunks."""
    base = Problem.random(SIZES[0][0], 128, 256)
    size = 4 * len(base.head) * 50
    forms: dict[str, Callable[[Problem], Tensor]] = {
        "forward KL": lambda problem: problem.kl(chunk_bytes=size),
        "reverse KL": lambda problem: problem.kl("reverse_kl", chunk_bytes=size),
        "policy loss": Problem.policy,
        "cross-entropy": Problem.cross_entropy,
    }
    for name, form in forms.items():
        found = []
        for dtype in (torch.float64, torch.bfloat16):
            hidden, head = (leaf.detach().to(dtype).requires_grad_() for leaf in (base.hidden, base.head))
            loss = form(replace(base, hidden=hidden, head=head))
            found.append((loss.detach(), *torch.autograd.grad(loss, (hidden, head))))
        apart = [float((rough.double() - exact).norm() / exact.norm()) for exact, rough in zip(*found, strict=True)]
        yield (
            f"distance of the fused {name} in bfloat16 from float64: loss {apart[0]:.1e}, gradient of hidden states "
            f"{apart[1]:.1e}, of head {apart[2]:.1e}"
        )
