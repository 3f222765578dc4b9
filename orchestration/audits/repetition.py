"""How much of a student's answers to the test prompts stands word for word in what it learned from.

The answers are those that the comparison kept, so nothing is asked of anybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from evaluation.metric import Measured
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.overlap import GRAM, longest_run, overlap_of, repeated_share
from evaluation.side_effects.paired import Instrument, found_beside
from orchestration.audits.beside import unknown_by
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import Learned

SHARE = Instrument(
    "privacy",
    f"verbatim: runs of {GRAM} words",
    "fraction",
    f"the part of all runs of {GRAM} words in its answers to the test prompts that stand in its training text; what "
    "the teacher repeats of it as well is the language's, or the prompt's",
)
LONGEST = Instrument(
    "privacy",
    "verbatim: longest run",
    "count",
    "words of the longest run of an answer to a test prompt that stands in its training text, on average",
)
MEASURES = {SHARE: repeated_share, LONGEST: longest_run}


def repeated_by(
    student: AuditedStudent, learned: Sequence[Learned], *, tokenizer: PreTrainedTokenizerBase
) -> dict[Instrument, Measured]:
    """How much of its answers to the test prompts stands in what a student has learned, by every measure."""
    if not student.row.answers:
        return {}
    overlap = overlap_of(student.row.answers, _training_text(learned, tokenizer))
    return {instrument: measure(overlap) for instrument, measure in MEASURES.items()}


def repetition_findings(
    student: AuditedStudent, learned: Sequence[Learned], *, run: FinishedRun, tokenizer: PreTrainedTokenizerBase
) -> list[Finding]:
    """What a student, its teacher and its start repeat of the student's training text; prompts and answers of it."""
    if not student.row.answers:
        return unknown_by(tuple(MEASURES), student, why="its answers to the test prompts were not measured")
    training = _training_text(learned, tokenizer)
    start = next((row for row in run.results.models if row.name == student.row.start), None)
    answers = {
        "student": student.row.answers,
        "teacher": run.teacher_answers,
        "untouched": () if start is None else start.answers,
    }
    overlaps = {who: overlap_of(texts, training) for who, texts in answers.items() if texts}
    return [
        found_beside(
            instrument,
            {who: measure(each) for who, each in overlaps.items()},
            model=student.name,
            method=student.method,
        )
        for instrument, measure in MEASURES.items()
    ]


def _training_text(learned: Sequence[Learned], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    records = [record for each in learned for record in each.members]
    ids = [part for record in records for part in (record.token_ids[: record.prompt_len], record.response_ids)]
    return list(dict.fromkeys(tokenizer.batch_decode(ids, skip_special_tokens=True)))
