"""The fused losses against the reference form, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms, policy_terms
from student_train.losses.divergences import Tail, divergence, fold
from student_train.losses.fused import (
    LossSums,
    fused_cross_entropy,
    fused_divergence,
    fused_logprobs,
    fused_loss,
    fused_policy,
)
from student_train.losses.head import Head
from student_train.losses.kinds import KINDS, forward_kl, reverse_kl
from student_train.losses.metrics import METRICS, SCORED_METRICS, TEXT_METRICS, cross_entropy
from student_train.losses.minillm import SampledResponses, minillm_loss
from student_train.losses.positions import Positions
from student_train.losses.targets import LIVE_TABLES, LiveTargets, SparseTargets

VOCAB, PADDED, HIDDEN, ROWS = 50, 64, 16, 23
SMALL_CHUNKS = 4 * VOCAB * 5
"""Five positions a chunk: 23 rows make four whole chunks and a rest."""

CASES: list[tuple[str, dict[str, Any]]] = [(kind, {"mu": 0.02} if kind == "adaptive_kl" else {}) for kind in KINDS]
"""One token of 50 always has the mass that this `mu` asks for."""


def problem(*, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, SparseTargets]:
    generator = torch.Generator().manual_seed(k)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(PADDED, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(VOCAB, (ROWS,), generator=generator)
    logprobs = (2 * torch.randn(ROWS, VOCAB, generator=generator)).log_softmax(1)
    top, ids = logprobs.topk(k, dim=1)
    tail = logprobs.scatter(1, ids, float("-inf")).logsumexp(1) if k < VOCAB else torch.full((ROWS,), float("-inf"))
    return hidden, head, labels, SparseTargets(ids, top, tail)


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


def reference_logits(hidden: Tensor, head: Tensor, *, softcap: float | None) -> Tensor:
    logits = hidden.float() @ head.float()[:VOCAB].T
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@pytest.mark.parametrize(("kind", "parameters"), CASES)
@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
@pytest.mark.parametrize(
    ("k", "ce_weight", "softcap"), [(1, 0.3, None), (7, 0.0, 5.0), (7, 0.3, None), (VOCAB, 0.0, None)]
)
def test_equals_the_reference(
    kind: str, parameters: dict[str, Any], tail: Tail, k: int, ce_weight: float, softcap: float | None
) -> None:
    hidden, head, labels, targets = problem(k=k)
    fused = fused_divergence(
        kind,
        hidden,
        Head(head, VOCAB, softcap, SMALL_CHUNKS),
        targets,
        labels=labels,
        tail=tail,
        ce_weight=ce_weight,
        **parameters,
    )
    logits = reference_logits(hidden, head, softcap=softcap)
    apart = divergence(kind, logits, targets, tail=tail, **parameters).sum()
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    expected = apart + ce_weight * ce
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert named(fused)["divergence"] == pytest.approx(float(apart.detach()), rel=1e-5, abs=1e-5)


def named(sums: LossSums) -> dict[str, float]:
    assert sums.metrics.dtype == torch.float64
    return dict(zip(METRICS, sums.metrics.tolist(), strict=True))


def expected_metrics(logits: Tensor, labels: Tensor, targets: SparseTargets) -> dict[str, float]:
    assert targets.logprobs is not None
    logits = logits.detach()
    q = logits.softmax(1)
    return {
        "ce": float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum")),
        "accuracy": float((logits.argmax(1) == labels).sum()),
        "agreement": float((logits.argmax(1) == targets.ids[:, 0]).sum()),
        "forward_kl": float(divergence("forward_kl", logits, targets).sum()),
        "reverse_kl": float(divergence("reverse_kl", logits, targets).sum()),
        "teacher_mass": float(targets.logprobs.exp().sum()),
        "student_tail": float((1 - q.gather(1, targets.ids).sum(1)).sum()),
    }


def teacher_at_hand(*, softcap: float | None, dtype: torch.dtype = torch.float32) -> tuple[LiveTargets, Tensor]:
    """A teacher of another width, whose matrix has more rows than there are tokens; and its logits."""
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(ROWS, 9, generator=generator).to(dtype)
    matrix = torch.randn(PADDED + 3, 9, generator=generator).to(dtype)
    matrix[VOCAB:] = float("inf")
    logits = hidden @ matrix[:VOCAB].T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return LiveTargets(hidden, Head(matrix, VOCAB, softcap)), logits


@pytest.mark.parametrize(("kind", "parameters"), CASES)
@pytest.mark.parametrize(("temperature", "ce_weight", "softcap"), [(1.0, 0.3, None), (2.0, 0.0, 5.0)])
def test_a_teacher_at_hand_equals_whole_distributions_from_the_cache(
    kind: str, parameters: dict[str, Any], temperature: float, ce_weight: float, softcap: float | None
) -> None:
    hidden, head, labels, _ = problem(k=3, dtype=torch.float64)
    live, logits = teacher_at_hand(softcap=softcap, dtype=torch.float64)
    settings: dict[str, Any] = {"labels": labels, "temperature": temperature, "ce_weight": ce_weight, **parameters}
    settings["mask"] = mask = torch.arange(ROWS) % 5 != 3
    live.hidden[~mask] = float("inf")
    chunked = Head(head, VOCAB, chunk_bytes=LIVE_TABLES * SMALL_CHUNKS)
    found = fused_divergence(kind, hidden, chunked, live, **settings)
    # As the cache has them: the likeliest token first.
    top, ids = logits.log_softmax(1).sort(dim=1, descending=True)
    kept = SparseTargets(ids, top, torch.full((ROWS,), float("-inf")))
    cached = fused_divergence(kind, hidden, chunked, kept, **settings)
    torch.testing.assert_close(found.loss, cached.loss, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.metrics, cached.metrics, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(found.loss, hidden, head), gradients(cached.loss, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_distributions_of_a_teacher_at_hand_exist_for_a_chunk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, _, _ = problem(k=3)
    live, _ = teacher_at_hand(softcap=None)
    made: list[int] = []
    plain = Head.raw_logits

    def watched(self: Head, states: Tensor) -> Tensor:
        made.append(len(states))
        return plain(self, states)

    monkeypatch.setattr(Head, "raw_logits", watched)
    fused_divergence("forward_kl", hidden, Head(head, VOCAB, chunk_bytes=LIVE_TABLES * SMALL_CHUNKS), live)
    # Five positions a chunk, of the teacher and of the student.
    assert sorted(made) == [3, 3] + 8 * [5]


@pytest.mark.parametrize(("kind", "parameters"), CASES)
def test_a_teacher_at_hand_that_is_the_student_teaches_nothing(kind: str, parameters: dict[str, Any]) -> None:
    states, matrix = (part.detach().double().requires_grad_() for part in problem(k=3)[:2])
    live = LiveTargets(states.detach(), Head(matrix.detach(), VOCAB))
    sums = fused_divergence(kind, states, Head(matrix, VOCAB, chunk_bytes=SMALL_CHUNKS), live, **parameters)
    assert abs(float(sums.loss.detach())) < 1e-9
    assert all(float(part.abs().max()) < 1e-9 for part in gradients(sums.loss, states, matrix))


def test_a_teacher_at_hand_with_other_tokens_is_refused() -> None:
    hidden, head, _, _ = problem(k=3)
    live, _ = teacher_at_hand(softcap=None)
    with pytest.raises(ModelError, match="the teacher's head is over 50 tokens and the student's over 64"):
        fused_divergence("forward_kl", hidden, Head(head), live)


@pytest.mark.parametrize("k", [1, 7, VOCAB])
@pytest.mark.parametrize("trained", ["divergence", "text"])
def test_metrics_are_those_of_the_plain_logits(k: int, trained: str) -> None:
    hidden, head, labels, targets = problem(k=k)
    labels[::2] = reference_logits(hidden, head, softcap=None).argmax(1)[::2]
    chunked = Head(head, VOCAB, chunk_bytes=SMALL_CHUNKS)
    if trained == "text":
        sums = fused_cross_entropy(hidden, chunked, labels=labels, targets=targets)
    else:
        sums = fused_divergence("tvd", hidden, chunked, targets, labels=labels, tail="renormalize")
    expected = expected_metrics(reference_logits(hidden, head, softcap=None), labels, targets)
    found = named(sums)
    assert found["loss"] == pytest.approx(float(sums.loss.detach()), rel=1e-6)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (found["divergence"] == 0.0) == (trained == "text" or k == 1)
    assert {name for name, value in found.items() if value} <= set(SCORED_METRICS)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("measured", [True, False])
def test_cross_entropy_equals_torch(softcap: float | None, measured: bool) -> None:
    hidden, head, labels, targets = problem(k=3)
    fused = fused_cross_entropy(
        hidden,
        Head(head, VOCAB, softcap, SMALL_CHUNKS),
        labels=labels,
        targets=targets if measured else None,
    )
    logits = reference_logits(hidden, head, softcap=softcap)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    found = named(fused)
    assert found["accuracy"] == float((logits.argmax(1) == labels).sum())
    assert found["loss"] == found["ce"]
    if not measured:
        assert {name for name, value in found.items() if value} <= set(TEXT_METRICS)


def test_the_short_call_needs_neither_labels_nor_vocabulary() -> None:
    hidden, head, _, targets = problem(k=6)
    fused = fused_divergence("jsd", hidden, head, targets, beta=0.3)
    expected = divergence("jsd", hidden @ head.T, targets, beta=0.3).sum()
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    assert named(fused)["ce"] == named(fused)["accuracy"] == 0.0
    with pytest.raises(ConfigError, match=r"ce_weight=0\.5 needs labels"):
        fused_divergence("jsd", hidden, head, targets, ce_weight=0.5)


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_temperature_and_weight(tail: Tail) -> None:
    hidden, head, labels, targets = problem(k=VOCAB if tail == "bucket" else 6)
    settings: dict[str, Any] = {"labels": labels, "tail": tail, "temperature": 2.0}
    fused = fused_divergence("reverse_kl", hidden, Head(head, VOCAB), targets, weight=4.0, ce_weight=0.5, **settings)
    logits = reference_logits(hidden, head, softcap=None)
    apart = divergence("reverse_kl", logits, targets, tail=tail, temperature=2.0).sum()
    expected = 4 * apart + 0.5 * torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert named(fused)["divergence"] == pytest.approx(float(apart.detach()), rel=1e-5)
    # Metrics of the student are about the distributions as they are.
    plain = float(divergence("forward_kl", logits.detach(), targets).sum())
    assert named(fused)["forward_kl"] == pytest.approx(plain, rel=1e-5)


def test_dense_targets_equal_the_reference() -> None:
    hidden, head, _, _ = problem(k=6)
    teacher = torch.randn(ROWS, PADDED, generator=torch.Generator().manual_seed(1))
    fused = fused_divergence("skew_kl", hidden, Head(head, chunk_bytes=SMALL_CHUNKS), teacher, temperature=1.5)
    expected = divergence("skew_kl", hidden @ head.T, teacher, temperature=1.5).sum()
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)


POLICIES = [
    PolicyConfig(clip=0.4),
    PolicyConfig(importance="per_decision", single_step=0.5),
    PolicyConfig(importance="none", advantage="token", single_step=0.0),
    PolicyConfig(mode="lmops"),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("k", "softcap"), [(1, None), (7, 5.0), (VOCAB, None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_policy_loss_equals_the_reference(
    policy: PolicyConfig, k: int, softcap: float | None, dtype: torch.dtype
) -> None:
    hidden, head, labels, targets = problem(k=k, dtype=dtype)
    assert targets.logprobs is not None and targets.tail_logmass is not None
    targets = SparseTargets(targets.ids, targets.logprobs.to(dtype), targets.tail_logmass.to(dtype))
    logits = hidden @ head[:VOCAB].T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    given = logits.detach().log_softmax(1).gather(1, labels[:, None]).double().T
    generator = torch.Generator().manual_seed(k)
    # The sampling student and the teacher, each some way off the student that learns.
    old, teacher = ((given + 0.5 * torch.randn(1, ROWS, generator=generator)).clamp_max(0.0) for _ in range(2))
    mask = torch.arange(ROWS)[None] % 5 != 0
    sampled = SampledResponses(labels[None], mask, old, teacher, alpha=0.2)
    expected = minillm_loss(logits[None], sampled, targets, policy=policy)
    terms = whole_row(policy_terms(teacher, old, mask, alpha=0.2, policy=policy).rows()[0], mask[0])
    whole_head = Head(head, VOCAB, softcap, SMALL_CHUNKS)
    fused = fused_policy(hidden, whole_head, targets, labels=labels, terms=terms, policy=policy, mask=mask[0])
    count = int(mask.sum())
    close: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(fused.loss, count * expected.total, **close)
    whole = gradients(count * expected.total, hidden, head)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), whole, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    found = named(fused)
    assert found["policy"] == pytest.approx(count * expected.policy.item(), rel=1e-5, abs=1e-5)
    assert found["clipped"] == pytest.approx(count * expected.clipped)
    assert found["divergence"] == pytest.approx(found["reverse_kl"])
    # In parts, as micro-batches have them.
    parts = [
        fused_policy(
            hidden[some],
            whole_head,
            targets[some],
            labels=labels[some],
            terms=terms[some],
            policy=policy,
            mask=mask[0, some],
        )
        for some in (slice(0, 9), slice(9, ROWS))
    ]
    torch.testing.assert_close(parts[0].loss + parts[1].loss, fused.loss, **close)
    in_parts = gradients(parts[0].loss + parts[1].loss, hidden, head)
    for ours, theirs in zip(in_parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, **close)


def whole_row(terms: PolicyTerms, mask: Tensor) -> PolicyTerms:
    """Terms of the valid tokens laid out over all, with NaN between them."""
    spread = [
        torch.full(mask.shape, float("nan"), dtype=torch.float64).masked_scatter(mask, part)
        for part in (terms.advantages, terms.behaviour, terms.single_weights)
    ]
    return PolicyTerms(*spread)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_of_labels(softcap: float | None, dtype: torch.dtype) -> None:
    hidden, head, labels, _ = problem(k=1, dtype=dtype)
    found = fused_logprobs(hidden, Head(head, VOCAB, softcap, SMALL_CHUNKS), labels=labels)
    expected = reference_logits(hidden, head, softcap=softcap).log_softmax(1).gather(1, labels[:, None])[:, 0]
    assert not found.requires_grad
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=tolerance)
    assert fused_logprobs(hidden[:0], head, labels=labels[:0]).shape == (0,)
    with pytest.raises(ModelError, match="token id 55 lies outside the student's vocabulary of 50"):
        fused_logprobs(hidden, Head(head, VOCAB), labels=torch.full_like(labels, 55))


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_masked_positions_do_not_exist(loss: str) -> None:
    hidden, head, labels, targets = problem(k=6)
    assert targets.logprobs is not None
    mask = torch.arange(ROWS) % 3 != 0
    spoilt = hidden.detach().clone()
    spoilt[::6], spoilt[3::6] = float("nan"), float("inf")
    targets.logprobs[::3], targets.ids[::3], labels[::3] = float("nan"), 10**6, -5
    spoilt.requires_grad_()

    def sums(states: Tensor, rows: Tensor, mask: Tensor | None = None) -> LossSums:
        known: dict[str, Any] = {"labels": labels[rows], "mask": mask}
        if loss == "ce":
            return fused_cross_entropy(states, Head(head, VOCAB), targets=targets[rows], **known)
        return fused_divergence("jsd", states, Head(head, VOCAB), targets[rows], ce_weight=0.5, **known)

    ours, plain = sums(spoilt, torch.ones(ROWS).bool(), mask=mask), sums(hidden[mask], mask)
    assert ours.metrics.tolist() == plain.metrics.tolist()
    on_spoilt, on_head = gradients(ours.loss, spoilt, head)
    on_hidden, on_plain_head = gradients(plain.loss, hidden, head)
    assert float(on_spoilt[~mask].abs().max()) == 0.0
    assert on_spoilt[mask].tolist() == on_hidden[mask].tolist()
    assert on_head.tolist() == on_plain_head.tolist()
    nothing = sums(spoilt, torch.ones(ROWS).bool(), mask=torch.zeros(ROWS).bool())
    assert float(nothing.metrics.abs().max()) == 0.0
    assert all(float(grad.abs().max()) == 0.0 for grad in gradients(nothing.loss, spoilt, head))


def test_float64_gradient_by_finite_differences() -> None:
    hidden, head, labels, targets = problem(k=4, dtype=torch.float64)

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        fused = fused_divergence("reverse_kl", hidden, Head(head, VOCAB), targets, labels=labels, ce_weight=0.5)
        return fused.loss

    assert torch.autograd.gradcheck(loss, (hidden, head), fast_mode=True)


@pytest.mark.parametrize(("kind", "parameters"), CASES)
def test_bfloat16_stays_close_to_float32(kind: str, parameters: dict[str, Any]) -> None:
    hidden, head, _, targets = problem(k=6)
    exact = fused_divergence(kind, hidden, Head(head, VOCAB), targets, **parameters)
    low_hidden, low_head = low = [leaf.detach().bfloat16().requires_grad_() for leaf in (hidden, head)]
    rough = fused_divergence(kind, low_hidden, Head(low_head, VOCAB, None, SMALL_CHUNKS), targets, **parameters)
    torch.testing.assert_close(rough.loss, exact.loss, rtol=2e-2, atol=0)
    for ours, theirs in zip(gradients(rough.loss, *low), gradients(exact.loss, hidden, head), strict=True):
        assert ours.dtype == torch.bfloat16
        assert float(torch.nn.functional.cosine_similarity(ours.float().flatten(), theirs.flatten(), dim=0)) > 0.999


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_no_positions_give_zero_and_zero_gradients(loss: str) -> None:
    _, head, _, _ = problem(k=6)
    hidden = torch.empty(0, HIDDEN, requires_grad=True)
    labels = torch.empty(0, dtype=torch.int64)
    targets = SparseTargets(torch.empty(0, 6, dtype=torch.int64), torch.empty(0, 6), torch.empty(0))
    sums: LossSums
    if loss == "kd":
        sums = fused_divergence("forward_kl", hidden, Head(head, VOCAB), targets, labels=labels)
    else:
        sums = fused_cross_entropy(hidden, Head(head, VOCAB), labels=labels)
    on_hidden, on_head = gradients(sums.loss, hidden, head)
    assert float(sums.loss.detach()) == 0.0
    assert on_hidden.shape == hidden.shape
    assert float(on_head.abs().max()) == 0.0


def test_ids_outside_the_vocabulary_are_refused() -> None:
    hidden, head, labels, _ = problem(k=6)
    with pytest.raises(ModelError, match="token id 55 lies outside the student's vocabulary of 50"):
        fused_cross_entropy(hidden, Head(head, VOCAB), labels=torch.full_like(labels, 55))


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors held at once while `run` ran, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_loss_and_head_take_a_third_of_the_memory_of_a_plain_log_softmax() -> None:
    rows, vocab, width, k = 48, 151_936, 16, 8
    hidden = torch.randn(rows, width, requires_grad=True)
    head = torch.randn(vocab, width, requires_grad=True)
    ids = torch.stack([torch.randperm(vocab)[:k] for _ in range(rows)])
    targets = SparseTargets(ids, torch.full((rows, k), 0.1).log(), torch.full((rows,), 0.2).log())
    assert targets.logprobs is not None
    teacher = targets.logprobs.exp()

    def plain() -> None:
        torch.autograd.backward(-(teacher * (hidden @ head.T).log_softmax(1).gather(1, ids)).sum())

    def fused() -> None:
        torch.autograd.backward(
            fused_divergence("forward_kl", hidden, Head(head, chunk_bytes=4 * vocab * rows // 8), targets).loss
        )

    peaks = {}
    for name, run in (("plain", plain), ("fused", fused)):
        hidden.grad = head.grad = None
        peaks[name] = peak_bytes(run)
    assert peaks["plain"] > 2 * 4 * rows * vocab
    assert peaks["fused"] <= peaks["plain"] / 3


def test_a_formula_of_ones_own_is_summed_and_differentiated_chunk_by_chunk() -> None:
    """Half of forward and reverse KL, which no kind is."""
    hidden, head, labels, targets = problem(k=6)

    def formula(positions: Positions, kept: Tensor, rest: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        assert positions.targets is not None and label is not None
        events = fold(positions.targets, kept, rest)
        apart = forward_kl(events) + reverse_kl(events)
        return {"loss": 0.5 * apart, "divergence": apart, "ce": cross_entropy(kept, rest, label)}

    sums = fused_loss(hidden, Head(head, VOCAB, None, SMALL_CHUNKS), Positions(targets, labels), formula)
    logits = reference_logits(hidden, head, softcap=None)
    apart = (divergence("forward_kl", logits, targets) + divergence("reverse_kl", logits, targets)).sum()
    torch.testing.assert_close(sums.loss, 0.5 * apart, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(sums.loss, hidden, head), gradients(0.5 * apart, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    found = named(sums)
    assert found["divergence"] == pytest.approx(2 * found["loss"], rel=1e-6)
    assert found["divergence"] == pytest.approx(found["forward_kl"] + found["reverse_kl"], rel=1e-5)
