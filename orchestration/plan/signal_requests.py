"""What an experiment asks a teacher with a task head about its texts, and how much the cache holds. Pure functions.

Shapes: T tokens of a text, P rows of a signal (1, or T where it speaks of tokens), W values a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cache import Signal, SignalRequest
from cache.signals import PER_TOKEN, SPAN_WIDTH, SignalName
from configs.task import TaskKind
from configs.task_experiment import TaskDistillConfig
from configs.task_features import StateName
from configs.task_teacher import SignalEncoding
from orchestration.inputs.task_texts import ReadExample

HEAD_SIGNALS: Mapping[TaskKind, SignalName] = {
    "classification": "class_logits",
    "tagging": "tag_logits",
    "extractive_qa": "span_logits",
}
"""What the head of a teacher says in tasks of each kind."""

BYTES_PER_VALUE: Mapping[SignalEncoding, int] = {"signal-f32": 4, "signal-f16": 2, "signal-u8": 1}

BYTES_PER_SCALE: Mapping[SignalEncoding, int] = {"signal-f32": 0, "signal-f16": 0, "signal-u8": 8}
"""Of a row, beside its values: minimum and step."""

BYTES_PER_SIGNAL = 55
"""Of a signal, beside its rows: 52 of the object of keys, and what was asked (docs/log.md)."""

BYTES_PER_TOKEN = 2
"""Of the tokens of a text, however many of its signals they stand beside: 1.0 to 1.3 measured on zipf-like ones."""


class SignalHoldings(Protocol):
    """The one question that the plan asks of a cache (`SignalStore`)."""

    def missing(self, requests: Sequence[SignalRequest]) -> tuple[int, ...]:
        """Positions of the requests that it cannot answer; of equal ones the first."""
        ...


class RefusedSignals(Protocol):
    """What the teacher is not asked: it cannot answer it, or it was forgotten (`orchestration.fill.refusals`)."""

    def reason(self, request: SignalRequest) -> str | None:
        """Why it is not asked; None where it is."""
        ...


class NoSignals:
    """Stands for the cache of a teacher whose weights are not at hand: every signal counts as a miss."""

    def missing(self, requests: Sequence[SignalRequest]) -> tuple[int, ...]:
        """All of them, equal ones once."""
        return tuple({request: at for at, request in reversed(list(enumerate(requests)))}.values())


@dataclass(frozen=True, slots=True)
class SignalSet:
    """The texts of one set of examples as the teacher reads them, and what is asked about each of them.

    `cut` of its texts are longer than the teacher reads, and are asked about as far as it does.
    """

    name: str
    texts: tuple[ReadExample, ...]
    signals: tuple[Signal, ...]

    @property
    def requests(self) -> tuple[SignalRequest, ...]:
        """All signals of one text after another."""
        return tuple(
            SignalRequest(text.token_ids, text.split, signal) for text in self.texts for signal in self.signals
        )

    @property
    def cut(self) -> int:
        """Texts of which the teacher does not see all."""
        return sum(text.cut for text in self.texts)


@dataclass(frozen=True, slots=True)
class SignalSetPlan:
    """Hits and misses of one set. `tokens` are those of the texts that have to be read, each once.

    `refused` are requests that the cache lacks and that were forgotten, or that the teacher could not answer before,
    with the reasons; they are not misses, because they are not asked. What another set before it misses too is no miss
    of this one.
    """

    signals: SignalSet
    asked: int
    missing: tuple[SignalRequest, ...]
    tokens: int
    stored_bytes: int
    refused: Mapping[SignalRequest, str] = field(default_factory=dict)

    @property
    def misses(self) -> int:
        """Signals that the teacher must be asked for."""
        return len(self.missing)

    @property
    def hits(self) -> int:
        """Signals that need not be asked for: the cache holds them, or they stand in a set before."""
        return self.asked - self.misses - len(self.refused)


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """The plan of a fill with signals. `row_bytes` is what one row of each signal takes on disk, uncompressed."""

    sets: tuple[SignalSetPlan, ...]
    row_bytes: Mapping[Signal, int]

    @property
    def requests(self) -> tuple[SignalRequest, ...]:
        """Everything that is wanted, whoever has it."""
        return tuple(request for part in self.sets for request in part.signals.requests)

    @property
    def refused(self) -> dict[SignalRequest, str]:
        """What the teacher is not asked, over all sets, and why."""
        return {request: reason for part in self.sets for request, reason in part.refused.items()}

    @property
    def asks_teacher(self) -> bool:
        """Whether an engine is needed."""
        return any(part.missing for part in self.sets)

    @property
    def misses(self) -> int:
        """Signals over all sets that the teacher must be asked for."""
        return sum(part.misses for part in self.sets)

    @property
    def tokens(self) -> int:
        """Tokens that the teacher reads."""
        return sum(part.tokens for part in self.sets)

    @property
    def stored_bytes(self) -> int:
        """Expected size of the new segments, at most."""
        return sum(part.stored_bytes for part in self.sets)

    @property
    def cut(self) -> int:
        """Texts of all sets of which the teacher does not see all."""
        return sum(part.signals.cut for part in self.sets)


@dataclass(frozen=True, slots=True)
class SignalWidths:
    """W of each signal: of logits as many as there are labels, of a state what the model is wide."""

    labels: int
    hidden: int

    def of(self, signal: Signal) -> int:
        """W of one signal."""
        if signal.name == "span_logits":
            return SPAN_WIDTH
        return self.hidden if signal.name == "state" else self.labels


def needs_teacher(config: TaskDistillConfig) -> bool:
    """Whether anything of an experiment needs what the teacher says about what is learned from."""
    return any(stage.needs_answers for student in config.students.values() for stage in student.stages)


def asked_sets(config: TaskDistillConfig) -> frozenset[str]:
    """The sets of examples that the teacher is asked about: those of stages that learn something of it."""
    stages = [stage for student in config.students.values() for stage in student.stages]
    taught = (stage for stage in stages if stage.needs_answers or any(term.is_kept for term in stage.features))
    return frozenset(name for stage in taught for name in config.read_sets(stage))


def wanted_signals(
    config: TaskDistillConfig, *, kind: TaskKind, states: Sequence[StateName] = ()
) -> tuple[Signal, ...]:
    """What the stages of an experiment need of a teacher with a head: its logits, and some of its `states`.

    A label of the teacher is the likeliest by its logits. One that is shown more than a row answers dev and test by
    them too: what it says of a row alone is not what students learn from.
    """
    wanted = needs_teacher(config) or config.teacher_context is not None
    found = [Signal(HEAD_SIGNALS[kind])] if wanted else []
    return (*found, *state_signals(states))


def state_signals(states: Sequence[StateName]) -> tuple[Signal, ...]:
    """What is asked for these states, each once; those of every token are no signals."""
    return tuple(Signal("state", layer, place) for layer, place in dict.fromkeys(states) if place != "all")


def signal_sets(read: Mapping[str, Sequence[ReadExample]], signals: tuple[Signal, ...]) -> tuple[SignalSet, ...]:
    """The sets of examples by their names, as the teacher reads them."""
    return tuple(SignalSet(name, tuple(texts), signals) for name, texts in read.items())


def plan_signals(
    sets: Sequence[SignalSet],
    *,
    cache: SignalHoldings,
    widths: SignalWidths,
    encoding: SignalEncoding,
    refused: RefusedSignals | None = None,
) -> SignalPlan:
    """Ask the cache what is missing, set by set, and leave out what the teacher has refused before."""
    counted: set[SignalRequest] = set()
    plans = []
    for each in sets:
        requests = each.requests
        lacking = [request for at in cache.missing(requests) if (request := requests[at]) not in counted]
        counted.update(lacking)
        reasons = {} if refused is None else {request: refused.reason(request) for request in lacking}
        known = {request: reason for request, reason in reasons.items() if reason is not None}
        missing = tuple(request for request in lacking if request not in known)
        texts = {(request.token_ids, request.split) for request in missing}
        tokens = sum(len(ids) for ids, _ in texts)
        size = sum(bytes_of(request, widths=widths, encoding=encoding) for request in missing)
        size += BYTES_PER_TOKEN * tokens
        plans.append(SignalSetPlan(each, len(requests), missing, tokens, size, refused=known))
    asked = dict.fromkeys(signal for each in sets for signal in each.signals)
    return SignalPlan(
        tuple(plans), {signal: bytes_per_row(signal, widths=widths, encoding=encoding) for signal in asked}
    )


def bytes_per_row(signal: Signal, *, widths: SignalWidths, encoding: SignalEncoding) -> int:
    """Stored bytes of one row of a signal, before compression."""
    return BYTES_PER_VALUE[encoding] * widths.of(signal) + BYTES_PER_SCALE[encoding]


def bytes_of(request: SignalRequest, *, widths: SignalWidths, encoding: SignalEncoding) -> int:
    """Stored bytes of the answer to a request beside its tokens, its values before compression."""
    rows = len(request.token_ids) if request.signal.name in PER_TOKEN else 1
    return BYTES_PER_SIGNAL + rows * bytes_per_row(request.signal, widths=widths, encoding=encoding)
