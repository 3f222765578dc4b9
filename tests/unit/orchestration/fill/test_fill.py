"""A fill asks for what is missing and nothing else, whatever dies, fails or runs out on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import local_engines
import pytest
from fill_builders import Filling, ask, prompts, teacher_set
from killed_passes import EngineThatIsKilled
from local_engines import (
    EOS,
    IDENTITY,
    MAX_MODEL_LEN,
    VOCAB,
    LocalEngines,
    OnePass,
    Watched,
    refusing,
)

from cache import GenerateRequest, Missing, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from configs import BudgetReached, EngineError
from orchestration.fill import lots
from orchestration.fill.engine_loop import FillOrder, FillProgress, longest
from orchestration.fill.fill import Budgets
from orchestration.fill.ledger import read_counts
from orchestration.plan.requests import SequenceSet, plan_fill


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path / "cache")


def test_misses_become_hits(filling: Filling) -> None:
    sets = [teacher_set(prompts(20)), teacher_set(prompts(5, first=30), split="test")]
    result = filling.fill(*sets, engines=LocalEngines())
    assert plan_fill(sets, cache=filling.cache).misses == 0
    records = [record for part in sets for record in filling.records(part)]
    assert len(records) == 25 == result.rows
    assert result.response_tokens == sum(record.response_len for record in records)
    assert result.teacher_tokens == sum(len(record.token_ids) for record in records)
    assert result.stored_bytes > 0
    assert result.failed == {}


def test_many_rows_are_drawn_lot_by_lot_in_their_order(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is asked about all of them before and after, and about each lot when it is claimed and behind it."""
    monkeypatch.setattr(lots, "LOT", 4)
    given = ScoreRequest((5, 6, 7, EOS), prompt_len=2)
    sets = [teacher_set(prompts(10)), SequenceSet("gold", "train", (given,), k=4)]
    looks, asked = list[int](), list[int]()
    missing, engines = TeacherCache.missing, LocalEngines()

    def looked(cache: TeacherCache, requests: Sequence[Request], *, k: int) -> Missing:
        looks.append(len(requests))
        return missing(cache, requests, k=k)

    def filled(work: Iterable[Any], order: FillOrder, **limits: Any) -> FillProgress:
        drawn = list(work)
        asked.append(len(drawn))
        return OnePass.fill(engines, drawn, order, **limits)

    monkeypatch.setattr(TeacherCache, "missing", looked)
    monkeypatch.setattr(LocalEngines, "fill", lambda _, *given, **limits: filled(*given, **limits))
    result = filling.fill(*sets, engines=engines)
    assert asked == [10, 1] and (result.rows, result.from_others) == (11, 0)
    assert engines.teacher.asked == [*prompts(10), given]
    assert looks.count(10) == 3, "the plan, before and after"
    assert looks.count(4) == 4, "two whole lots, each before and after"


def test_what_is_kept_is_what_the_teacher_says(filling: Filling) -> None:
    part = teacher_set(prompts(6))
    filling.fill(part, engines=LocalEngines())
    said = [outcome for _, outcome in Watched().generate(part.requests, k=4)]  # type: ignore[arg-type]
    for kept, wanted in zip(filling.records(part), said, strict=True):
        assert isinstance(wanted, TeacherRecord)
        assert kept.token_ids.tolist() == wanted.token_ids.tolist()
        assert kept.topk_ids is not None and wanted.topk_ids is not None
        assert kept.topk_ids.tolist() == wanted.topk_ids.tolist()


def test_a_second_fill_asks_nothing(filling: Filling) -> None:
    part = teacher_set(prompts(20))
    filling.fill(part, engines=LocalEngines())
    again = LocalEngines()
    result = filling.fill(part, engines=again)
    assert again.orders == []
    assert again.teacher.asked == []
    assert (result.teacher_tokens, result.rows) == (0, 0)


