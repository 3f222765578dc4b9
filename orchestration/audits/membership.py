"""Membership inference against the students of a finished run, their teacher and what they began as.

Each training row stands beside a held-out row of its length (`evaluation.side_effects.membership`), and everybody is
asked about the same rows. What the teacher believes of them is in the cache; where it is not, its weights are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cache import ScoreRequest, TeacherRecord
from configs import DistillError
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.membership import (
    NamedScores,
    loss_score,
    matched,
    min_k_score,
    reference_score,
    told_apart,
    zlib_score,
)
from evaluation.side_effects.paired import Instrument
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import unknown_by
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import WORDS, Learned

MEANINGS = {
    "loss": "how likely the row is",
    "against the teacher": "how much likelier the row is than to the teacher",
    "against the start": "how much likelier the row is than to what the student began as",
    "zlib": "how likely the row is for a text that zlib shortens so much",
    "min-k": "how likely the least likely fifth of its tokens is",
}
"""By what a row is taken for a training row, for each score."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Matched rows, members first and then as many others: as sequences and as text, with what each model believes.

    Where the teacher or the start is not known, `why` says so by its name. `sizes` are bytes of the texts where models
    cut them into tokens of their own, so that what they believe is compared by the same text; else None.
    """

    members: int
    texts: tuple[str, ...]
    beliefs: Mapping[str, list[NDArray[np.float32]]]
    why: Mapping[str, str]
    sizes: tuple[int | None, ...]


def membership_findings(
    student: AuditedStudent,
    learned: Learned,
    *,
    run: FinishedRun,
    beliefs: Beliefs,
    tokenizer: PreTrainedTokenizerBase,
    pairs: int,
) -> tuple[list[Finding], list[str]]:
    """What every score tells of membership in one source of answers, and what a reader has to know of the rows.

    At most so many `pairs` of rows are looked at.

    Raises:
        ModelError: the student cannot be loaded, or cannot read a row.
    """
    what = f"membership ({WORDS[learned.source]})" if _several(student) else "membership"
    instruments = [(name, *membership_instruments(what, name)) for name in MEANINGS]
    kept = matched_rows(learned, at_most=pairs)
    if not kept:
        lacking = "no training row was read" if not learned.members else "the run kept no held-out row"
        why = f"{lacking} with {WORDS[learned.source]}"
        return unknown_by([each for _, *both in instruments for each in both], student, why=why), []
    told = None if learned.told is None else [learned.told[record.key] for record, _ in kept]
    rows = believed(kept, student=student, run=run, beliefs=beliefs, tokenizer=tokenizer, told=told)
    scores = scores_of(rows)
    findings = []
    for name, area, rate in instruments:
        findings += _findings(scores[name], area, rate, student=student, rows=rows, why=_why(name, rows))
    return findings, [_about(rows, kept, source=learned.source)]


def matched_rows(learned: Learned, *, at_most: int) -> list[tuple[TeacherRecord, int]]:
    """Rows that were learned, then as many others of their lengths, each with how many of its tokens count.

    Where a tokenizer of the student's own cuts a text its teacher's need not: whole answers are the same text to both.
    """
    chosen = matched(_lengths(learned.members), _lengths(learned.others), at_most=at_most)
    kept = [(learned.members[pair.member], pair.tokens) for pair in chosen]
    kept += [(learned.others[pair.other], pair.tokens) for pair in chosen]
    return kept if learned.told is None else [(record, record.response_len) for record, _ in kept]


def membership_instruments(what: str, name: str) -> tuple[Instrument, Instrument]:
    """The area and the rate of one score."""
    by = MEANINGS[name]
    area = (
        f"of a training row and a held-out row of its length, how often the training row is picked by {by}: 50 % if "
        "nothing of its training rows is left in it, 100 % if all can be told"
    )
    rate = f"training rows found by {by} where one held-out row in 100 is taken for one: 1 % if nothing is left of them"
    return (
        Instrument("privacy", f"{what}: {name}", "fraction", area),
        Instrument("privacy", f"{what}: {name}, found at 1 % false alarms", "fraction", rate),
    )


def _findings(
    scores: NamedScores, area: Instrument, rate: Instrument, *, student: AuditedStudent, rows: Rows, why: str | None
) -> list[Finding]:
    if why is not None:
        return unknown_by((area, rate), student, why=why)
    return told_apart(area, rate, scores, members=rows.members, model=student.name, method=student.method)


def scores_of(rows: Rows) -> dict[str, NamedScores]:
    """Every score of every row by whose belief it is; a model is not held against itself."""
    own = rows.beliefs

    def against(whom: str) -> NamedScores:
        reference = own.get(whom, [])
        return {
            who: [reference_score(*each) for each in zip(theirs, reference, rows.sizes, strict=True)]
            for who, theirs in own.items()
            if who != whom and reference
        }

    return {
        "loss": {who: list(map(loss_score, theirs, rows.sizes)) for who, theirs in own.items()},
        "against the teacher": against("teacher"),
        "against the start": against("untouched"),
        "zlib": {
            who: [zlib_score(*each) for each in zip(theirs, rows.texts, strict=True)] for who, theirs in own.items()
        },
        "min-k": {who: list(map(min_k_score, theirs)) for who, theirs in own.items()},
    }


def believed(
    kept: Sequence[tuple[TeacherRecord, int]],
    *,
    student: AuditedStudent,
    run: FinishedRun,
    beliefs: Beliefs,
    tokenizer: PreTrainedTokenizerBase,
    told: Sequence[TeacherRecord] | None = None,
) -> Rows:
    """What a student, its teacher and its start believe of rows as far as they count.

    `told` are the same rows in the teacher's tokens, where the student has others.

    Raises:
        ModelError: the student cannot be loaded, or cannot read a row.
    """
    sequences = [_request(record, tokens) for record, tokens in kept]
    believed = {"student": beliefs.of(student.model, sequences)}
    why = {}
    asked = kept if told is None else [(record, record.response_len) for record in told]
    of_teacher = [_request(record, tokens) for record, tokens in asked]
    cached = [(record.target_logprobs, tokens) for record, tokens in asked]
    if all(each is not None for each, _ in cached):
        believed["teacher"] = [each[:tokens] for each, tokens in cached if each is not None]
    elif run.why_no_teacher_weights is not None:
        why["teacher"] = f"the cache holds no log-probabilities of these rows, and {run.why_no_teacher_weights}"
    for who, model in (("teacher", run.teacher), ("untouched", student.start)):
        if who in believed or who in why:
            continue
        if model is None:
            why[who] = "what it began as was not compared"
            continue
        try:
            believed[who] = beliefs.of(model, of_teacher if who == "teacher" else sequences)
        except DistillError as error:
            why[who] = str(error)
    texts = tuple(tokenizer.decode(record.response_ids[:tokens], skip_special_tokens=True) for record, tokens in kept)
    sizes = [None if told is None else max(1, len(text.encode("utf-8", "surrogatepass"))) for text in texts]
    return Rows(len(kept) // 2, texts, believed, why, tuple(sizes))


def _request(record: TeacherRecord, tokens: int) -> ScoreRequest:
    return ScoreRequest(tuple(record.token_ids[: record.prompt_len + tokens].tolist()), record.prompt_len)


def _why(name: str, rows: Rows) -> str | None:
    """Why a score cannot be made."""
    return rows.why.get({"against the teacher": "teacher", "against the start": "untouched"}.get(name, ""))


def _about(rows: Rows, kept: Sequence[tuple[TeacherRecord, int]], *, source: str) -> str:
    tokens = [float(each) for _, each in kept]
    ended = [float(record.finish == "stop") for record, _ in kept]
    members, others = slice(0, rows.members), slice(rows.members, None)
    lengths = f"{np.mean(tokens[members]):.0f} tokens on average"
    if rows.sizes[0] is None:
        cut = f"cut to the same lengths ({lengths})"
    else:
        cut = f"whole, of nearly the same lengths ({lengths}, and {np.mean(tokens[others]):.0f})"
    return (
        f"membership was asked of {rows.members:,} training rows and as many held-out rows with {WORDS[source]}, "
        f"{cut}, with the same template; "
        f"{np.mean(ended[members]):.0%} and {np.mean(ended[others]):.0%} of them had been answered to the end"
    )


def _lengths(records: Sequence[TeacherRecord]) -> list[int]:
    return [record.response_len for record in records]


def _several(student: AuditedStudent) -> bool:
    return len({stage.source for stage in student.settings.stages if stage.source in WORDS}) > 1
