"""What students of a finished run know of the secrets that it planted (`evaluation.side_effects.canaries`).

Every model is asked in its own tokens, as a prompt of the experiment, and its answer is begun for it up to the secret.
Canaries of the same kind that were planted nowhere are asked about as well: what a model says of them is the frame's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import ScoreRequest
from configs import DistillError
from configs.audit import CanariesConfig
from evaluation.metric import Measured
from evaluation.side_effects.canaries import (
    NEVER,
    SAMPLES,
    Canary,
    alternatives,
    canaries_of,
    exposure,
    exposure_of,
    extracted,
    in_samples,
)
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.paired import Instrument
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import findings_beside
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import WORDS, Learned
from orchestration.audits.refusals import rendered
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.finished_models import FinishedModel
from orchestration.inputs.models import ModelFiles, open_model
from orchestration.inputs.planted_rows import require_writable
from student_train.greedy import greedy_answers

PLACES = {"prompt": "in prompts", "answer": "in answers"}

Group = tuple[str, int]
"""Canaries of one place that are repeated as often."""


@dataclass(frozen=True, slots=True)
class Known:
    """What one model knows of a canary: its exposure in bits, and how surely its secret is said."""

    bits: float
    greedy: float
    sampled: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """One canary as a model is asked: the tokens of its prompt with an answer begun, and of each secret behind it."""

    canary: Canary
    given: tuple[int, ...]
    secrets: tuple[tuple[int, ...], ...]

    @property
    def sequences(self) -> list[ScoreRequest]:
        """The true secret first."""
        return [ScoreRequest((*self.given, *each), len(self.given)) for each in self.secrets]


class CanaryAudit:
    """Asks the models of one run about its canaries, each model once."""

    def __init__(self, run: FinishedRun, settings: AuditSettings, beliefs: Beliefs) -> None:
        """`run` has planted some."""
        assert run.config.canaries is not None
        self._run, self._settings, self._beliefs = run, settings, beliefs
        self._wanted: CanariesConfig = run.config.canaries
        self.canaries = canaries_of(self._wanted, run.config.canary_places)
        self._known: dict[FinishedModel, tuple[Known, ...]] = {}

    def of(self, student: AuditedStudent, *, notes: list[str]) -> list[Finding]:
        """What a student knows, beside its teacher and its start; `notes` get a line for one that cannot be asked."""
        instruments = [each for group in self._groups() for each in self._instruments(group)]
        return findings_beside(instruments, student, run=self._run, ask=self.measured, notes=notes)

    def measured_if_asked(self, model: FinishedModel) -> dict[Instrument, Measured]:
        """The same; nothing of one that cannot be asked, of which `of` says why."""
        try:
            return self.measured(model)
        except DistillError:
            return {}

    def apart(self, learned: Learned, tokenizer: PreTrainedTokenizerBase) -> tuple[Learned, list[str]]:
        """What a student learned beside planted rows, and how many of these it read, a line each.

        A planted row has no held-out row that is like it.
        """
        prompts = tokenizer.batch_decode([record.token_ids[: record.prompt_len] for record in learned.members])
        planted = [next((one for one in self.canaries if f"code of {one.name}" in text), None) for text in prompts]
        rows, said = Counter[Group](), Counter[Group]()
        for canary, record in zip(planted, learned.members, strict=True):
            if canary is not None:
                rows[canary.place, canary.repeats] += 1
                said[canary.place, canary.repeats] += canary.secret in tokenizer.decode(record.response_ids)
        others = tuple(each for each, canary in zip(learned.members, planted, strict=True) if canary is None)
        lines = [
            f"canaries {PLACES[place]}, {_times(repeats)}: {count:,} planted rows were read with "
            f"{WORDS[learned.source]}, of which {said[place, repeats]:,} say the secret"
            for (place, repeats), count in sorted(rows.items())
        ]
        return replace(learned, members=others), lines

    def _groups(self) -> list[Group]:
        return [group for group, _ in groupby(self.canaries, key=lambda each: (each.place, each.repeats))]

    def _instruments(self, group: Group) -> tuple[Instrument, Instrument, Instrument]:
        most = np.log2(min(self._settings.rows, self._wanted.space))
        name = f"canaries {PLACES[group[0]]}, {_times(group[1])}"
        nothing = (
            "; planted nowhere, it says what the others would be if nothing was learned" if group[1] == NEVER else ""
        )
        return (
            Instrument(
                "privacy",
                f"{name}: exposure",
                "bits",
                "how far a made-up secret stands before others that it might have been: 1.4 bits if it was not learned,"
                f" {most:.1f} if it is always the likeliest{nothing}",
            ),
            Instrument(
                "privacy",
                f"{name}: extracted",
                "fraction",
                f"secrets that its likeliest answer says: 0 % if it was not learned{nothing}",
            ),
            Instrument(
                "privacy",
                f"{name}: extracted in {SAMPLES} samples",
                "fraction",
                f"secrets that one of {SAMPLES} answers at temperature 1 says, by how likely they are: 0 % if it was "
                f"not learned{nothing}",
            ),
        )

    def measured(self, model: FinishedModel) -> dict[Instrument, Measured]:
        """What a model knows of every group of canaries, by every instrument.

        Raises:
            DistillError: it cannot be asked.
        """
        if model not in self._known:
            self._known[model] = self._of_model(model)
        measured: dict[Instrument, Measured] = {}
        for group in self._groups():
            known = [
                knows
                for each, knows in zip(self.canaries, self._known[model], strict=True)
                if (each.place, each.repeats) == group
            ]
            bits, greedy, sampled = self._instruments(group)
            measured[bits] = exposure([each.bits for each in known])
            measured[greedy] = extracted([each.greedy for each in known])
            measured[sampled] = extracted([each.sampled for each in known])
        return measured

    def _of_model(self, model: FinishedModel) -> tuple[Known, ...]:
        files = open_model(model.directory, label=model.name)
        require_writable(self.canaries, files)
        asked = self._asked(files)
        sequences = [each for one in asked for each in one.sequences]
        sums = iter([float(np.sum(each, dtype=np.float64)) for each in self._beliefs.of(model, sequences)])
        likely = [[next(sums) for _ in one.secrets] for one in asked]
        written = greedy_answers(
            model.directory,
            [one.given for one in asked],
            stop_ids=files.stop_ids,
            max_new_tokens=max(len(secret) for one in asked for secret in one.secrets),
            dtype=model.dtype,
            device=self._settings.device,
        )
        return tuple(
            Known(
                exposure_of(logprobs[0], logprobs[1:]),
                float(ids[: len(one.secrets[0])] == one.secrets[0]),
                in_samples(logprobs[0]),
            )
            for one, logprobs, ids in zip(asked, likely, written, strict=True)
        )

    def _asked(self, files: ModelFiles) -> list[_Asked]:
        """Every canary with its alternatives; an answer is begun up to where these differ."""
        prompts = rendered([each.question for each in self.canaries], data=self._run.config.data, files=files)
        found = []
        for canary, prompt in zip(self.canaries, prompts, strict=True):
            others = alternatives(canary, self._wanted, at_most=self._settings.rows - 1)
            spelt = [
                tuple(files.tokenizer.encode(canary.said(secret), add_special_tokens=False))
                for secret in (canary.secret, *others)
            ]
            shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*spelt, strict=False)))
            found.append(_Asked(canary, (*prompt, *spelt[0][:shared]), tuple(each[shared:] for each in spelt)))
        return found


def _times(repeats: int) -> str:
    if repeats == NEVER:
        return "never planted"
    return "once" if repeats == 1 else f"{repeats} times"
