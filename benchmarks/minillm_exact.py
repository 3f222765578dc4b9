"""What MiniLLM is for, in a world where every response can be written down.

121 responses of at most four tokens; the teacher says what it likes after each prefix, the student sees the last token
alone and so cannot follow it. Learned with exact expectations, SeqKD and word-level KD are one thing, the forward KL
of whole responses, and MiniLLM is the reverse one. Then with responses that are drawn, as many for each, in six worlds.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.measurement import Measurement, at_most
from benchmarks.timing import one_thread
from configs.rollouts import PolicyConfig
from student_train.losses.divergences import divergence
from student_train.losses.minillm import SampledResponses, minillm_loss

VOCAB, LENGTH, END, ALPHA = 4, 4, 0, 0.2
STEPS, RATE = 200, 0.05
DRAWN_STEPS, SEEDS = 100, 6
PER_STEP = (16, 128)
T_95 = 2.571
"""Student's t for six worlds."""


@dataclass(frozen=True, slots=True)
class World:
    """All R responses with their masks, and the teacher's logits at each of their tokens."""

    ids: Tensor
    mask: Tensor
    teacher: Tensor

    @classmethod
    def of(cls, seed: int) -> World:
        going_on = [token for token in range(VOCAB) if token != END]
        prefixes = [prefix for length in range(LENGTH) for prefix in itertools.product(going_on, repeat=length)]
        rows = [*((*prefix, END) for prefix in prefixes), *itertools.product(going_on, repeat=LENGTH)]
        likes = 2.0 * torch.randn(len(prefixes), VOCAB, generator=torch.Generator().manual_seed(seed)).double()
        places = [[prefixes.index(row[:at]) if at < len(row) else 0 for at in range(LENGTH)] for row in rows]
        ids = torch.tensor([[*row, *[END] * (LENGTH - len(row))] for row in rows])
        mask = torch.tensor([[at < len(row) for at in range(LENGTH)] for row in rows])
        return cls(ids, mask, likes[torch.tensor(places)])

    def logits(self, student: Tensor) -> Tensor:
        """Of a student with one row for each last token (that of END: none yet)."""
        before = torch.cat([torch.full_like(self.ids[:, :1], END), self.ids[:, :-1]], dim=1)
        return student[before]

    def logprobs(self, logits: Tensor) -> Tensor:
        """Of each token; 0 behind the end."""
        return logits.log_softmax(2).gather(2, self.ids[:, :, None])[:, :, 0].masked_fill(~self.mask, 0.0)

    def divergences(self, student: Tensor) -> tuple[float, float]:
        """KL(q ‖ p) and KL(p ‖ q) of whole responses, in nats."""
        q, p = (self.logprobs(logits).sum(dim=1) for logits in (self.logits(student.detach()), self.teacher))
        return float((q.exp() * (q - p)).sum()), float((p.exp() * (p - q)).sum())

    def drawn(self, rows: Tensor) -> World:
        """Some of the responses, also several times."""
        return World(self.ids[rows], self.mask[rows], self.teacher[rows])


Losses = Callable[[World, Tensor], Tensor]


def seqkd(world: World, logits: Tensor) -> Tensor:
    """- log q of each response."""
    return -world.logprobs(logits).sum(dim=1)


def word_kd(world: World, logits: Tensor) -> Tensor:
    """Forward KL at each token, summed over each response."""
    rows = divergence("forward_kl", logits.flatten(0, 1), world.teacher.flatten(0, 1), mask=world.mask.flatten())
    return rows.view(world.mask.shape).sum(dim=1)


def minillm(policy: PolicyConfig, *, alpha: float) -> Losses:
    """MiniLLM's loss of each response, written by the student as it is."""

    def losses(world: World, logits: Tensor) -> Tensor:
        sampled = SampledResponses(
            ids=world.ids,
            mask=world.mask,
            old_logprobs=world.logprobs(logits.detach()),
            teacher_logprobs=world.logprobs(world.teacher),
            alpha=alpha,
        )
        return minillm_loss(logits, sampled, world.teacher, policy=policy).rows.sum(dim=1)

    return losses


