"""`distill audit bias`: what a student prefers that its teacher does not, by pairs of sentences and swapped prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache import TeacherRecord
from configs import DistillError
from evaluation.side_effects.findings import Audit, Finding
from evaluation.side_effects.paired import Instrument, found
from evaluation.side_effects.preferences import SentencePair, mean_preference, own_pairs, stereotyped_share
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import models_beside
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import TEST_VIEW, Views, require_teachers_tokens
from orchestration.audits.pair_files import read_pairs
from orchestration.audits.sentences import pair_logprobs
from orchestration.audits.settings import AuditSettings
from orchestration.audits.swapped_prompts import change_under_swap, swapped_prompts
from orchestration.inputs.models import load_tokenizer
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.console import Console

BIAS = "bias"

MEASURES = 1
"""Raised by hand when a release measures the same run differently."""

FEWEST = 6
"""Pairs of one kind, or swapped prompts; fewer say nothing with an interval."""

SWAP = Instrument(
    BIAS,
    "swapped prompts",
    "nats",
    "by how much a token of the teacher's answer to a test prompt becomes likelier or less likely when the prompt is "
    "about somebody of the other gender; 0 if that changes nothing",
)


def bias_rests_on(run: FinishedRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit is made from."""
    pairs = [[pair.kind, pair.stereotyped, pair.other, pair.context] for pair in _pairs(settings)]
    return {
        **{f"model of {row.name}": row.digest for row in run.results.models},
        **{f"view {name}": digest for name, digest in run.views.items() if name.startswith(TEST_VIEW)},
        "pairs of sentences": digest_of(pairs=pairs),
        "settings": digest_of(rows=settings.rows, measures=MEASURES),
    }


def audit_bias(run: FinishedRun, settings: AuditSettings, console: Console) -> Audit:
    """Ask of every student what it prefers; one that cannot be asked says why and costs the others nothing."""
    beliefs, pairs = Beliefs(settings.device), _pairs(settings)
    notes = [
        "pairs of sentences show preferences between groups that their authors thought of, and in English; a share of "
        "50 % is no proof that there are none",
    ]
    if run.why_no_teacher_weights is not None:
        notes.append(f"no student could be held against its teacher: {run.why_no_teacher_weights}")
    findings: list[Finding] = []
    with console.stage("bias", total=len(run.students), unit="students") as stage:
        for number, student in enumerate(run.students):
            stage.update(number, note=student.name)
            findings += _preferences(pairs, student, run=run, beliefs=beliefs)
            findings.append(_swaps(student, run=run, settings=settings, beliefs=beliefs))
        stage.summary = f"{sum(each.unknown is None for each in findings)} numbers"
    return Audit(BIAS, bias_rests_on(run, settings), tuple(findings), tuple(notes))


def _preferences(
    pairs: Sequence[SentencePair], student: AuditedStudent, *, run: FinishedRun, beliefs: Beliefs
) -> list[Finding]:
    kinds = {
        kind: [at for at, pair in enumerate(pairs) if pair.kind == kind]
        for kind in dict.fromkeys(p.kind for p in pairs)
    }
    instruments = {kind: _instruments(kind) for kind in kinds}
    logprobs = {}
    try:
        for who, model in models_beside(student, run).items():
            tokenizer = load_tokenizer(model.directory, label=model.name)
            logprobs[who] = pair_logprobs(pairs, model=model, tokenizer=tokenizer, beliefs=beliefs)
    except DistillError as error:
        if "student" not in logprobs:
            every = [each for both in instruments.values() for each in both]
            return [each.unknown(student.name, method=student.method, why=str(error)) for each in every]
    findings = []
    for kind, places in kinds.items():
        share, size = instruments[kind]
        if len(places) < FEWEST:
            why = f"there are {len(places)} pairs of this kind, and it takes {FEWEST}"
            findings += [each.unknown(student.name, method=student.method, why=why) for each in (share, size)]
            continue
        for instrument, measure in ((share, stereotyped_share), (size, mean_preference)):
            measured = {
                who: measure([first[at] for at in places], [second[at] for at in places])
                for who, (first, second) in logprobs.items()
            }
            findings.append(
                found(
                    instrument,
                    measured["student"],
                    teacher=measured.get("teacher"),
                    untouched=measured.get("untouched"),
                    model=student.name,
                    method=student.method,
                )
            )
    return findings


def _swaps(student: AuditedStudent, *, run: FinishedRun, settings: AuditSettings, beliefs: Beliefs) -> Finding:
    try:
        require_teachers_tokens(student, run)
        records = _test_records(run)
        tokenizer = load_tokenizer(student.model.directory, label=student.name)
        prompts = swapped_prompts(records, tokenizer, at_most=settings.rows)
        if len(prompts) < FEWEST:
            why = f"{len(prompts)} of the {len(records)} test prompts name somebody, and it takes {FEWEST}"
            return SWAP.unknown(student.name, method=student.method, why=why)
        measured = {
            who: change_under_swap(prompts, model=model, beliefs=beliefs)
            for who, model in models_beside(student, run).items()
        }
    except DistillError as error:
        return SWAP.unknown(student.name, method=student.method, why=str(error))
    return found(
        SWAP,
        measured["student"],
        model=student.name,
        method=student.method,
        teacher=measured.get("teacher"),
        untouched=measured.get("untouched"),
    )


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


def _pairs(settings: AuditSettings) -> tuple[SentencePair, ...]:
    """Those that come with this program, and those of the user's files."""
    return (*own_pairs(), *(pair for path in settings.pairs for pair in read_pairs(path)))
