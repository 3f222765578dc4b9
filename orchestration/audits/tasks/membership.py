"""Membership inference against students of a task, their teacher and what they began as, by what they say of labels.

An attacker who knows the label of a row asks how likely the model finds it (Yeom et al. 2018, arXiv 1709.01604), one
who does not how sure the model is of anything (Salem et al. 2019, arXiv 1806.01246), and one who has another model how
much likelier it is than to that one (Carlini et al. 2022, arXiv 2112.03570). A student that learns a teacher's beliefs
may give away the rows that it learned them on even where it never saw their labels (Jagielski et al. 2023, arXiv
2303.03446). Training rows stand beside held-out ones of their label and about their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs import DataError, DistillError
from configs.task import TaskKind
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.membership import FEWEST_OTHERS, NamedScores, matched, told_apart
from evaluation.side_effects.paired import Instrument
from orchestration.audits.tasks.beliefs import LabelBeliefs, Logits
from orchestration.audits.tasks.finished import AuditedTaskStudent, FinishedTaskRun, HeadModel
from orchestration.audits.tasks.learned import AskedRow, LearnedRows, TaughtRow, lesson_row
from orchestration.audits.tasks.scores import belief_score, certainty, label_score
from orchestration.inputs.task_examples import Beliefs, make_examples
from orchestration.inputs.task_texts import ReadExample, decision_labels
from student_train.feed.examples import UNKNOWN

LABEL, TAUGHT = "the right label", "what the teacher believes"
"""What of a row a student may have learned."""

MEANINGS = {
    "loss": "how likely the model finds {learned}",
    "confidence": "how sure the model is of its own answer",
    "against the teacher": "how much likelier the model finds {learned} than its teacher does",
    "against the start": "how much likelier the model finds {learned} than what it began as does",
    "loss on the teacher's belief": "how likely the model finds what its teacher believes",
}
"""By what a row is taken for a training row, for each score."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Matched rows, members first and then as many others, and what is asked of them; `what` names them."""

    what: str
    rows: tuple[AskedRow, ...]
    learned: str
    scores: tuple[str, ...]

    @property
    def members(self) -> int:
        """How many of the rows are members."""
        return len(self.rows) // 2


def asked_rows(learned: LearnedRows, *, kind: TaskKind, pairs: int) -> list[Asked]:
    """What is asked of a student: about labelled rows, and about rows of which only a teacher's belief was learned.

    At most so many `pairs` of each are looked at.
    """
    both = bool(learned.labelled) and bool(learned.unlabelled)
    found = []
    if learned.labelled:
        others = [row for row in learned.others if UNKNOWN not in row.read.gold]
        members = [row for row in learned.labelled if UNKNOWN not in row.read.gold]
        rows = _pairs(
            members, others, label=lambda row: row.read.gold[0] if kind == "classification" else 0, pairs=pairs
        )
        scores = [name for name in MEANINGS if learned.taught or name != "loss on the teacher's belief"]
        found.append(Asked("membership (labelled rows)" if both else "membership", rows, LABEL, tuple(scores)))
    if learned.unlabelled:
        # What an engine computed and what is computed here differ by roundings: rows of one source are compared, where
        # there are enough of them.
        asked = [row for row in learned.others if row.taught is not None]
        others = asked if len(asked) >= FEWEST_OTHERS else list(learned.others)
        rows = _pairs(learned.unlabelled, others, label=lambda row: _believed_label(row, kind), pairs=pairs)
        scores = [name for name in MEANINGS if name != "loss on the teacher's belief"]
        found.append(Asked("membership (unlabelled rows)" if both else "membership", rows, TAUGHT, tuple(scores)))
    return found


def _believed_label(row: AskedRow, kind: TaskKind) -> int:
    """The label that the teacher finds likeliest; where nobody has asked it yet, the right one stands for it."""
    if kind != "classification":
        return 0
    return row.read.gold[0] if row.taught is None else int(row.taught.belief[0].argmax())


