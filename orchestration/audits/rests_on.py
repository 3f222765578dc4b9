"""What each audit of a language model rests on, told without computing anything: no network is imported here.

Whether an audit is kept is asked whenever a finished experiment is shown, and has to be answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from configs.audit import AuditName
from evaluation.side_effects.preferences import SentencePair, own_pairs
from evaluation.side_effects.refusing import ANSWER_TOKENS, PHRASES, own_requests
from orchestration.audits.finished import FinishedRun
from orchestration.audits.pair_files import read_pairs
from orchestration.audits.settings import AuditSettings
from orchestration.outputs.artifacts import digest_of

MEASURES: Mapping[AuditName, int] = {"privacy": 3, "bias": 1, "refusals": 1}
"""Raised by hand when a release measures the same run differently."""

TEST_VIEW = "teacher-test"
"""The view of the teacher's answers to the test prompts."""


def privacy_rests_on(run: FinishedRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of privacy is made from."""
    return {
        **_models(run),
        **{f"answers of {row.name}": digest_of(answers=row.answers) for row in run.results.models},
        "answers that students learn by": digest_of(answers=run.results.references),
        **{f"view {name}": digest for name, digest in run.views.items()},
        "settings": digest_of(pairs=settings.rows, measures=MEASURES["privacy"]),
    }


def bias_rests_on(run: FinishedRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of bias is made from."""
    pairs = [[pair.kind, pair.stereotyped, pair.other, pair.context] for pair in asked_pairs(settings)]
    return {
        **_models(run),
        **{f"view {name}": digest for name, digest in run.views.items() if name.startswith(TEST_VIEW)},
        "pairs of sentences": digest_of(pairs=pairs),
        "settings": digest_of(rows=settings.rows, measures=MEASURES["bias"]),
    }


def refusals_rest_on(run: FinishedRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of refusals is made from."""
    requests = [[each.kind, each.text] for each in own_requests()]
    data = run.config.data.model_dump(mode="json", exclude={"train", "dev", "test"})
    return {
        **_models(run),
        "requests": digest_of(requests=requests),
        "template": digest_of(data=data, date=run.config.data.date_of_templates.isoformat()),
        "settings": digest_of(measures=MEASURES["refusals"], tokens=ANSWER_TOKENS, phrases=PHRASES),
    }


def asked_pairs(settings: AuditSettings) -> tuple[SentencePair, ...]:
    """The pairs of sentences that come with this program, and those of the user's files."""
    return (*own_pairs(), *(pair for path in settings.pairs for pair in read_pairs(path)))


def _models(run: FinishedRun) -> dict[str, str]:
    return {f"model of {row.name}": row.digest for row in run.results.models}
