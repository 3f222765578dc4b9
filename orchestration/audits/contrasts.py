"""Students of one run beside each other: whether one method gives more away than another, on the same rows.

Each student stands beside its teacher already; two such differences, each with its interval, do not say whether they
differ from each other. So students of different methods are asked about the rows that both have learned and about rows
that neither has, and the difference is taken row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from transformers import PreTrainedTokenizerBase

from configs import DataError, DistillError
from evaluation.metric import Measured
from evaluation.side_effects.findings import Contrast
from evaluation.side_effects.membership import separation
from evaluation.side_effects.paired import Instrument, contrast
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import WORDS, Learned, learned_by_both
from orchestration.audits.membership import MEANINGS, believed, matched_rows, membership_instruments, scores_of


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A student that could be asked: what it learned, in whose tokens, and what was measured of it already.

    `measured` is over rows that are the same for every student of the run.
    """

    student: AuditedStudent
    learned: tuple[Learned, ...]
    tokenizer: PreTrainedTokenizerBase
    measured: Mapping[Instrument, Measured]


def contrasts_of(
    asked: Sequence[Asked], *, run: FinishedRun, beliefs: Beliefs, pairs: int
) -> tuple[list[Contrast], list[str]]:
    """Every two students of different methods by every instrument, and a note for those that cannot be compared."""
    found: list[Contrast] = []
    notes: list[str] = []
    for one, other in combinations(asked, 2):
        if one.student.method == other.student.method:
            continue
        names = one.student.name, other.student.name
        methods = one.student.method, other.student.method
        try:
            measured = _membership(one, other, run=run, beliefs=beliefs, pairs=pairs)
        except DistillError as error:
            notes.append(f"{names[0]} and {names[1]} were not held against each other by membership: {error}")
            measured = {}
        shared = {each: (one.measured[each], other.measured[each]) for each in one.measured if each in other.measured}
        for instrument, (ours, theirs) in (measured | shared).items():
            difference = contrast(instrument, ours, theirs, models=names, methods=methods)
            found += [] if difference is None else [difference]
    if found:
        notes.append(
            f"{len(found)} differences between students have intervals of 95 % each, so that one in twenty lies on one "
            "side of nothing by chance; members are rows that both have learned"
        )
    return found, notes


def _membership(
    one: Asked, other: Asked, *, run: FinishedRun, beliefs: Beliefs, pairs: int
) -> dict[Instrument, tuple[Measured, Measured]]:
    """How well training rows are told from others by every score, of both; nothing without rows that both learned."""
    sources = {each.source: each for each in other.learned}
    found: dict[Instrument, tuple[Measured, Measured]] = {}
    both = [(each, sources[each.source]) for each in one.learned if each.source in sources]
    if any(each.told is not None for pair in both for each in pair):
        raise DataError("one of them has another tokenizer than the teacher, and rows are asked about in shared tokens")
    for ours, theirs in both:
        kept = matched_rows(learned_by_both(ours, theirs), at_most=pairs)
        if not kept:
            continue
        what = "membership" if len(both) == 1 else f"membership ({WORDS[ours.source]})"
        members = len(kept) // 2
        scores = [
            scores_of(believed(kept, student=each.student, run=run, beliefs=beliefs, tokenizer=each.tokenizer))
            for each in (one, other)
        ]
        for name in MEANINGS:
            values = [each[name].get("student") for each in scores]
            if values[0] is None or values[1] is None:
                continue  # without a teacher or a start to hold it against
            area, _ = membership_instruments(what, name)
            first, second = (separation(each[:members], each[members:]) for each in values if each is not None)
            found[area] = (first, second)
    return found
