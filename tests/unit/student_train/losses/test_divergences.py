"""Divergences against brute force in float64: the formulas as they are written, over explicit probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from configs.errors import ConfigError
from student_train.losses.divergences import divergence
from student_train.losses.kinds import KINDS
from student_train.losses.targets import SparseTargets

VOCAB = 13
NAN, INF = math.nan, math.inf
TAILS = ("bucket", "renormalize")

Case = tuple[str, dict[str, Any]]
CASES: tuple[Case, ...] = (
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("jsd", {}),
    ("jsd", {"beta": 0.2}),
    ("skew_kl", {}),
    ("skew_kl", {"alpha": 0.0}),
    ("skew_reverse_kl", {"alpha": 0.6}),
    ("tvd", {}),
    ("adaptive_kl", {"mu": 0.05}),
    ("alpha_beta", {}),
    ("alpha_beta", {"a": 0.5, "b": 0.5}),
    ("alpha_beta", {"a": 1.0, "b": 0.0}),
    ("alpha_beta", {"a": 0.0, "b": 1.0}),
    ("alpha_beta", {"a": 1.5, "b": -0.5}),
    ("alpha_beta", {"a": -0.4, "b": 1.4}),
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "jsd": {"beta": 0.5},
    "skew_kl": {"alpha": 0.1},
    "skew_reverse_kl": {"alpha": 0.1},
    "adaptive_kl": {"mu": 0.5},
    "alpha_beta": {"a": 0.2, "b": 0.7},
}
GOLDEN = {
    "forward_kl": (0.5143500924825557, 0.35036035667062926),
    "reverse_kl": (0.7392374093942142, 0.3986852879010058),
    "jsd": (0.13424795977498719, 0.08969620024155664),
    "skew_kl": (0.4153417502818329, 0.2839083275075031),
    "skew_reverse_kl": (0.4749769064848185, 0.3044744133724278),
    "tvd": (0.4662931615623471, 0.40361909983367183),
    "adaptive_kl": (0.668083329318714, 0.38102111013216994),
    "alpha_beta": (0.8019071429507495, 0.4358780044857463),
}
"""Of the one position in the test: the whole vocabulary, and three tokens and the tail."""

each_case = pytest.mark.parametrize(("kind", "parameters"), CASES)
each_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log())[p > 0].sum()


def adaptive(p: Tensor, q: Tensor, *, mu: float, tokens: int) -> Tensor:
    order = sorted(range(tokens), key=lambda i: -float(p[i]))
    head, mass = [order[0]], float(p[order[0]])
    for i in order[1:]:
        mass += float(p[i])
        if mass > mu:
            break
        head.append(i)
    gap = (p - q).abs().detach()
    h = gap[head].sum()
    share = h / gap.sum() if gap.sum() > 0 else 0.5
    return share * kl(p, q) + (1 - share) * kl(q, p)


def alpha_beta(p: Tensor, q: Tensor, *, a: float, b: float) -> Tensor:
    if b == 0:
        return kl(p, q)
    if a == 0:
        return kl(q, p)
    return -(p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)).sum() / (a * b)


def formula(kind: str, p: Tensor, q: Tensor, parameters: dict[str, Any], *, tokens: int) -> Tensor:
    """One position; p and q are probabilities of the same events, none of them impossible on both sides."""
    settings = DEFAULTS.get(kind, {}) | parameters
    if kind == "jsd":
        beta = settings["beta"]
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)
    if kind == "adaptive_kl":
        return adaptive(p, q, mu=settings["mu"], tokens=tokens)
    if kind == "alpha_beta":
        return alpha_beta(p, q, a=settings["a"], b=settings["b"])
    alpha = settings.get("alpha", 0.0)
    plain: dict[str, Callable[[], Tensor]] = {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "skew_kl": lambda: kl(p, alpha * p + (1 - alpha) * q),
        "skew_reverse_kl": lambda: kl(q, (1 - alpha) * p + alpha * q),
        "tvd": lambda: (p - q).abs().sum() / 2,
    }
    return plain[kind]()


def brute_force(kind: str, logits: Tensor, targets: SparseTargets, parameters: dict[str, Any], *, tail: str) -> Tensor:
    """Loops and probabilities instead of tables and logarithms."""
    assert targets.logprobs is not None and targets.tail_logmass is not None
    q = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    values = []
    for row in range(len(q)):
        ids = targets.ids[row].tolist()
        others = [j for j in range(q.shape[1]) if j not in ids]
        teacher = [targets.logprobs[row, j].exp() for j in range(len(ids))]
        student = [q[row, i] for i in ids]
        if tail == "bucket" and others:
            teacher.append(targets.tail_logmass[row].exp())
            student.append(q[row, others].sum())
        p, r = (torch.stack(side) / torch.stack(side).sum() for side in (teacher, student))
        values.append(formula(kind, p, r, parameters, tokens=len(ids)))
    return torch.stack(values)


def teacher_targets(logits: Tensor, *, k: int) -> SparseTargets:
    logprobs = logits.double().log_softmax(dim=1)
    top, ids = logprobs.topk(k, dim=1)
    rest = logprobs.scatter(1, ids, -INF)
    tail = rest.logsumexp(dim=1) if k < logits.shape[1] else torch.full((len(logits),), -INF).double()
    return SparseTargets(ids, top, tail)


def random_logits(*, rows: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(rows, VOCAB, generator=generator, dtype=torch.float64)
    student = 2 * torch.randn(rows, VOCAB, generator=generator, dtype=torch.float64)
    return teacher, student


def gradient(values: Tensor, logits: Tensor) -> Tensor:
    """Of a sum in which every row has a weight of its own."""
    return torch.autograd.grad((values * torch.arange(1.0, len(values) + 1)).sum(), logits)[0]


@each_case
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("k", [1, 5, VOCAB])
def test_value_and_gradient_equal_brute_force(kind: str, parameters: dict[str, Any], tail: str, k: int) -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=k)
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    value = divergence(kind, ours, targets, tail=tail, **parameters)  # type: ignore[arg-type]
    expected = brute_force(kind, theirs, targets, parameters, tail=tail)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient(value, ours), gradient(expected, theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mu", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("k", [9, VOCAB])
def test_the_head_of_adaptive_kl_grows_with_mu(mu: float, k: int) -> None:
    teacher, student = random_logits(rows=20, seed=1)
    targets = teacher_targets(teacher / 2, k=k)
    value = divergence("adaptive_kl", student, targets, mu=mu)
    torch.testing.assert_close(value, brute_force("adaptive_kl", student, targets, {"mu": mu}, tail="bucket"))


def test_adaptive_kl_by_hand() -> None:
    # The head is the first token alone: 0.4 + 0.3 is more than 0.5. h = 0.15, t = 0.05 + 0.05 + 0.15.
    teacher, student = torch.tensor([[0.1, 0.3, 0.4, 0.2]]).double().log(), torch.zeros(1, 4).double()
    both = [divergence(kind, student, teacher) for kind in ("forward_kl", "reverse_kl")]
    torch.testing.assert_close(divergence("adaptive_kl", student, teacher), 0.375 * both[0] + 0.625 * both[1])


@each_kind
def test_dense_targets_equal_the_whole_vocabulary_kept(kind: str) -> None:
    teacher, student = random_logits()
    dense = divergence(kind, student, teacher)
    torch.testing.assert_close(dense, divergence(kind, student, teacher_targets(teacher, k=VOCAB)))
    p, q = teacher.softmax(1), student.softmax(1)
    expected = torch.stack([formula(kind, *row, {}, tokens=VOCAB) for row in zip(p, q, strict=True)])
    torch.testing.assert_close(dense, expected)


def test_golden_values() -> None:
    teacher = torch.tensor([[2.0, 0.5, -1.0, 0.0, 1.0, -3.0]]).double()
    student = torch.tensor([[1.0, 1.5, -0.5, -2.0, 0.0, 0.25]]).double()
    assert set(GOLDEN) == set(KINDS)
    for kind, (whole, bucket) in GOLDEN.items():
        assert float(divergence(kind, student, teacher)) == pytest.approx(whole, rel=1e-13), kind
        assert float(divergence(kind, student, teacher_targets(teacher, k=3))) == pytest.approx(bucket, rel=1e-13), kind


F_DIVERGENCES: tuple[Case, ...] = tuple(
    case for case in CASES if case[0] != "adaptive_kl" and sum((DEFAULTS.get(case[0], {}) | case[1]).values()) != 0.9
)


@hypothesis_settings(max_examples=25)
@given(
    logits=st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=2, max_size=9),
    data=st.data(),
)
def test_the_bucket_is_a_lower_bound(logits: list[tuple[float, float]], data: st.DataObject) -> None:
    teacher, student = (torch.tensor([side]).double() for side in zip(*logits, strict=True))
    k = data.draw(st.integers(1, len(logits)))
    targets = teacher_targets(teacher, k=k)
    for kind, parameters in F_DIVERGENCES:
        whole = divergence(kind, student, teacher, **parameters)
        bucket = divergence(kind, student, targets, **parameters)
        assert float(bucket) <= float(whole) + 1e-9, kind


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "tvd"])
def test_the_bound_tightens_with_k(kind: str) -> None:
    teacher, student = random_logits(rows=40, seed=3)
    bounds = [divergence(kind, student, teacher_targets(teacher, k=k)) for k in (1, 3, 6, VOCAB)]
    for looser, tighter in pairwise(bounds):
        assert bool((looser <= tighter + 1e-12).all())


def head_and_tail_gradient(kind: str, student: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
    logits = student.clone().requires_grad_()
    (grad,) = torch.autograd.grad(divergence(kind, logits, targets).sum(), logits)
    outside = torch.ones_like(grad).scatter(1, targets.ids, 0.0).bool()
    return grad.gather(1, targets.ids), grad[outside].reshape(len(grad), -1)


def student_parts(student: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor, Tensor]:
    """Student probabilities: on the head, of each token outside, and the tail's mass [N, 1]."""
    q = student.softmax(1)
    outside = torch.ones_like(q).scatter(1, targets.ids, 0.0).bool()
    tail = q[outside].reshape(len(q), -1)
    return q.gather(1, targets.ids), tail, tail.sum(1, keepdim=True)


