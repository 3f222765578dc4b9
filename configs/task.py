"""A task: labelled rows, how a row becomes a question, how an answer is read, and what is counted.

One small YAML file beside its data is one `TaskConfig`; `evaluation.tasks` of an experiment names such files. A task
says nothing of models: a generative one answers by text or by the likelihood of the labels, one with a task head by
its head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.models import Block, Name, NonNegative, Positive
from configs.schema import SplitConfig

TaskKind = Literal["classification", "tagging", "extractive_qa", "generation", "exact_match"]

METRICS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "mcc"),
    "tagging": ("entity_f1", "entity_f1_partial"),
    "extractive_qa": ("f1", "exact_match"),
    "generation": ("rouge_l", "rouge_1", "rouge_2", "bleu", "chrf"),
    "exact_match": ("exact_match",),
}
"""What a task of each kind can be judged by; the first is what it is judged by unless it says otherwise."""

SHOWN_LABELS = 8
"""Labels that a message names; tasks have up to hundreds."""

FIELDS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("label",),
    "tagging": ("tokens", "tags"),
    "extractive_qa": ("context", "answers"),
    "generation": ("references",),
    "exact_match": ("answer",),
}
"""The roles for which a task of each kind has to name a field of its rows."""

SECOND = "second"
"""The role of a field of classification that is the second of two texts (a hypothesis beside its premise): a model with
a head reads the two as a pair, and the other fields that the template reads as the first."""

PAIR = "pair"
"""The role of a field, of any kind of task, that two rows share which differ in one thing alone (minimal pairs)."""


class TaskData(Block):
    """The rows. `train` gives worked examples and is what `test` is searched for duplicates against."""

    train: SplitConfig | None = None
    dev: SplitConfig | None = None
    test: SplitConfig


class LabelScoring(Block):
    """Classification by the likelihood of each label's tokens after the prompt; `per_token` divides by their number."""

    per_token: bool = True


class TaskParser(Block):
    """How the text of an answer is read.

    `label`: the first label (or verbaliser) that the text names. `number`: the last number. `first_line`: the first
    line with anything in it. `text`: all of it. `entities`: lines `TYPE: words`, looked up in the row's tokens.
    `pattern`: the first group of a regular expression (RE2) in `regex`.
    """

    kind: Literal["label", "number", "first_line", "text", "entities", "pattern"]
    regex: str | None = None

    @model_validator(mode="after")
    def _regex_for_patterns(self) -> Self:
        if (self.kind == "pattern") != (self.regex is not None):
            raise ValueError(
                f"parser.regex={self.regex} with kind={self.kind}: a pattern has a regex, nothing else has"
            )
        return self


PARSERS: Mapping[TaskKind, TaskParser] = {
    "classification": TaskParser(kind="label"),
    "tagging": TaskParser(kind="entities"),
    "extractive_qa": TaskParser(kind="first_line"),
    "generation": TaskParser(kind="text"),
    "exact_match": TaskParser(kind="number"),
}
"""How an answer is read unless a task says otherwise."""

PARSERS_OF: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("label", "first_line", "text", "number", "pattern"),
    "tagging": ("entities",),
    "extractive_qa": ("first_line", "text", "number", "pattern"),
    "generation": ("text", "first_line", "pattern"),
    "exact_match": ("number", "first_line", "text", "pattern"),
}
"""Which parsers make sense for which kind."""


class TaskConfig(Block):
    """One task.

    `fields` maps a role (`FIELDS`, `SECOND`, `PAIR`) to the name of a row's field. `labels` are those of
    classification, or the entity types of tagging, mapped to the words that stand for them (their verbalisers); a list
    stands for itself. With `label_is_index` the rows of a classification hold numbers: the place of a label in
    `labels`, from 0.
    `template` is Jinja over the fields of a row; `answer` is Jinja over them too, and says how a worked example is
    answered. `chat` puts every question through the chat template of the model that is asked.
    """

    name: Name
    kind: TaskKind
    data: TaskData
    fields: dict[str, str]
    labels: dict[str, str] | list[str] | None = None
    label_is_index: bool | None = None
    template: str
    answer: str | None = None
    chat: bool = True
    parser: TaskParser | None = None
    label_scoring: LabelScoring | None = None
    metric: str | None = None
    few_shot: NonNegative = 0
    few_shot_seed: NonNegative = 0
    max_new_tokens: Positive = 32
    licence: str | None = None
    near_duplicate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Jaccard similarity of word 3-grams from which a test row counts as a near duplicate of a train row."""

    @property
    def judged_by(self) -> str:
        """The one metric that stands for the task."""
        return self.metric or METRICS[self.kind][0]

    @property
    def read_by(self) -> TaskParser:
        """How an answer's text is read."""
        return self.parser or PARSERS[self.kind]

    @property
    def verbalisers(self) -> dict[str, str]:
        """The words of each label, in the order of the labels."""
        labels = self.labels or {}
        return dict(labels) if isinstance(labels, dict) else {label: label for label in labels}

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        missing = [role for role in FIELDS[self.kind] if role not in self.fields]
        if missing:
            raise ValueError(
                f"fields has no {missing[0]}: kind={self.kind} needs the name of a row's field for each of "
                f"{', '.join(FIELDS[self.kind])}"
            )
        known = (*FIELDS[self.kind], *((SECOND,) if self.kind == "classification" else ()), PAIR)
        unknown = next((role for role in self.fields if role not in known), None)
        if unknown is not None:
            raise ValueError(
                f"fields.{unknown}={self.fields[unknown]}: kind={self.kind} knows {', '.join(known[:-1])} and "
                f"{PAIR}; a template may use any field of a row without naming it here"
            )
        needs_labels = self.kind in ("classification", "tagging")
        if needs_labels and not self.labels:
            raise ValueError(f"labels is not set: kind={self.kind} needs them")
        if not needs_labels and self.labels is not None:
            raise ValueError(f"labels is only used by classification and tagging, not kind={self.kind}: remove it")
        words = list(self.labels.values()) if isinstance(self.labels, dict) else list(self.labels or ())
        twice = next((word for word in words if words.count(word) > 1 or not word.strip()), None)
        if twice is not None:
            raise ValueError(f"labels: {twice!r} stands for two labels, or for nothing: give each its own words")
        if self.label_is_index is not None and self.kind != "classification":
            raise ValueError(f"label_is_index is only used by classification, not kind={self.kind}: remove it")
        if self.label_scoring is not None and self.kind != "classification":
            raise ValueError(f"label_scoring is only used by classification, not kind={self.kind}: remove it")
        if self.judged_by not in METRICS[self.kind]:
            raise ValueError(f"metric={self.metric}: kind={self.kind} knows {', '.join(METRICS[self.kind])}")
        if self.read_by.kind not in PARSERS_OF[self.kind]:
            raise ValueError(
                f"parser.kind={self.read_by.kind}: kind={self.kind} is read by {', '.join(PARSERS_OF[self.kind])}"
            )
        if self.few_shot and (self.data.train is None or self.answer is None):
            raise ValueError(f"few_shot={self.few_shot} needs data.train and answer: set both, or few_shot: 0")
        return self
