"""Hidden tokens: how many, which, what stands there, and that nothing but seed, epoch and example decides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from general_jobs import plain_examples

from student_train.feed.hiding import Hiding, hidden_counts
from student_train.feed.task_batch import collate_examples
from student_train.feed.task_steps import TaskFeed
from student_train.worker_group import WorkerGroup

EXAMPLES = plain_examples(400, seed=3)
HIDING = Hiding(mask=99, tokens=np.arange(100, 150), seed=5, epoch=2)


def hidden(hiding: Hiding, rows: list[int]) -> list[list[tuple[int, int, int]]]:
    """Of every example: where it hides a token, what stands there, and what stood there."""
    chosen = np.array(rows, dtype=np.int64)
    batch = hiding.hide(collate_examples(EXAMPLES, chosen), chosen)
    width, flat = batch.input_ids.shape[1], batch.input_ids.flatten()
    found: list[list[tuple[int, int, int]]] = [[] for _ in rows]
    for unit, owner, gold in zip(batch.units.tolist(), batch.owner.tolist(), batch.gold.tolist(), strict=True):
        found[owner].append((unit - owner * width, int(flat[unit]), gold))
    return found


@pytest.mark.parametrize(("units", "count"), [(1, 1), (3, 1), (9, 1), (10, 2), (17, 3), (100, 15), (128, 19)])
def test_fifteen_percent_and_at_least_one(units: int, count: int) -> None:
    assert hidden_counts(np.array([units])).tolist() == [count]


def test_what_is_not_hidden_stays_and_what_is_hidden_is_remembered() -> None:
    rows = np.arange(len(EXAMPLES))
    plain = collate_examples(EXAMPLES, rows)
    batch = HIDING.hide(plain, rows)
    changed = (batch.input_ids != plain.input_ids).flatten()
    elsewhere = torch.ones_like(changed)
    elsewhere[batch.units] = False
    assert not (changed & elsewhere).any()
    assert torch.equal(batch.gold, plain.input_ids.flatten()[batch.units])
    assert len(batch.units) == hidden_counts(np.diff(EXAMPLES.decision_offsets)).sum()
    assert torch.equal(plain.input_ids, collate_examples(EXAMPLES, rows).input_ids)


def test_eight_tenths_are_masked_one_replaced_one_kept() -> None:
    found = [each for example in hidden(HIDING, list(range(400))) for each in example]
    masked = sum(now == 99 for _, now, _ in found) / len(found)
    kept = sum(now == gold for _, now, gold in found) / len(found)
    # Four standard deviations of about 900 draws.
    assert masked == pytest.approx(0.8, abs=4 * (0.16 / len(found)) ** 0.5)
    assert kept == pytest.approx(0.1, abs=4 * (0.09 / len(found)) ** 0.5)
    others = {now for _, now, gold in found if now not in (99, gold)}
    assert others <= set(range(100, 150)) and len(others) > 20


def test_neither_order_nor_company_decides_what_is_hidden() -> None:
    together = hidden(HIDING, [3, 8, 21, 40])
    assert [hidden(HIDING, [row])[0] for row in (3, 8, 21, 40)] == together
    assert hidden(HIDING, [40, 3, 21, 8]) == [together[at] for at in (3, 0, 2, 1)]


def test_epoch_and_seed_do() -> None:
    rows = list(range(20))
    assert hidden(HIDING, rows) != hidden(replace(HIDING, epoch=3), rows)
    assert hidden(HIDING, rows) != hidden(replace(HIDING, seed=6), rows)
    assert hidden(HIDING, rows) == hidden(replace(HIDING), rows)


def test_an_empty_batch_hides_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    assert len(HIDING.hide(collate_examples(EXAMPLES, none), none).units) == 0


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_hide_the_tokens_that_one_would_and_count_them_alike(world: int) -> None:
    rows = [np.arange(40), np.arange(40, 57)]
    device = torch.device("cpu")
    ranks = [
        list(TaskFeed(EXAMPLES, WorkerGroup(rank, world, device), 64, HIDING).steps(rows)) for rank in range(world)
    ]
    for number, chosen in enumerate(rows):
        batches = [batch for steps in ranks for batch in steps[number].batches]
        gold = sorted(label for batch in batches for label in batch.gold.tolist())
        assert gold == sorted(HIDING.hide(collate_examples(EXAMPLES, chosen), chosen).gold.tolist())
        assert {steps[number].decisions for steps in ranks} == {len(gold)}
        ((per_text, per_token),) = {(batch.per_text, batch.per_token) for batch in batches}
        assert per_text == pytest.approx(len(gold) / len(chosen))
        assert per_token == pytest.approx(len(gold) / EXAMPLES.lengths[chosen].sum())
