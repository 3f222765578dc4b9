"""Rouge-L of answers against the teacher's.

F-measure with stemming, mean x 100, as in the literature of sequence-level distillation. A diagnostic: it says how
close the wording is, not how good the answer. What a word is says `evaluation.words`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from evaluation.words import Words


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean Rouge-L F-measure x 100 of `answers[i]` against `references[i]`.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers for {len(references)} references")
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    scores = [
        float(scorer.score(reference, answer)["rougeL"].fmeasure)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return 100.0 * sum(scores) / len(scores)
