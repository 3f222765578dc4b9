"""One sentence a student: what was seen is said, and what was not seen is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from results_builders import model_results, run_results

from evaluation.closeness import SUMS, WORDING, joined
from evaluation.metric import Measured, Metric
from evaluation.qualities import Quality
from evaluation.results import Closeness, FinalScores, ModelResults, TaskExample, TaskFacts
from evaluation.statistics import Resampling
from evaluation.verdict import opinions_of, verdicts

HOW = Resampling(draws=500)
N = 40
NATS = Metric("nats", "lower", "nats", lambda sums: np.asarray(sums[..., 0]))


def at(nats: float, *, top1: float = 0.5, seed: int = 0) -> Closeness:
    """40 answers of ten tokens; what differs between models of one seed differs in every answer alike."""
    noise = np.random.default_rng(seed).normal(scale=0.05, size=N)
    rows = [(10.0, 10 * (nats + each), 10 * (nats + each), 10 * top1, 0.0, 10.0, 1.0) for each in noise]
    return Closeness(SUMS, tuple(rows))


def models(**students: tuple[str, Closeness]) -> list[ModelResults]:
    rows = [model_results("teacher", closeness=at(0.0, top1=1.0)), model_results("untouched", closeness=at(2.0))]
    return rows + [model_results(name, method=method, closeness=each) for name, (method, each) in students.items()]


def said(rows: list[ModelResults], *tasks: Quality) -> Mapping[str, str]:
    found = opinions_of(rows, tasks) if tasks else verdicts(run_results(*rows), how=HOW)
    return {name: opinion.sentence for name, opinion in found.items()}


def task(name: str, of: Mapping[str, Measured], floor: float | None = None) -> Quality:
    return Quality(name, next(iter(of.values())).metric, of, name, headline=True, floor=floor, how=HOW)


def accuracy(rate: float, *, seed: int) -> Measured:
    def ratio(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])

    right = np.random.default_rng(seed).permutation(np.arange(100) < round(100 * rate)).astype(np.float64)
    return Measured(Metric("accuracy", "higher", "fraction", ratio), np.stack([right, np.ones(100)], axis=1))


def test_a_close_student_is_said_to_be_one_and_to_have_gained() -> None:
    assert said(models(kd=("kd", at(0.4, top1=0.75)))) == {
        "kd": "kd: good for answers in its teacher's manner (0.40 nats, 75% of its next tokens); better than its start "
        "in KL(teacher‖·) (-1.600 nats), KL(·‖teacher) (-1.600 nats)."
    }


def test_a_student_that_got_worse_than_its_start_is_told_so() -> None:
    sentence = said(models(kd=("kd", at(3.0))))["kd"]
    assert "not a stand-in for its teacher (3.00 nats" in sentence
    assert "worse than its start in KL(teacher‖·) (+1.000 nats)" in sentence and "better" not in sentence


def test_to_get_worse_is_to_be_better_in_nothing() -> None:
    rows = models(worse=("kd", at(3.0)), same=("kd", at(2.0, seed=9)), better=("kd", at(1.0)))
    mixed = model_results("mixed", closeness=at(3.0))
    gained = {"teacher": accuracy(0.9, seed=1), "untouched": accuracy(0.2, seed=2), "mixed": accuracy(0.8, seed=3)}
    nats = {"untouched": Measured(NATS, np.full((N, 1), 2.0)), "mixed": Measured(NATS, np.full((N, 1), 3.0))}
    found = verdicts(run_results(*rows), how=HOW)
    assert {name: opinion.got_worse for name, opinion in found.items()} == {
        "worse": True,
        "same": False,
        "better": False,
    }
    both = opinions_of([*rows[:2], mixed], [task("intents", gained, 0.1), task("nats", nats)])
    assert "worse than its start in nats" in both["mixed"].sentence and not both["mixed"].got_worse


def test_the_teacher_is_known_by_its_role() -> None:
    rows = models(kd=("kd", at(1.0)))
    rows[0] = replace(rows[0], name="quick: teacher")
    intents = task("intents", {"quick: teacher": accuracy(0.9, seed=1), "kd": accuracy(0.9, seed=2)}, 0.25)
    assert "good for intents" in said(rows, intents)["kd"]


def test_where_nothing_was_seen_it_says_what_could_have_been() -> None:
    sentence = said(models(kd=("kd", at(2.0, seed=9))))["kd"]
    assert "against its start, no difference seen (n = 40, detectable: " in sentence
    assert "better" not in sentence and "worse" not in sentence


@pytest.mark.parametrize(
    ("nats", "ending"),
    [
        (1.0, "equalled by plain, whose method is simpler (sft, no more parameters)"),
        (1.4, "beaten by plain, whose method is simpler (sft, no more parameters)"),
    ],
)
def test_a_simpler_method_that_does_as_well_is_named(nats: float, ending: str) -> None:
    found = said(models(plain=("sft", at(1.0)), involved=("seqkd, minillm", at(nats, seed=int(nats == 1.0)))))
    assert ending in found["involved"]
    assert "simpler" not in found["plain"]


def test_a_method_that_was_worth_it_or_a_larger_simple_one_is_not_named() -> None:
    assert "simpler" not in said(models(plain=("seqkd", at(1.0)), involved=("kd", at(0.6))))["involved"]
    rows = models(plain=("seqkd", at(1.0)), involved=("kd", at(1.0)))
    rows[2] = model_results("plain", method="seqkd", closeness=at(1.0), parameters=10**9)
    assert "simpler" not in said(rows)["involved"]


def test_tasks_say_what_a_student_is_good_for_and_what_not() -> None:
    rates = {"intents": (0.9, 0.88, 0.3), "sums": (0.8, 0.2, 0.1), "names": (0.7, 0.3, 0.2), "moods": (0.9, 0.7, 0.3)}
    tasks = [
        task(name, {"teacher": accuracy(best, seed=1), "kd": accuracy(ours, seed=2), "untouched": accuracy(was, seed=3)}, 0.25)
        for name, (best, ours, was) in rates.items()
    ]  # fmt: skip
    sentence = said(models(kd=("kd", at(0.9))), *tasks)["kd"]
    assert sentence.startswith(
        "kd: good for intents (88.0 %, 97% of the teacher's lead over a constant answer); "
        "a compromise for moods (70.0 %, 69% of the teacher's lead over a constant answer); "
        "not for sums (20.0 %, no better than a constant answer) and names (30.0 %, 11% of the teacher's lead over a "
        "constant answer); better than its start in "
    )
    assert "intents (+58.0 pp)" in sentence and "moods (+40.0 pp)" in sentence and "names (" in sentence


@pytest.mark.parametrize(
    ("best", "ours", "begins"),
    [
        (0.85, 0.80, "good for intents (80.0 %, 92% of the teacher's lead"),
        (0.85, 0.78, "a compromise for intents (78.0 %, 88% of the teacher's lead"),
        (0.85, 0.55, "a compromise for intents (55.0 %, 50% of the teacher's lead"),
        # Exactly half, and exactly nine tenths, although division says a little less.
        (0.89, 0.57, "a compromise for intents (57.0 %, 50% of the teacher's lead"),
        (0.75, 0.70, "good for intents (70.0 %, 90% of the teacher's lead"),
        (0.85, 0.54, "not for intents (54.0 %, 48% of the teacher's lead"),
        (0.85, 0.25, "not for intents (25.0 %, no better than a constant answer)"),
        (0.25, 0.60, "undecided for intents (60.0 %, above a constant answer, which its teacher is not)"),
        (0.20, 0.20, "not for intents (20.0 %, no better than a constant answer)"),
    ],
)
def test_every_part_of_the_teachers_lead_has_a_plain_word(best: float, ours: float, begins: str) -> None:
    rates = {"teacher": accuracy(best, seed=1), "kd": accuracy(ours, seed=2)}
    assert said(models(kd=("kd", at(0.9))), task("intents", rates, 0.25))["kd"].startswith(f"kd: {begins}")


def test_a_task_without_a_number_is_not_spoken_of() -> None:
    nowhere = Metric("accuracy", "higher", "fraction", lambda sums: np.full(sums.shape[:-1], np.nan))
    undefined = Measured(nowhere, np.zeros((100, 2)))
    rates = {"teacher": accuracy(0.9, seed=1), "kd": undefined}
    assert "intents" not in said(models(kd=("kd", at(0.9))), task("intents", rates, 0.25))["kd"]


def answered(right: int, *, task: str = "intents") -> FinalScores:
    """40 rows whose label is yes or no in turn, the first `right` of them answered rightly."""
    golds = ["yes" if row % 2 else "no" for row in range(N)]
    said = [gold if row < right else ("no" if gold == "yes" else "yes") for row, gold in enumerate(golds)]
    rows = zip(range(N), golds, said, strict=True)
    return FinalScores(
        task, "text", tuple(TaskExample(row, 0, "?", (gold,), it, (it,), 0.5, 9) for row, gold, it in rows)
    )


def test_the_tasks_of_a_run_are_judged_in_their_own_metric() -> None:
    rates = {"teacher": 40, "untouched": 20, "kd": 39}
    rows = [model_results(name, closeness=None, answers=(), tasks=(answered(right),)) for name, right in rates.items()]
    facts = TaskFacts(
        "intents", "d" * 64, "classification", ("yes", "no"), "accuracy", 0, 0, 0, N, 0.5, 0, 0, 0.8, (), {}, None
    )
    (opinion,) = verdicts(run_results(*rows, tasks=(facts,)), how=HOW).values()
    assert opinion.sentence == (
        "kd: good for intents (97.5 %, 95% of the teacher's lead over a constant answer); "
        "better than its start in intents (+47.5 pp)."
    )


def test_models_that_were_not_measured_on_the_same_rows_are_not_compared() -> None:
    rows = models(kd=("kd", at(1.0)))
    rows[2] = model_results("kd", closeness=Closeness(SUMS, at(1.0).sums[:30]))
    assert "start" not in said(rows)["kd"]


def test_a_student_that_could_not_be_measured_is_said_to_be_one() -> None:
    rows = [*models(), model_results("lost", closeness=None, answers=())]
    assert said(rows) == {"lost": "lost: nothing of it could be measured."}


def test_a_start_that_was_not_measured_is_not_spoken_of() -> None:
    rows = models(kd=("kd", at(0.4, top1=0.75)))
    del rows[1]
    assert "start" not in said(rows)["kd"]


def test_what_distillation_adds_to_gold_labels_is_said_of_each_student() -> None:
    rates = {"teacher": 0.9, "bag": 0.85, "bag-gold": 0.4, "lstm": 0.6, "lstm-gold": 0.6}
    rows = [
        model_results(name, method="" if name == "teacher" else "hard_labels" if "gold" in name else "logit_mse")
        for name in rates
    ]
    measured = {name: accuracy(rate, seed=0) for name, rate in rates.items()}
    found = said(rows, task("intents", measured, 0.25))
    assert (
        "; distillation adds +45.0 pp, 95 %: " in found["bag"] and "over gold labels alone (bag-gold)" in found["bag"]
    )
    assert "; distillation against gold labels alone (lstm-gold): no difference seen (n = 100" in found["lstm"]
    assert "distillation" not in found["bag-gold"]
    assert "lstm-gold, whose method" not in found["lstm"]


def test_what_distillation_adds_to_augmentation_is_said_too() -> None:
    rates = {"teacher": 0.9, "bag": 0.85, "bag-gold": 0.4, "bag-augmented": 0.5}
    rows = [
        model_results(name, method="" if name == "teacher" else "logit_mse" if name == "bag" else "hard_labels")
        for name in rates
    ]
    intents = task("intents", {name: accuracy(rate, seed=1) for name, rate in rates.items()}, 0.25)
    found = said(rows, intents)["bag"]
    assert "; distillation adds +45.0 pp, 95 %: " in found and "over gold labels alone (bag-gold)" in found
    assert "; distillation adds +35.0 pp, 95 %: " in found
    assert "over gold labels of augmented texts alone (bag-augmented)" in found and "method is simpler" not in found


def test_gold_labels_are_the_simplest_method() -> None:
    rows = [model_results("teacher"), model_results("a", method="logit_mse"), model_results("b", method="hard_labels")]
    intents = task("intents", {"a": accuracy(0.6, seed=1), "b": accuracy(0.6, seed=1)}, 0.25)
    assert "equalled by b, whose method is simpler (hard_labels, no more parameters)" in said(rows, intents)["a"]


def test_a_student_of_another_tokenizer_is_held_against_others_by_its_words() -> None:
    def worded(rouge: float, *, seed: int) -> Closeness:
        noise = np.random.default_rng(seed).normal(scale=0.05, size=N)
        return Closeness(WORDING, tuple((1.0, rouge + each, 10.0, 10.0) for each in noise))

    rows = [
        model_results("teacher", closeness=joined(at(0.0, top1=1.0), worded(1.0, seed=1))),
        model_results("untouched", closeness=worded(0.3, seed=2)),
        model_results("words", method="seqkd", closeness=worded(0.5, seed=3)),
        model_results("worse", method="uld", closeness=worded(0.1, seed=4)),
    ]
    found = said(rows)
    assert "words: better than its start in Rouge-L with the teacher (" in found["words"]
    assert "worse than its start in Rouge-L with the teacher (" in found["worse"]
    # Where all have the teacher's tokens, beliefs decide and wording does not.
    same = [replace(each, closeness=joined(at(1.0), each.closeness)) for each in rows[1:] if each.closeness]
    assert all("Rouge" not in sentence for sentence in said([rows[0], *same]).values())