def _pairs(
    members: Sequence[AskedRow], others: Sequence[AskedRow], *, label: Callable[[AskedRow], int], pairs: int
) -> tuple[AskedRow, ...]:
    """Members and then as many others: of each label as many, of about the same lengths."""
    by_label: dict[int, tuple[list[AskedRow], list[AskedRow]]] = {}
    for side, rows in enumerate((members, others)):
        for row in rows:
            by_label.setdefault(label(row), ([], []))[side].append(row)
    found = []
    for here, beside in by_label.values():
        lengths = [[len(row.read.token_ids) for row in rows] for rows in (here, beside)]
        found += [(here[pair.member], beside[pair.other]) for pair in matched(*lengths, at_most=pairs)]
    drawn = np.random.default_rng(0).permutation(len(found))[:pairs]
    return (*(found[at][0] for at in drawn), *(found[at][1] for at in drawn))


def membership_findings(
    student: AuditedTaskStudent, asked: Asked, *, run: FinishedTaskRun, beliefs: LabelBeliefs
) -> list[Finding]:
    """What every score tells of membership in one kind of rows.

    Raises:
        ModelError: the student cannot be loaded.
    """
    whose = {"model": student.name, "method": student.method}
    instruments = {name: _instruments(asked, name) for name in asked.scores}
    if not asked.rows:
        why = "no held-out row has a label of its training rows"
        return [
            each.unknown(student.name, method=student.method, why=why) for both in instruments.values() for each in both
        ]
    scores, why_not = _scores(student, asked, run=run, beliefs=beliefs)
    findings: list[Finding] = []
    for name, (area, rate) in instruments.items():
        if name in why_not:
            findings += [each.unknown(student.name, method=student.method, why=why_not[name]) for each in (area, rate)]
            continue
        findings += told_apart(area, rate, scores[name], members=asked.members, **whose)
    return findings


def about_rows(asked: Asked) -> str:
    """What a reader has to know of the rows that were asked about."""
    tokens = [float(len(row.read.token_ids)) for row in asked.rows]
    middle = asked.members
    return (
        f"{asked.what} was asked of {middle:,} training rows and as many held-out rows of the same labels, "
        f"{np.mean(tokens[:middle]):.1f} and {np.mean(tokens[middle:]):.1f} tokens long on average"
    )


def _instruments(asked: Asked, name: str) -> tuple[Instrument, Instrument]:
    by = MEANINGS[name].format(learned=asked.learned)
    area = (
        f"of a training row and a held-out row, how often the training row is picked by {by}: 50 % if nothing of its "
        "training rows is left in it, 100 % if all can be told"
    )
    rate = f"training rows found by {by} where one held-out row in 100 is taken for one: 1 % if nothing is left of them"
    return (
        Instrument("privacy", f"{asked.what}: {name}", "fraction", area),
        Instrument("privacy", f"{asked.what}: {name}, found at 1 % false alarms", "fraction", rate),
    )


def _scores(
    student: AuditedTaskStudent, asked: Asked, *, run: FinishedTaskRun, beliefs: LabelBeliefs
) -> tuple[dict[str, NamedScores], dict[str, str]]:
    """Every score of every row by whose belief it is, and why there is none of a name."""
    teller = _Teller(asked, run=run, beliefs=beliefs)
    losses, sure, taught = dict[str, list[float]](), dict[str, list[float]](), dict[str, list[float]]()
    why: dict[str, str] = {}
    models = {"student": student.model, "untouched": student.start}
    for who, model in models.items():
        if model is not None:
            losses[who], sure[who] = teller.of(model)
    if student.start is None:
        why["against the start"] = "what it began as had no head for this task"
    try:
        losses["teacher"], sure["teacher"] = teller.of_teacher()
    except DistillError as error:
        why["against the teacher"] = str(error)
    if "loss on the teacher's belief" in asked.scores:
        try:
            taught = {who: teller.on_belief(model) for who, model in models.items() if model is not None}
            taught["teacher"] = teller.on_belief(None)
        except DistillError as error:
            why["loss on the teacher's belief"] = str(error)

    def against(whom: str) -> NamedScores:
        return {
            who: [one - other for one, other in zip(each, losses[whom], strict=True)]
            for who, each in losses.items()
            if who != whom and whom in losses
        }

    scores: dict[str, NamedScores] = {"loss": losses, "confidence": sure, "loss on the teacher's belief": taught}
    return scores | {"against the teacher": against("teacher"), "against the start": against("untouched")}, why