def test_what_was_refused_before_is_not_asked_again(filling: Filling) -> None:
    part = teacher_set((*prompts(4), ask(VOCAB + 5)))
    first = filling.fill(part, engines=LocalEngines())
    assert set(first.failed) == {ask(VOCAB + 5)}
    again, refused = LocalEngines(), filling.failures()
    assert not plan_fill([part], cache=filling.cache, refused=refused).asks_teacher
    result = filling.fill(part, engines=again, refused=refused)
    assert again.orders == []
    assert result.failed == first.failed
    # Beside new rows it is left out as well.
    filling.fill(teacher_set((*prompts(6), ask(VOCAB + 5))), engines=again, refused=refused)
    assert len(again.teacher.asked) == 2
    # Another version of the engine is asked once.
    filling.engine = {"vllm": "2"}
    for _ in range(2):
        filling.fill(part, engines=again, refused=filling.failures())
    assert again.teacher.asked.count(ask(VOCAB + 5)) == 1


def test_what_was_refused_is_remembered_although_the_fill_ends_too_early(filling: Filling) -> None:
    refused = ask(9, prompt_tokens=MAX_MODEL_LEN)
    with pytest.raises(BudgetReached):
        filling.fill(teacher_set((refused, *prompts(20))), engines=LocalEngines(), budgets=Budgets(150, None))
    assert "exceed max_model_len" in (filling.failures().reason(refused) or "")
    assert filling.failures().reason(prompts(1)[0]) is None


def test_only_what_is_new_is_asked(filling: Filling) -> None:
    filling.fill(teacher_set(prompts(10)), engines=LocalEngines())
    engines = LocalEngines()
    filling.fill(teacher_set(prompts(14)), engines=engines)
    assert engines.teacher.asked == list(prompts(14)[10:])


def test_a_prompt_that_stands_twice_is_asked_once(filling: Filling) -> None:
    engines = LocalEngines()
    filling.fill(teacher_set((*prompts(4), *prompts(4))), engines=engines)
    assert sorted(map(longest, engines.teacher.asked)) == sorted(map(longest, prompts(4)))


def test_more_log_probabilities_are_scored_and_never_written_anew(filling: Filling) -> None:
    part = teacher_set(prompts(8), k=2)
    filling.fill(part, engines=LocalEngines())
    before = filling.records(part)
    fuller = teacher_set(prompts(8), k=6)
    engines = LocalEngines()
    filling.fill(fuller, engines=engines)
    assert [order.scoring for order in engines.orders] == [True]
    wanted = {ScoreRequest(tuple(r.token_ids.tolist()), r.prompt_len) for r in before}
    assert set(engines.teacher.asked) == wanted
    after = filling.records(fuller)
    assert [r.token_ids.tolist() for r in after] == [r.token_ids.tolist() for r in before]
    assert {r.k for r in after} == {6}


def test_a_longer_limit_asks_only_for_answers_that_it_cut(filling: Filling) -> None:
    short = [ask(number, limit=3) for number in range(3, 23)]
    filling.fill(teacher_set(short), engines=LocalEngines())
    cut = [r.prompt_len for r in filling.records(teacher_set(short)) if r.finish == "length"]
    assert 0 < len(cut) < 20
    engines = LocalEngines()
    filling.fill(teacher_set([ask(number, limit=20) for number in range(3, 23)]), engines=engines)
    assert len(engines.teacher.asked) == len(cut)


def test_completions_come_before_scores_and_each_k_by_itself(filling: Filling) -> None:
    gold = SequenceSet("gold", "train", (ScoreRequest((5, 6, 7, EOS), prompt_len=2),), k=3)
    engines = LocalEngines()
    filling.fill(gold, teacher_set(prompts(3), k=4), teacher_set(prompts(2, first=30), k=2), engines=engines)
    assert [(order.scoring, order.k) for order in engines.orders] == [(False, 2), (False, 4), (True, 3)]
    assert {(order.licence, order.commit_every_s) for order in engines.orders} == {("cc0", 1e6)}
    assert [record.finish for record in filling.records(gold)] == ["given"]


def test_gold_text_is_kept_without_an_engine(filling: Filling) -> None:
    gold = [ScoreRequest((number, number, 9, EOS), prompt_len=2) for number in range(3, 9)]
    part = SequenceSet("gold", "train", tuple(gold), k=0)
    engines = LocalEngines(Watched(at_outcome=refusing("nobody may be asked")))
    result = filling.fill(part, engines=engines)
    assert engines.orders == []
    assert result.teacher_tokens == 0
    records = filling.records(part)
    assert [(tuple(r.token_ids.tolist()), r.prompt_len, r.k) for r in records] == [(g.token_ids, 2, 0) for g in gold]


