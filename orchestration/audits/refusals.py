"""`distill audit refusals`: what a student still refuses, and what it refuses for nothing, beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs import DataError
from configs.audit import AuditName
from configs.data import DataConfig
from evaluation.metric import Measured
from evaluation.side_effects.findings import Audit, Finding
from evaluation.side_effects.paired import Instrument
from evaluation.side_effects.refusing import ANSWER_TOKENS, KINDS, Kind, Request, own_requests, refused_share
from orchestration.audits.beside import findings_beside
from orchestration.audits.finished import FinishedRun
from orchestration.audits.rests_on import refusals_rest_on
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.finished_models import FinishedModel
from orchestration.inputs.models import ModelFiles, open_model
from orchestration.inputs.prompt_reader import PromptReader, control_tokens
from orchestration.inputs.prompts import Prompt
from orchestration.inputs.templates import ChatTemplates
from orchestration.outputs.console import ProgressSink
from student_train.greedy import greedy_answers

REFUSALS: AuditName = "refusals"

INSTRUMENTS: Mapping[Kind, Instrument] = {
    "harmful": Instrument(
        REFUSALS,
        "refused: harmful requests",
        "fraction",
        "requests that do harm, of which the answer begins with a refusal; less than the teacher means that refusing "
        "was lost",
    ),
    "harmless": Instrument(
        REFUSALS,
        "refused: harmless requests",
        "fraction",
        "harmless requests that sound alike, of which the answer begins with a refusal; more than the teacher means "
        "that it refuses for nothing",
    ),
}

Answers = Mapping[Kind, Sequence[str]]


def audit_refusals(run: FinishedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Put requests to every student, its teacher and its start; who cannot answer costs the others nothing."""
    notes = [
        "requests and refusals are in English, the answers greedy, and only their first "
        f"{ANSWER_TOKENS} tokens are read; what an answer that does not refuse is worth was not looked at",
    ]
    if run.why_no_teacher_weights is not None:
        notes.append(f"no student could be held against its teacher: {run.why_no_teacher_weights}")
    answered: dict[FinishedModel, Answers] = {}

    def ask(model: FinishedModel) -> dict[Instrument, Measured]:
        if model not in answered:
            answered[model] = _answers(model, data=run.config.data, settings=settings)
        return {instrument: refused_share(answered[model][kind]) for kind, instrument in INSTRUMENTS.items()}

    findings: list[Finding] = []
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        findings += findings_beside(tuple(INSTRUMENTS.values()), student, run=run, ask=ask, notes=notes)
    return Audit(REFUSALS, refusals_rest_on(run, settings), tuple(findings), tuple(dict.fromkeys(notes)))


def _answers(model: FinishedModel, *, data: DataConfig, settings: AuditSettings) -> Answers:
    """What a model answers to all requests, as prompts of the experiment are put to it."""
    files, requests = open_model(model.directory, label=model.name), own_requests()
    prompts = rendered([each.text for each in requests], data=data, files=files)
    written = greedy_answers(
        model.directory,
        prompts,
        stop_ids=files.stop_ids,
        max_new_tokens=min(ANSWER_TOKENS, files.shape.max_positions - max(map(len, prompts))),
        dtype=model.dtype,
        device=settings.device,
    )
    texts = files.tokenizer.batch_decode([list(ids) for ids in written], skip_special_tokens=True)
    return {kind: _of_kind(kind, requests, texts) for kind in KINDS}


def _of_kind(kind: Kind, requests: Sequence[Request], texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for request, text in zip(requests, texts, strict=True) if request.kind == kind)


def rendered(texts: Sequence[str], *, data: DataConfig, files: ModelFiles) -> list[tuple[int, ...]]:
    """Texts as prompts of the experiment, in the tokens of a model.

    Raises:
        DataError: the template cannot make a prompt of one, or it leaves no room for an answer.
    """
    # As a row of the experiment would be that holds nothing but a question.
    plain = data.model_copy(update={"response_field": None, "tools_field": None})
    rows = [
        {plain.prompt_field: text}
        if plain.messages_field is None
        else {plain.messages_field: [{"role": "user", "content": text}]}
        for text in texts
    ]
    found = []
    with ChatTemplates(plain, files.tokenizer, student=files.label) as templates:
        reader = PromptReader("audit", plain, files.tokenizer, templates, 0, control_tokens(files.tokenizer), None)
        for _, _, outcome in reader.prompts(enumerate(rows)):
            if not isinstance(outcome, Prompt):
                raise DataError(f"a request cannot be put to {files.label}: {outcome}")
            if len(outcome.prompt_ids) >= files.shape.max_positions:
                raise DataError(
                    f"a request takes {len(outcome.prompt_ids):,} tokens and {files.label} reads "
                    f"{files.shape.max_positions:,}: it cannot answer"
                )
            found.append(outcome.prompt_ids)
    return found
