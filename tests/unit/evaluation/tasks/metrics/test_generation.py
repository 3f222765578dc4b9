"""Rouge is rouge-score's, BLEU and chrF are sacrebleu's, at one corpus and at many draws."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf
from task_builders import answered, measured, rows_of, values

ANSWERS = [
    "The cat sat on the mat, quietly.",
    "A quick brown fox jumps over the lazy dog near the river bank.",
    "It works.",
    "",
    "completely unrelated words here today",
]
REFERENCES = [
    ["The cat is sitting on the mat.", "On the mat the cat sat quietly."],
    ["A quick brown fox jumped over the lazy dog near the bank of the river."],
    ["It works.", "That works well.", "It does work."],
    ["Something should stand here."],
    ["The model answers another question."],
]
PAIRS = list(zip(REFERENCES, ANSWERS, strict=True))
WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "dogs", "run", "."]), max_size=12).map(" ".join)


def streams(references: list[list[str]]) -> list[list[str]]:
    return [list(stream) for stream in zip_longest(*references)]


def test_golden_values() -> None:
    found = values("generation", rows_of(PAIRS))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for ours, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        best = [
            max(scorer.score(reference, answer)[theirs].fmeasure for reference in references)
            for references, answer in PAIRS
        ]
        assert found[ours] == pytest.approx(100 * np.mean(best))
    assert found["bleu"] == pytest.approx(corpus_bleu(ANSWERS, streams(REFERENCES)).score, abs=1e-10)
    assert found["chrf"] == pytest.approx(corpus_chrf(ANSWERS, streams(REFERENCES)).score, abs=1e-10)


def test_rouge_by_hand() -> None:
    found = values("generation", rows_of([(["the cat sat on the mat"], "the cat sat")]))
    assert found["rouge_1"] == pytest.approx(100 * 2 * 3 / 9)
    assert found["rouge_2"] == pytest.approx(100 * 2 * 2 / 7)
    assert found["rouge_l"] == pytest.approx(100 * 2 * 3 / 9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_bleu_and_chrf_are_sacrebleus(rows: list[tuple[str, list[str]]]) -> None:
    answers, references = [row[0] for row in rows], [row[1] for row in rows]
    found = values("generation", rows_of([(references, answer) for answer, references in rows]))
    bleu = corpus_bleu(answers, streams(references), force=True)
    if bleu.sys_len + bleu.ref_len:
        assert found["bleu"] == pytest.approx(bleu.score, abs=1e-9)
    else:
        assert np.isnan(found["bleu"])
    theirs = corpus_chrf(answers, streams(references)).score
    assert found["chrf"] == pytest.approx(theirs, abs=1e-9) or (theirs == 0 and np.isnan(found["chrf"]))


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge_l"])
def test_many_draws_are_finished_at_once(name: str) -> None:
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 3, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 3]])
    one = measured("generation", rows_of(PAIRS))[name]
    at_once = one.metric.finish(weights @ one.sums)
    for drawn, value in zip(weights, at_once, strict=True):
        pairs = [pair for pair, times in zip(PAIRS, drawn, strict=True) for _ in range(times)]
        assert value == pytest.approx(values("generation", rows_of(pairs))[name], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [("The cat sat here today", "13a"), ("Кошка сидела здесь, сегодня", "intl"), ("东京是日本的首都。", "char")],
)
def test_any_script_is_measured_and_the_signature_says_how(text: str, tokenizer: str) -> None:
    found = measured("generation", rows_of([([text], text)]))
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        dict.fromkeys(("rouge_l", "rouge_1", "rouge_2", "bleu", "chrf"), 100.0)
    )
    assert f"|tok:{tokenizer}|smooth:exp|" in found["bleu"].metric.signature
    assert found["bleu"].metric.signature.startswith("nrefs:1|case:mixed|eff:no|")
    assert "nc:6" in found["chrf"].metric.signature


def test_the_answers_do_not_choose_how_words_are_cut() -> None:
    found = measured("generation", rows_of([(["The cat sat"], "东京是日本的首都。")]))
    assert "|tok:13a|" in found["bleu"].metric.signature


def test_the_signature_says_that_references_vary() -> None:
    assert measured("generation", rows_of(PAIRS))["bleu"].metric.signature.startswith("nrefs:var|")


def test_an_unread_answer_is_an_empty_one() -> None:
    examples = [answered(["The cat sat here"], None), answered(["The cat sat here"], "The cat sat here", row=1)]
    assert values("generation", examples)["rouge_l"] == pytest.approx(50.0)


def test_without_rows_nothing_is_defined() -> None:
    assert all(np.isnan(value) for value in values("generation", []).values())