class _Teller:
    """Asks models about the rows that are asked about."""

    def __init__(self, asked: Asked, *, run: FinishedTaskRun, beliefs: LabelBeliefs) -> None:
        self._asked, self._run, self._beliefs = asked, run, beliefs
        self._kind = run.task.config.kind
        self._taught: list[TaughtRow] | None = None

    def of(self, model: HeadModel) -> tuple[list[float], list[float]]:
        """Of each row how likely a model with the student's tokenizer finds what was learned, and how sure it is."""
        if self._asked.learned == TAUGHT:
            logits = self._beliefs.of_read(model, [row.read for row in self.taught])
            return self.on_belief(model), self._sure(logits)
        logits = self._beliefs.of_read(model, [row.read for row in self._asked.rows])
        return self._on_labels(logits, [row.read for row in self._asked.rows]), self._sure(logits)

    def of_teacher(self) -> tuple[list[float], list[float]]:
        """The same of the teacher, who reads texts in its own way.

        Raises:
            DataError: it can be asked nothing, and what it believes of these rows is not kept.
        """
        if self._asked.learned == TAUGHT:
            return self.on_belief(None), self._sure([row.belief for row in self.taught])
        if self._run.teacher is not None:
            examples = [row.example for row in self._asked.rows if row.example is not None]
            read = self._beliefs.read(self._run.teacher, examples)
            logits = self._beliefs.of_read(self._run.teacher, read)
            if all(UNKNOWN not in each.gold for each in read):
                return self._on_labels(logits, read), self._sure(logits)
            raise DataError("the teacher does not see the right answer of every row")
        taught = self.taught
        if any(UNKNOWN in row.read.gold for row in taught):
            raise DataError("the teacher does not see the right answer of every row")
        beliefs = [row.belief for row in taught]
        return self._on_labels(beliefs, [row.read for row in taught]), self._sure(beliefs)

    def on_belief(self, model: HeadModel | None) -> list[float]:
        """Of each row how likely a model finds what the teacher believes; of None the teacher itself."""
        believed = [row.belief for row in self.taught]
        own = believed if model is None else self._beliefs.of_read(model, [row.read for row in self.taught])
        return [belief_score(one, other, kind=self._kind) for one, other in zip(own, believed, strict=True)]

    @property
    def taught(self) -> list[TaughtRow]:
        """Every row with what the teacher believes of it: from the lessons, or else asked now.

        Raises:
            DataError: a row is in no lesson, and the teacher can be asked nothing.
        """
        if self._taught is None:
            rows = self._asked.rows
            lacking = [row for row in rows if row.taught is None]
            if lacking and self._run.teacher is None:
                raise DataError(
                    f"what the teacher believes of held-out rows is not kept, and {self._run.why_no_teacher}"
                )
            asked = iter(self._ask(lacking))
            self._taught = [next(asked) if row.taught is None else row.taught for row in rows]
        return self._taught

    def _ask(self, rows: Sequence[AskedRow]) -> list[TaughtRow]:
        if not rows:
            return []
        assert self._run.teacher is not None
        examples = [row.example for row in rows if row.example is not None]
        believed: list[Beliefs] = self._beliefs.of(self._run.teacher, examples)
        task = self._run.task.config
        made = make_examples(task.kind, decision_labels(task), [row.read for row in rows], believed).examples
        found = [lesson_row(made, at)[1] for at in range(len(made))]
        return [each for each in found if each is not None]

    def _on_labels(self, logits: Sequence[Logits], read: Sequence[ReadExample]) -> list[float]:
        return [label_score(each, one.gold, kind=self._kind) for each, one in zip(logits, read, strict=True)]

    def _sure(self, logits: Sequence[Logits]) -> list[float]:
        return [certainty(each, kind=self._kind) for each in logits]