def test_the_gradient_of_forward_kl_has_its_closed_form() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=4)
    assert targets.logprobs is not None and targets.tail_logmass is not None
    on_head, on_tail = head_and_tail_gradient("forward_kl", student, targets)
    q, each, mass = student_parts(student, targets)
    torch.testing.assert_close(on_head, q - targets.logprobs.exp())
    torch.testing.assert_close(on_tail, each * (1 - targets.tail_logmass.exp()[:, None] / mass))
    # On the head it is the gradient of the whole divergence too.
    whole, _ = head_and_tail_gradient("forward_kl", student, teacher_targets(teacher, k=VOCAB))
    torch.testing.assert_close(on_head, whole[:, :4])


def test_the_gradient_of_reverse_kl_has_its_closed_form() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=4)
    assert targets.logprobs is not None and targets.tail_logmass is not None
    on_head, on_tail = head_and_tail_gradient("reverse_kl", student, targets)
    q, each, mass = student_parts(student, targets)
    value = divergence("reverse_kl", student, targets)[:, None]
    torch.testing.assert_close(on_head, q * (q.log() - targets.logprobs - value))
    torch.testing.assert_close(on_tail, each * (mass.log() - targets.tail_logmass[:, None] - value))


@each_case
@pytest.mark.parametrize("k", [1, 4, VOCAB])
def test_a_student_with_the_teachers_head_is_a_fixed_point(kind: str, parameters: dict[str, Any], k: int) -> None:
    teacher, other = random_logits()
    targets = teacher_targets(teacher, k=k)
    # The same head and the same mass in the tail, spread there in another way.
    spread = other.scatter(1, targets.ids, -INF)
    logits = teacher.log_softmax(1)
    if k < VOCAB:
        assert targets.tail_logmass is not None
        tail = spread.log_softmax(1) + targets.tail_logmass[:, None]
        logits = torch.where(spread == -INF, logits, tail)
    logits = logits.requires_grad_()
    value = divergence(kind, logits, targets, **parameters)
    assert float(value.detach().abs().max()) < 1e-12
    assert float(gradient(value, logits).abs().max()) < 1e-11


