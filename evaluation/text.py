"""Rouge-L of answers against the teacher's.

F-measure with stemming, mean x 100, as in the literature of sequence-level distillation. A diagnostic: it says how
close the wording is, not how good the answer. What a word is says `evaluation.words`.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.closeness import WORDING
from evaluation.results import Closeness
from evaluation.words import Words


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean Rouge-L F-measure x 100 of `answers[i]` against `references[i]`.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    scores = _rouge_l_each(answers, references)
    return 100.0 * sum(scores) / len(scores)


def wording(
    answers: Sequence[str], references: Sequence[str], *, written: Sequence[int], referenced: Sequence[int]
) -> Closeness:
    """The sums behind Rouge-L and the ratio of lengths, one row an answer; `written` and `referenced` are in tokens.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    scores = _rouge_l_each(answers, references)
    lengths = zip(scores, map(float, written), map(float, referenced), strict=True)
    return Closeness(WORDING, tuple((1.0, *each) for each in lengths))


def _rouge_l_each(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers for {len(references)} references")
    # Not before it is needed: what stands behind it takes five seconds to load.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    return [
        float(scorer.score(reference, answer)["rougeL"].fmeasure)
        for answer, reference in zip(answers, references, strict=True)
    ]