def test_gold_text_is_scored_later_without_being_kept_twice(filling: Filling) -> None:
    gold = (ScoreRequest((5, 6, 9, EOS), prompt_len=2),)
    filling.fill(SequenceSet("gold", "train", gold, k=0), engines=LocalEngines())
    engines = LocalEngines()
    filling.fill(SequenceSet("gold", "train", gold, k=4), engines=engines)
    assert engines.teacher.asked == list(gold)
    assert filling.cache.stats().records == 1


def test_a_request_that_fails_is_reported_once_and_not_asked_for_ever(filling: Filling) -> None:
    too_long = ask(9, prompt_tokens=MAX_MODEL_LEN)
    unknown = GenerateRequest(prompt_ids=(VOCAB + 5,), stop_ids=(EOS,), max_new_tokens=4)
    part = teacher_set((*prompts(5), too_long, unknown))
    engines = LocalEngines()
    result = filling.fill(part, engines=engines)
    assert set(result.failed) == {too_long, unknown}
    assert "exceed max_model_len" in result.failed[too_long]
    assert "outside the vocabulary" in result.failed[unknown]
    assert engines.teacher.asked.count(too_long) == engines.teacher.asked.count(unknown) == 1
    assert len(filling.records(part)) == 5


def test_failures_do_not_hide_that_an_engine_died(filling: Filling) -> None:
    # Three requests fail in the first pass; in the second the engine dies after one more row is there.
    bad = [ask(9, prompt_tokens=MAX_MODEL_LEN + i) for i in range(3)]
    passes = [0]

    def at_outcome(count: int) -> None:
        passes[0] += count == 0
        if passes[0] == 2 and count == 1:
            raise EngineError("out of memory")

    engines = LocalEngines(Watched(at_outcome=at_outcome), rows_a_pass=5)
    result = filling.fill(teacher_set((*bad, *prompts(8))), engines=engines)
    assert set(result.failed) == set(bad)
    assert len(filling.records(teacher_set(prompts(8)))) == 8


def test_an_engine_that_dies_keeps_what_it_had_finished(filling: Filling) -> None:
    died: list[int] = []

    def at_outcome(count: int) -> None:
        if count == 7 and not died:
            died.append(count)
            raise EngineError("out of memory")

    engines = LocalEngines(Watched(at_outcome=at_outcome))
    part = teacher_set(prompts(20))
    result = filling.fill(part, engines=engines)
    records = filling.records(part)
    assert len(records) == 20 == result.rows
    # The row that was lost in the engine is the only one that is asked again.
    assert len(engines.teacher.asked) == 21
    assert result.teacher_tokens == sum(len(record.token_ids) for record in records)


def test_a_killed_engine_loses_only_what_it_had_not_committed(filling: Filling, tmp_path: Path) -> None:
    engines = EngineThatIsKilled(tmp_path, local_engines.__file__, commit_at=9, die_at=14, healthy=LocalEngines())
    part = teacher_set(prompts(20))
    result = filling.fill(part, engines=engines)
    assert engines.healthy.teacher.asked == list(part.requests[9:])
    records = filling.records(part)
    assert len(records) == 20 == result.rows
    assert filling.cache.verify() == []
    # Five more answers were finished and paid for before the kill, though not committed; they were written again.
    lost = records[9:14]
    assert result.teacher_tokens == sum(len(record.token_ids) for record in [*records, *lost])


def test_engines_that_die_without_progress_end_the_fill(filling: Filling) -> None:
    engines = LocalEngines(Watched(at_outcome=refusing("no memory")))
    with pytest.raises(EngineError, match="no memory"):
        filling.fill(teacher_set(prompts(5)), engines=engines)
    assert len(engines.orders) == 1


def test_engines_that_stop_without_a_word_end_the_fill(filling: Filling) -> None:
    engines = LocalEngines(rows_a_pass=0)
    with pytest.raises(EngineError, match="5 rows still missing; see their logs"):
        filling.fill(teacher_set(prompts(5)), engines=engines)
    assert len(engines.orders) == 1