def test_beta_is_the_teachers_weight_and_jsd_vanishes_at_both_ends() -> None:
    teacher, student = random_logits()
    for end, share, plain in ((1e-9, 1e-9, "forward_kl"), (1 - 1e-9, 1e-9, "reverse_kl")):
        value = divergence("jsd", student, teacher, beta=end)
        assert float(value.max()) < 1e-6
        # To first order in the smaller weight it is the KL that the larger side's distribution measures.
        torch.testing.assert_close(value / share, divergence(plain, student, teacher), rtol=1e-4, atol=1e-4)


@each_case
def test_the_order_of_the_vocabulary_changes_nothing(kind: str, parameters: dict[str, Any]) -> None:
    teacher, student = random_logits(rows=30, seed=5)
    # Many ties, so that the tokens at the border of adaptive_kl's head are equally likely.
    teacher = teacher.div(3).round()
    settings = parameters | ({"mu": 0.5} if kind == "adaptive_kl" else {})
    order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))
    permuted = divergence(kind, student[:, order], teacher[:, order], **settings)
    torch.testing.assert_close(permuted, divergence(kind, student, teacher, **settings), rtol=1e-12, atol=1e-12)


@each_case
@pytest.mark.parametrize("tail", TAILS)
def test_impossible_events_are_finite_in_value_and_gradient(kind: str, parameters: dict[str, Any], tail: str) -> None:
    logits = torch.zeros(6, VOCAB)
    logits[1, 5:] = -INF  # the student rules out tokens, as the vocabulary mask does
    logits[2, 0] = 500.0  # nothing left for the tail
    logits[3, 1:] = -INF
    logits[4, :5] = -INF  # all that the teacher knows
    logits[5, :2] = -INF
    logits.requires_grad_()
    logprobs = torch.tensor([0.5, 0.25, 0.25, 0.0, 0.0]).log().repeat(6, 1)
    targets = SparseTargets(torch.arange(5).repeat(6, 1), logprobs, torch.full((6,), -INF))
    for k in (5, 1):
        part = SparseTargets(targets.ids[:, :k], logprobs[:, :k], torch.full((6,), -INF if k == 5 else math.log(0.5)))
        value = divergence(kind, logits, part, tail=tail, **parameters)  # type: ignore[arg-type]
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(gradient(value, logits)).all())


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("jsd", {"beta": 0.3}),
        ("skew_kl", {"alpha": 0.1}),
        ("skew_reverse_kl", {"alpha": 0.1}),
        ("tvd", {}),
        ("alpha_beta", {"a": 0.2, "b": 0.7}),
        ("alpha_beta", {"a": 0.01, "b": 0.5}),
    ],
)
def test_impossible_events_have_the_value_of_the_formula(kind: str, parameters: dict[str, Any]) -> None:
    # Where the divergence is finite nothing of the floor shows: impossible for the teacher, the student, and both.
    p = torch.tensor([[0.6, 0.4, 0.0, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.7, 0.0, 0.3, 0.0]], dtype=torch.float64)
    expected = formula(kind, p[0], q[0], parameters, tokens=4)
    value = divergence(kind, q.log(), p.log(), **parameters)
    torch.testing.assert_close(value[0], expected, rtol=1e-12, atol=0)


