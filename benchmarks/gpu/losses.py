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

from benchmarks.gpu.measure import ON_GPU, Floors, host_waits, judged, median_seconds, share
from benchmarks.measurement import Measurement, Row, at_most
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

PRODUCTS = "three products alone"
FURTHEST = (5e-3, 2e-2, 2e-2)
"""Distances from float64 of the loss, the gradient of hidden states and that of the head, relative."""

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

    @property
    def traffic(self) -> int:
        """Bytes of hidden states and head, which are read, and of their gradients, which are written."""
        return 4 * (self.hidden.numel() + self.head.numel())

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

    def plain_policy(self) -> Tensor:
        """A clipped loss of sampled tokens from a log-softmax over the whole table."""
        student = (self.hidden @ self.head.T).float().log_softmax(dim=1)
        ratio = (student.gather(1, self.labels[:, None])[:, 0] - self.terms.behaviour.float()).exp()
        advantages = self.terms.advantages.float()
        return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum()

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


def bench_losses(floors: Floors) -> Iterator[Row]:
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
            "plain policy loss": problem.plain_policy,
        }
        against = {"fused forward KL": "plain forward KL", "fused policy loss": "plain policy loss"}
        yield from _compared(problem, losses, floors=floors, against=against)
        if number == CHUNKED:
            yield from _chunk_sizes(problem, floors=floors)
            yield from _waits(problem)


def bench_liger(floors: Floors) -> Iterator[Row]:
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
        against = {
            "fused cross-entropy": "Liger cross-entropy, sums in float32",
            "fused forward KL": "Liger forward KL, teacher live",
        }
        yield from _compared(problem, losses, floors=floors, against=against)


def _compared(
    problem: Problem, losses: Mapping[str, Loss], *, floors: Floors, against: Mapping[str, str]
) -> Iterator[Row]:
    """Each loss beside the products alone, then ours over `against`, by our name: time, and memory at the peak."""
    (positions, hidden), vocab = problem.hidden.shape, len(problem.head)
    name = f"V={vocab:,}"
    yield f"{name}: loss and both gradients, H={hidden}, {positions:,} positions, K={problem.targets.k}, bfloat16"
    runs: dict[str, Callable[[], None]] = {each: problem.differentiated(loss) for each, loss in losses.items()}
    seconds = median_seconds({PRODUCTS: problem.products, **runs})
    floor = seconds[PRODUCTS]
    if floor is not None:
        note = f"{share(problem.flops / floor / floors.flops)} of the matrix peak"
        yield Measurement(f"{name}, {PRODUCTS}", 1e3 * floor, "ms", note=note)
    peaks: dict[str, int] = {}
    for each, run in runs.items():
        if (taken := seconds[each]) is None:
            yield f"{name}, {each}: out of memory"
            continue
        problem.hidden.grad = problem.head.grad = None
        peaks[each] = peak_bytes(run)
        note = (
            f"{share(problem.flops / taken / floors.flops)} of the matrix peak, what it has to read and write at "
            f"{share(problem.traffic / taken / floors.bandwidth)} of the memory's rate, {peaks[each] / 2**20:,.0f} MiB"
        )
        yield Measurement(f"{name}, {each}", 1e3 * taken, "ms", note=note)
    for ours, theirs in against.items():
        if ours in peaks and theirs in peaks:
            time_ratio, memory = (seconds[ours] or 0.0) / (seconds[theirs] or 1.0), peaks[ours] / peaks[theirs]
            yield judged(f"{name}, time: {ours} / {theirs}", time_ratio, 1.0)
            yield judged(f"{name}, memory: {ours} / {theirs}", memory, 0.5)


def _chunk_sizes(problem: Problem, *, floors: Floors) -> Iterator[Row]:
    default = chunk_budget(problem.hidden.device)
    sizes = {f"{mib} MiB": mib * 2**20 for mib in CHUNK_MIB} | {f"default, {default / 2**20:.0f} MiB": default}
    runs = {name: problem.differentiated(partial(problem.kl, chunk_bytes=size)) for name, size in sizes.items()}
    seconds = median_seconds(runs)
    for name, run in runs.items():
        what = f"V={len(problem.head):,}, fused forward KL, chunks of {name}"
        if (taken := seconds[name]) is None:
            yield f"{what}: out of memory"
            continue
        problem.hidden.grad = problem.head.grad = None
        peak = share(problem.flops / taken / floors.flops)
        yield Measurement(
            what, 1e3 * taken, "ms", note=f"{peak} of the matrix peak, {peak_bytes(run) / 2**20:,.0f} MiB"
        )


def _waits(problem: Problem) -> Iterator[Row]:
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
        yield "waits of the host in the loop over chunks: not counted without a GPU"
    else:
        note = f"{one} with one chunk, {many} with 16"
        yield at_most("waits of the host, a turn of the loop over chunks", (many - one) / 15, 0.0, note=note)


def _accuracy() -> Iterator[Row]:
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
        what = f"fused {name} in bfloat16, distance from float64"
        for value, of, bound in zip(
            apart, ("loss", "gradient of hidden states", "gradient of head"), FURTHEST, strict=True
        ):
            yield at_most(f"{what}, {of}", value, bound, digits=5)
