"""Rouge-1, -2 and -L, BLEU and chrF against one or several references, in any script.

Rouge (Lin 2004) is rouge-score's with stems, its words cut by `evaluation.words`; of several references the one with
the best F counts, measure by measure. BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's: its
statistics of every answer are additive, its formulas are applied here to many sums at once, and its signature goes
along. All are points of 100.

How BLEU cuts words depends on the references alone, so that all models of a task are measured alike: `13a`, the custom
of the literature, for Latin letters; `intl`, which knows the punctuation of all scripts, for other letters between
spaces; `char` for scripts without spaces. chrF needs no words.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import ratio, row_sums
from evaluation.words import Script, Words, script_of

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

ROUGES = {"rouge_l": "rougeL", "rouge_1": "rouge1", "rouge_2": "rouge2"}
TOKENIZERS: dict[Script, str] = {"latin": "13a", "spaced": "intl", "unspaced": "char"}

MAX_WORDS = 4
"""The longest n-grams of BLEU."""

MAX_CHARACTERS = 6
"""The longest n-grams of chrF."""

BETA_SQUARED = 4.0
"""chrF weighs recall twice as much as precision."""


def generation(examples: Sequence[TaskExample]) -> tuple[Measured, ...]:
    """Rouge-L, Rouge-1, Rouge-2, BLEU and chrF."""
    answers = [(*(example.predicted or ()), "")[0] for example in examples]
    references = [example.gold for example in examples]
    return (*_rouges(examples, answers), _bleu(examples, answers, references), _chrf(examples, answers, references))


def _rouges(examples: Sequence[TaskExample], answers: Sequence[str]) -> list[Measured]:
    # Not before it is needed, as in all that measures words: what stands behind it takes five seconds to load, and
    # whoever shows results measures none.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGES.values()), tokenizer=Words())
    scores = [scorer.score_multi(example.gold, answer) for example, answer in zip(examples, answers, strict=True)]
    signature = f"rouge-score {version('rouge-score')}, F of the best reference, stems of Latin words"
    return [
        Measured(
            Metric(name, better="higher", unit="points", finish=ratio_of, signature=signature),
            row_sums(examples, [(100.0 * float(score[theirs].fmeasure), 1.0) for score in scores], columns=2),
        )
        for name, theirs in ROUGES.items()
    ]


def _bleu(examples: Sequence[TaskExample], answers: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = TOKENIZERS[script_of("\n".join(text for texts in references for text in texts))]
    theirs = BLEU(tokenize=tokenizer, force=True)
    sums = _statistics(theirs, examples, answers, references, columns=2 + 2 * MAX_WORDS)
    signature = str(theirs.get_signature()) if examples else ""
    return Measured(Metric("bleu", better="higher", unit="points", finish=bleu_of, signature=signature), sums)


def _chrf(examples: Sequence[TaskExample], answers: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    from sacrebleu.metrics.chrf import CHRF

    theirs = CHRF(char_order=MAX_CHARACTERS)
    sums = _statistics(theirs, examples, answers, references, columns=3 * MAX_CHARACTERS)
    signature = str(theirs.get_signature()) if examples else ""
    return Measured(Metric("chrf", better="higher", unit="points", finish=chrf_of, signature=signature), sums)


def _statistics(
    theirs: BLEU | CHRF,
    examples: Sequence[TaskExample],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    columns: int,
) -> Float64[np.ndarray, "N M"]:
    """What sacrebleu counts of every answer; it wants the references the other way round."""
    streams = list(zip_longest(*references))
    counted = theirs._extract_corpus_statistics(answers, streams) if examples else np.zeros((0, columns))
    return row_sums(examples, counted, columns=columns)


def bleu_of(sums: Float64[np.ndarray, "*D 10"]) -> Float64[np.ndarray, "*D"]:
    """BLEU as sacrebleu has it, with exponential smoothing.

    Columns: words, reference words, hits and n-grams by length. NaN where nothing was answered at all (no row).
    """
    words, reference_words = sums[..., 0], sums[..., 1]
    hits, grams = sums[..., 2 : 2 + MAX_WORDS], sums[..., 2 + MAX_WORDS :]
    # Each length without a hit halves what a hit would be worth (Chen and Cherry 2014, method 3).
    halvings = 2.0 ** np.cumsum((hits == 0) & (grams > 0), axis=-1)
    precisions = ratio(np.where(hits == 0, 1.0 / halvings, hits), grams)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        brevity = np.where(words < reference_words, np.exp(1.0 - reference_words / words), 1.0)
        score = 100.0 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    nothing = (hits.sum(axis=-1) == 0) | (grams == 0).any(axis=-1)
    return np.where(words + reference_words == 0, np.nan, np.where(nothing, 0.0, score))


def chrf_of(sums: Float64[np.ndarray, "*D 18"]) -> Float64[np.ndarray, "*D"]:
    """ChrF as sacrebleu has it; columns: n-grams of the answers, of the references and of both, by length.

    Lengths of which one side has none are left out; NaN where there is no n-gram at all.
    """
    answered, reference, both = np.moveaxis(sums.reshape(*sums.shape[:-1], MAX_CHARACTERS, 3), -1, 0)
    counts = (answered > 0) & (reference > 0)
    lengths = counts.sum(axis=-1).astype(np.float64)
    precision = ratio(np.where(counts, ratio(both, answered), 0.0).sum(axis=-1), lengths)
    recall = ratio(np.where(counts, ratio(both, reference), 0.0).sum(axis=-1), lengths)
    score = 100.0 * ratio((1.0 + BETA_SQUARED) * precision * recall, BETA_SQUARED * precision + recall)
    nothing = (answered + reference).sum(axis=-1) == 0
    return np.where(nothing, np.nan, np.nan_to_num(score))