@each_case
def test_masked_positions_are_exactly_zero_whatever_they_hold(kind: str, parameters: dict[str, Any]) -> None:
    teacher, student = random_logits()
    mask = torch.tensor([True, False, True, False, False, True])
    targets = teacher_targets(teacher, k=5)
    assert targets.logprobs is not None and targets.tail_logmass is not None
    spoilt = student.clone()
    spoilt[1], spoilt[3] = NAN, -INF
    targets.logprobs[3:5], targets.tail_logmass[1] = NAN, NAN
    spoilt.requires_grad_()
    value = divergence(kind, spoilt, targets, mask=mask, **parameters)
    plain = divergence(kind, student[mask], targets[mask], **parameters)
    torch.testing.assert_close(value, torch.zeros(6).double().masked_scatter(mask, plain))
    grad = gradient(value, spoilt)
    assert float(grad[~mask].abs().max()) == 0.0 < float(grad[mask].abs().max())
    nothing = divergence(kind, spoilt, targets, mask=torch.zeros(6, dtype=torch.bool), **parameters)
    assert float(gradient(nothing, spoilt).abs().max()) == float(nothing.detach().abs().max()) == 0.0


def test_small_tails_keep_their_digits() -> None:
    # A tail of 1e-7: in float32, 1 - sum(q) is off by tens of percent, and the divergence with it.
    logits = torch.tensor([[16.0, 15.0, -0.5, -0.7, -1.0]])
    targets = SparseTargets(
        torch.tensor([[0, 1]]), torch.log(torch.tensor([[0.6, 0.3]])), torch.log(torch.tensor([0.1]))
    )
    exact = divergence("forward_kl", logits.double(), targets)
    torch.testing.assert_close(divergence("forward_kl", logits, targets).double(), exact, rtol=1e-5, atol=0)