EXACT = PolicyConfig(importance="none", length_normalised=False)
UNBIASED = PolicyConfig(importance="per_decision", length_normalised=False)
"""Its expected gradient is that of the reverse KL also where the teacher writes some of the tokens."""


def bench_minillm_exact() -> Iterator[Measurement]:
    """One line a method with exact updates, then one a method and number of drawn responses."""
    with one_thread():
        yield from _exact()
        yield from _drawn()


def _exact() -> Iterator[Measurement]:
    world = World.of(0)
    found = {}
    for name, losses, share in (
        ("SeqKD", seqkd, 0.0),
        ("word-level KD", word_kd, 0.0),
        ("MiniLLM", minillm(EXACT, alpha=0.0), 1.0),
    ):
        found[name] = world.divergences(_learn(world, losses, student_share=share, steps=STEPS))
        reverse, forward = found[name]
        for kind, value in (("reverse", reverse), ("forward", forward)):
            yield Measurement(f"exact updates, {name}, {kind} KL", value, "nats a response", digits=3)
    gap = abs(found["SeqKD"][1] - found["word-level KD"][1])
    yield at_most("exact updates, forward KL: SeqKD and word-level KD differ by", gap, 1e-6, digits=8)
    for better, worse, at in (("MiniLLM", "SeqKD", 0), ("SeqKD", "MiniLLM", 1)):
        kind = ("reverse", "forward")[at]
        yield at_most(f"exact updates, {kind} KL: {better} / {worse}", found[better][at] / found[worse][at], 1.0)


def _drawn() -> Iterator[Measurement]:
    methods: tuple[tuple[str, Losses, float], ...] = (
        ("SeqKD", seqkd, 0.0),
        ("word-level KD", word_kd, 0.0),
        ("MiniLLM as published", minillm(PolicyConfig(), alpha=ALPHA), 1.0 - ALPHA),
        ("MiniLLM, exact weights", minillm(UNBIASED, alpha=ALPHA), 1.0 - ALPHA),
    )
    for count in PER_STEP:
        first: list[float] = []
        for name, losses, share in methods:
            reverse, forward = zip(
                *(_after_draws(seed, losses, student_share=share, count=count) for seed in range(SEEDS)), strict=True
            )
            first = first or list(reverse)
            # Worlds differ far more than methods do: each is compared within its own.
            ratios = [ours / theirs for ours, theirs in zip(reverse, first, strict=True)]
            width = T_95 * statistics.stdev(ratios) / SEEDS**0.5
            note = f"{statistics.mean(ratios):.2f} ± {width:.2f} of SeqKD's; forward KL {statistics.mean(forward):.3f}"
            what = f"{DRAWN_STEPS} steps of {count} responses, {name}, reverse KL"
            yield Measurement(what, statistics.mean(reverse), "nats a response", digits=3, note=note)


def _after_draws(seed: int, losses: Losses, *, student_share: float, count: int) -> tuple[float, float]:
    world = World.of(seed)
    return world.divergences(
        _learn(world, losses, student_share=student_share, steps=DRAWN_STEPS, count=count, seed=seed)
    )


def _learn(
    world: World, losses: Losses, *, student_share: float, steps: int, count: int | None = None, seed: int = 0
) -> Tensor:
    """The student after `steps`; of its tokens it writes `student_share` itself, in `count` draws or in expectation."""
    student = torch.zeros(VOCAB, VOCAB, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([student], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        mixed = world.teacher.softmax(2) * (1 - student_share)
        mixed = mixed + student_share * world.logits(student.detach()).softmax(2)
        shares = world.logprobs(mixed.log()).sum(dim=1).exp()
        optimiser.zero_grad()
        if count is None:
            loss = (shares * losses(world, world.logits(student))).sum()
        else:
            some = world.drawn(torch.multinomial(shares, count, replacement=True, generator=draw))
            loss = losses(some, some.logits(student)).mean()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return student