@pytest.mark.parametrize("budget", [1, 13, 14, 40, 100, 151])
def test_a_token_budget_is_never_exceeded_and_what_was_bought_stays(budget: int, filling: Filling) -> None:
    part = teacher_set(prompts(20))
    with pytest.raises(BudgetReached, match=r"budget is spent and \d+ rows .* budgets\.max_teacher_tokens"):
        filling.fill(part, engines=LocalEngines(), budgets=Budgets(budget, None))
    spent = sum(len(record.token_ids) for record in filling.records(part))
    assert spent <= budget
    # As much was bought as could be promised: the next answer might have been too long.
    assert budget - spent < longest(ask(3))


def test_a_budget_counts_what_dead_engines_had_bought(filling: Filling) -> None:
    def at_outcome(count: int) -> None:
        if count == 3:
            raise EngineError("out of memory")

    part = teacher_set(prompts(20))
    with pytest.raises(BudgetReached):
        filling.fill(part, engines=LocalEngines(Watched(at_outcome=at_outcome)), budgets=Budgets(100, None))
    assert sum(len(record.token_ids) for record in filling.records(part)) <= 100


@pytest.mark.slow
def test_a_budget_counts_answers_that_a_killed_engine_could_not_commit(filling: Filling, tmp_path: Path) -> None:
    part = teacher_set(prompts(20))
    engines = EngineThatIsKilled(tmp_path, local_engines.__file__, commit_at=2, die_at=8, healthy=LocalEngines())
    with pytest.raises(BudgetReached):
        filling.fill(part, engines=engines, budgets=Budgets(120, None))
    records = filling.records(part)
    finished = [len(said.token_ids) for _, said in Watched().generate(part.requests[:8], k=4)]  # type: ignore[arg-type, union-attr]
    assert engines.healthy.budgets[0][0] == 120 - sum(finished)
    bought_after = sum(len(record.token_ids) for record in records[2:])
    assert read_counts(filling.ledger).fill == sum(finished) + bought_after <= 120


def test_an_interrupted_fill_has_counted_what_it_bought(filling: Filling) -> None:
    def at_outcome(count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    part = teacher_set(prompts(20))
    with pytest.raises(KeyboardInterrupt):
        filling.fill(part, engines=LocalEngines(Watched(at_outcome=at_outcome)))
    bought = filling.records(part)
    assert len(bought) == 5
    assert read_counts(filling.ledger).fill == sum(len(record.token_ids) for record in bought)


def test_a_budget_that_suffices_is_no_error(filling: Filling) -> None:
    part = teacher_set(prompts(6))
    result = filling.fill(part, engines=LocalEngines(), budgets=Budgets(6 * longest(ask(3)), None))
    assert result.rows == 6


def test_a_rerun_goes_on_where_the_budget_ended(filling: Filling) -> None:
    part = teacher_set(prompts(20))
    with pytest.raises(BudgetReached):
        filling.fill(part, engines=LocalEngines(), budgets=Budgets(100, None))
    bought = len(filling.records(part))
    engines = LocalEngines()
    filling.fill(part, engines=engines)
    assert len(engines.teacher.asked) == 20 - bought
    assert len(filling.records(part)) == 20


def test_the_time_budget_is_for_the_whole_fill(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def at_outcome(count: int) -> None:
        now[0] += 10.0

    # Three rows a pass, ten seconds a row.
    engines = LocalEngines(Watched(at_outcome=at_outcome), rows_a_pass=3)
    with pytest.raises(BudgetReached, match=r"11 rows .*budgets\.max_gpu_hours"):
        filling.fill(teacher_set(prompts(20)), engines=engines, budgets=Budgets(None, 75.0))
    assert [seconds for _, seconds in engines.budgets] == [75.0, 45.0, 15.0]


def test_a_record_that_breaks_the_rules_is_a_failure_and_is_paid_for(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Watched()
    # Keys of another teacher: what an engine with the wrong weights would hand over.
    monkeypatch.setattr(teacher.teacher, "_digest", "f" * 64)
    part = teacher_set(prompts(3))
    result = filling.fill(part, engines=LocalEngines(teacher))
    assert [("its key is not that of" in reason) for reason in result.failed.values()] == [True] * 3
    assert result.teacher_tokens > 0
    assert filling.records(part) == []


def test_no_staging_is_left_behind(filling: Filling) -> None:
    filling.fill(teacher_set(prompts(5)), engines=LocalEngines())
    assert [name for _, names, _ in os.walk(filling.root) for name in names if name == "staging"] != []
    assert list((filling.root / IDENTITY.digest() / "staging").iterdir()) == []
