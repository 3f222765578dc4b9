"""How varied the answers of a model are: numbers to be held against the teacher's, not to be maximised.

`distinct_n` (Li et al. 2016, 1510.03055) is the number of different n-grams for each n-gram written. `self_bleu` (Zhu
et al. 2018, 1802.01886) is the mean BLEU of an answer against all other answers: high where a model says the same thing
to everybody. Words are those of `evaluation.words`, so that any script is counted. An empty answer has no words and
adds nothing to either; what is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.words import Words

MOST = 200
"""Answers of which self-BLEU is taken, the first ones: its time grows with the square of their number."""


def distinct(answers: Sequence[str], *, n: int) -> float:
    """Different n-grams for each n-gram of all answers together; NaN where no answer has n words."""
    words = Words()
    grams = [tuple(said[at : at + n]) for said in map(words.tokenize, answers) for at in range(len(said) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def self_bleu(answers: Sequence[str]) -> float:
    """Mean BLEU x 100 of each answer against the others (up to four words, smoothed); NaN for fewer than two."""
    # Not before it is needed: whoever shows results measures none.
    from sacrebleu.metrics.bleu import BLEU

    words = Words()
    said = [text for text in (" ".join(words.tokenize(answer)) for answer in answers[:MOST]) if text]
    if len(said) < 2:
        return float("nan")
    # Of an answer of three words nobody can ask for four: the orders that it has are counted.
    bleu = BLEU(tokenize="none", effective_order=True)
    scores = [bleu.sentence_score(text, said[:at] + said[at + 1 :]).score for at, text in enumerate(said)]
    return float(sum(scores) / len(scores))


def diversity(answers: Sequence[str]) -> dict[str, float]:
    """All of it, by name; empty where a model has not answered."""
    if not answers:
        return {}
    return {
        "distinct_1": distinct(answers, n=1),
        "distinct_2": distinct(answers, n=2),
        "self_bleu": self_bleu(answers),
    }
