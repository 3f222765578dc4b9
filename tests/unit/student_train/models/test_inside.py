"""Terms about what is inside a teacher, on traces that are written down: matching, projections, scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.task_features import FeatureTerm, InsideSizes
from student_train import attention_mse, hidden_mse
from student_train.losses.metrics import METRICS
from student_train.models.inside import Inside, with_terms

NARROW, WIDE = InsideSizes((4, 4, 4), heads=2), InsideSizes((6, 6, 6, 6, 6), heads=2)


@dataclass(frozen=True)
class Written:
    """A model whose inside is written down: five tokens, or two texts of three."""

    states: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]

    def state(self, layer: int, place: str, batch: Any) -> Tensor:
        return self.states[layer]


THERE = torch.tensor([[True, True, True], [True, True, False]])


@dataclass(frozen=True)
class Batch:
    per_text: float = 1.0
    per_token: float = 1.0
    tokens: Tensor = field(default_factory=lambda: THERE)
    groups: Tensor | None = None


def written(sizes: InsideSizes, *, seed: int) -> Written:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(5, width, generator=generator) for width in sizes.widths]
    scores = [torch.randn(2, sizes.heads or 0, 3, 3, generator=generator) for _ in sizes.widths[1:]]
    return Written(tuple(states), tuple(scores))


OURS, THEIRS = written(NARROW, seed=1), written(WIDE, seed=2)


def inside(*terms: dict[str, Any], seed: int = 3) -> Inside:
    made = [FeatureTerm.model_validate(term) for term in terms]
    return Inside(made, student=NARROW, teacher=WIDE, seed=seed)


def test_terms_are_weighed_and_each_kind_summed_over_its_layers() -> None:
    terms = inside({"kind": "hidden_mse", "weight": 2.0}, {"kind": "attention_mse", "layers": [(1, 3)]})
    batch = Batch(per_text=5.0, per_token=0.5)
    loss, sums = terms(OURS, THEIRS, batch)
    states = 0.5 * sum(
        hidden_mse(OURS.states[ours], THEIRS.states[theirs], projection.detach()).sum()
        for (ours, theirs), projection in zip([(0, 0), (1, 2), (2, 4)], terms.parameters(), strict=True)
    )
    scores = 5.0 * attention_mse(OURS.scores[0], THEIRS.scores[2], THERE).sum()
    torch.testing.assert_close(sums, {"hidden_mse": states, "attention_mse": scores})
    torch.testing.assert_close(loss.detach(), 2.0 * states + scores)


def test_projections_are_drawn_by_the_seed_and_learn() -> None:
    first, again, other = (inside({"kind": "hidden_mse"}, seed=seed) for seed in (3, 3, 4))
    assert [name for name, _ in first.named_parameters()] == ["projection_0", "projection_1", "projection_2"]
    for (name, one), two in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two) and float(one.detach().abs().max()) <= 4**-0.5, name
    assert not torch.equal(first.projection_0, other.projection_0)
    first(OURS, THEIRS, Batch())[0].backward()
    assert all(each.grad is not None and each.grad.any() for each in first.parameters())


def test_what_a_term_costs_is_part_of_the_loss_that_is_measured() -> None:
    metrics = torch.arange(len(METRICS), dtype=torch.float64)
    found = with_terms(metrics, loss=torch.tensor(10.0, requires_grad=True), terms={"cosine": torch.tensor(3.0)})
    assert float(found[METRICS.index("loss")]) == 10.0 + METRICS.index("loss")
    assert float(found[METRICS.index("cosine")]) == 3.0 + METRICS.index("cosine")
    changed = (found != metrics).nonzero()[:, 0].tolist()
    assert changed == [METRICS.index("loss"), METRICS.index("cosine")] and not found.requires_grad


@pytest.mark.parametrize("heads", ["each", "mean"])
def test_heads_are_compared_one_by_one_or_by_their_means(heads: str) -> None:
    _, sums = inside({"kind": "attention_mse", "layers": "top", "heads": heads})(OURS, THEIRS, Batch())
    both = OURS.scores[-1], THEIRS.scores[-1]
    if heads == "mean":
        both = tuple(each.mean(dim=1, keepdim=True) for each in both)  # type: ignore[assignment]
    torch.testing.assert_close(sums["attention_mse"], attention_mse(*both, THERE).sum())