@each_kind
def test_no_positions_give_no_values(kind: str) -> None:
    targets = SparseTargets(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3), torch.empty(0))
    assert divergence(kind, torch.empty(0, VOCAB), targets).shape == (0,)


@each_kind
def test_temperature_softens_both_sides(kind: str) -> None:
    teacher, student = random_logits()
    softened = divergence(kind, student / 2.5, teacher / 2.5)
    torch.testing.assert_close(divergence(kind, student, teacher, temperature=2.5), softened)
    targets, logprobs = teacher_targets(teacher, k=4), teacher.log_softmax(1)
    kept = [side.gather(1, targets.ids) / 2.5 for side in (student, logprobs)]
    renormalised = divergence(kind, student, targets, temperature=2.5, tail="renormalize")
    torch.testing.assert_close(renormalised, divergence(kind, *kept))


def test_parameters_that_are_not_given_have_their_defaults() -> None:
    teacher, student = random_logits()
    explicit = divergence("alpha_beta", student, teacher, a=0.2, b=0.7)
    assert divergence("alpha_beta", student, teacher).tolist() == explicit.tolist()
    assert divergence("alpha_beta", student, teacher, a=0.3).tolist() != explicit.tolist()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("jsd", {"alpha": 0.3}, "divergence=jsd with alpha=0.3: it takes no alpha"),
        ("forward_kl", {"temperature": 2.0}, "temperature=2 needs the whole distribution, but k=3 of 13 tokens"),
        ("forward_kl", {"temperature": 0.0}, "temperature=0 must be more than 0"),
        ("adaptive_kl", {"mu": 0.999}, "a mass of mu=0.999 among the k=3 known tokens, but 6 of 6 positions hold less"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(kind: str, settings: dict[str, Any], message: str) -> None:
    teacher, student = random_logits()
    with pytest.raises(ConfigError, match=message) as caught:
        divergence(kind, student, teacher_targets(teacher, k=3), **settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_tail_is_refused() -> None:
    teacher, student = random_logits()
    with pytest.raises((ConfigError, TypeCheckError), match="drop"):
        divergence("forward_kl", student, teacher_targets(teacher, k=3), tail="drop")  # type: ignore[arg-type]
