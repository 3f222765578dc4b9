"""`distill audit bias`: what a student prefers that its teacher does not, by pairs of sentences and swapped prompts."""

from __future__ import annotations

from collections.abc import Sequence

from cache import TeacherRecord
from configs import DataError, DistillError
from configs.audit import AuditName
from evaluation.metric import Measured
from evaluation.side_effects.findings import Audit, Finding
from evaluation.side_effects.paired import Instrument
from evaluation.side_effects.preferences import SentencePair, mean_preference, stereotyped_share
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import findings_beside, unknown_by
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import Views, has_own_tokens
from orchestration.audits.own_tokens import OwnTokens
from orchestration.audits.rests_on import TEST_VIEW, asked_pairs, bias_rests_on
from orchestration.audits.sentences import pair_logprobs
from orchestration.audits.settings import AuditSettings
from orchestration.audits.swapped_prompts import SwappedPrompt, change_under_swap, swapped_in_both, swapped_prompts
from orchestration.comparison.finished_models import FinishedModel
from orchestration.inputs.models import load_tokenizer
from orchestration.outputs.console import ProgressSink

BIAS: AuditName = "bias"

FEWEST = 6
"""Pairs of one kind, or swapped prompts; fewer say nothing with an interval."""

SWAP = Instrument(
    BIAS,
    "swapped prompts",
    "nats",
    "by how much a token of the teacher's answer to a test prompt becomes likelier or less likely when the prompt is "
    "about somebody of the other gender; 0 if that changes nothing",
)


SWAP_BY_BYTE = Instrument(
    BIAS,
    "swapped prompts, by byte",
    "nats",
    "by how much the teacher's answer to a test prompt becomes likelier or less likely as a whole, for each byte of "
    "it, when the prompt is about somebody of the other gender; 0 if that changes nothing",
)
"""Of a student whose tokens are not its teacher's: both are asked about the same text, each in its own tokens."""


def audit_bias(run: FinishedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Ask of every student what it prefers; one that cannot be asked says why and costs the others nothing."""
    beliefs, pairs = Beliefs(settings.device), asked_pairs(settings)
    notes = [
        "pairs of sentences show preferences between groups that their authors thought of, and in English; a share of "
        "50 % is no proof that there are none",
    ]
    if run.why_no_teacher_weights is not None:
        notes.append(f"no student could be held against its teacher: {run.why_no_teacher_weights}")
    findings: list[Finding] = []
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        findings += _preferences(pairs, student, run=run, beliefs=beliefs, notes=notes)
        findings += _swaps(student, run=run, settings=settings, beliefs=beliefs, notes=notes)
    return Audit(BIAS, bias_rests_on(run, settings), tuple(findings), tuple(dict.fromkeys(notes)))


def _preferences(
    pairs: Sequence[SentencePair], student: AuditedStudent, *, run: FinishedRun, beliefs: Beliefs, notes: list[str]
) -> list[Finding]:
    kinds = {
        kind: [at for at, pair in enumerate(pairs) if pair.kind == kind]
        for kind in dict.fromkeys(p.kind for p in pairs)
    }
    enough = {kind: places for kind, places in kinds.items() if len(places) >= FEWEST}
    instruments = {kind: _instruments(kind) for kind in kinds}

    def ask(model: FinishedModel) -> dict[Instrument, Measured]:
        tokenizer = load_tokenizer(model.directory, label=model.name)
        sides = pair_logprobs(pairs, model=model, tokenizer=tokenizer, beliefs=beliefs)
        measured = {}
        for kind, places in enough.items():
            first, second = ([side[at] for at in places] for side in sides)
            for instrument, measure in zip(instruments[kind], (stereotyped_share, mean_preference), strict=True):
                measured[instrument] = measure(first, second)
        return measured

    asked = [each for kind in enough for each in instruments[kind]]
    findings = findings_beside(asked, student, run=run, ask=ask, notes=notes)
    for kind, places in kinds.items():
        if kind not in enough:
            why = f"there are {len(places)} pairs of this kind, and it takes {FEWEST}"
            findings += unknown_by(instruments[kind], student, why=why)
    return findings


def _swaps(
    student: AuditedStudent, *, run: FinishedRun, settings: AuditSettings, beliefs: Beliefs, notes: list[str]
) -> list[Finding]:
    own = has_own_tokens(student, run)
    instrument = SWAP_BY_BYTE if own else SWAP
    try:
        prompts, told = _named_prompts(student, run=run, settings=settings, own=own)
    except DistillError as error:
        return unknown_by([instrument], student, why=str(error))

    def ask(model: FinishedModel) -> dict[Instrument, Measured]:
        asked = told if model == run.teacher else prompts
        return {instrument: change_under_swap(asked, model=model, beliefs=beliefs)}

    return findings_beside([instrument], student, run=run, ask=ask, notes=notes)


def _named_prompts(
    student: AuditedStudent, *, run: FinishedRun, settings: AuditSettings, own: bool
) -> tuple[tuple[SwappedPrompt, ...], tuple[SwappedPrompt, ...]]:
    """The test prompts that name somebody: in the student's tokens, and the same in the teacher's.

    Raises:
        DistillError: too few name somebody, or they cannot be put into the student's tokens.
    """
    records = _test_records(run)
    tokenizer = load_tokenizer(student.model.directory, label=student.name)
    if own:
        both = swapped_in_both(records, OwnTokens.of(student, run), at_most=settings.rows)
    else:
        prompts = swapped_prompts(records, tokenizer, at_most=settings.rows)
        both = prompts, prompts
    if len(both[0]) < FEWEST:
        raise DataError(f"{len(both[0])} of the {len(records)} test prompts name somebody, and it takes {FEWEST}")
    return both


def _instruments(kind: str) -> tuple[Instrument, Instrument]:
    return (
        Instrument(
            BIAS,
            f"pairs: {kind}",
            "fraction",
            "pairs of sentences of which the one that says what people often say of a group is likelier than the same "
            "about another group: 50 % without a preference",
        ),
        Instrument(
            BIAS,
            f"pairs: {kind}, size",
            "nats",
            "by how much that sentence is likelier, on average: 0 without a preference",
        ),
    )


def _test_records(run: FinishedRun) -> Sequence[TeacherRecord]:
    views = Views(run, "")
    path = views.path(TEST_VIEW)
    return () if path is None else views.open(path)[1]
