"""Results: everything that a comparison shows, as plain frozen values.

A result is kept as JSON, read again by a later release, put beside results of other runs, and turned into a table, a
page or a verdict by pure functions. So it holds what was observed of every example (`TaskExample`, the sums of
`Closeness`) and not only means: intervals, tests and analyses are made from it whenever they are asked for.

What chooses reads `DevScores`, what reports reads `FinalScores`: a choice made on the test split does not type-check.

Numbers are SI or nats; NaN stands for what was not, or could not be, measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from configs.task_features import spread_layers


@dataclass(frozen=True, slots=True)
class TaskExample:
    """What one model made of one example.

    `shown` is the row as a reader sees it, `gold` what was right and `answer` the text that came back ("" from a task
    head). `predicted` is what was read from it; None where nothing could be. For classification, both hold a label; for
    question answering and generation, `gold` holds every accepted answer; for tagging, both hold spans as
    `start end TYPE` in tokens, end excluded, and `-1 -1 TYPE` is an answer that does not stand in the row. `confidence`
    is the probability of what was predicted (NaN: not known), `tokens` the length of the prompt. Answers under several
    evaluation seeds are several examples with one `row`.
    `pair` is what the row shares with the one that it forms a minimal pair with, where the task has such.
    """

    row: int
    seed: int
    shown: str
    gold: tuple[str, ...]
    answer: str
    predicted: tuple[str, ...] | None
    confidence: float
    tokens: int
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What there is to know of a task, whoever answers it.

    `digest` is over the task's file and the rows that were used. `answered_by` says how models answer ("text",
    "label likelihood per token", "head"). `baseline` is what the best constant answer scores on the test split, in the
    metric that the task is judged by. `set_aside` holds a line for every row that could not be used. `exact_copies` and
    `near_copies` count test rows that also stand in train, to the letter or nearly (`near_duplicate`).
    """

    name: str
    digest: str
    kind: str
    labels: tuple[str, ...]
    metric: str
    few_shot: int
    train_rows: int
    dev_rows: int
    test_rows: int
    baseline: float
    exact_copies: int
    near_copies: int
    near_duplicate: float
    set_aside: tuple[str, ...]
    train_label_counts: Mapping[str, int]
    licence: str | None

    @property
    def unit(self) -> Literal["points", "fraction"]:
        """Of the metric that the task is judged by: overlaps of texts are counted in points up to 100."""
        return "points" if self.kind == "generation" else "fraction"


@dataclass(frozen=True, slots=True)
class DevScores:
    """A task on its dev split: for choosing, never for reporting."""

    task: str
    answered_by: str
    examples: tuple[TaskExample, ...]


@dataclass(frozen=True, slots=True)
class FinalScores:
    """A task on its test split: for reporting, never for choosing."""

    task: str
    answered_by: str
    examples: tuple[TaskExample, ...]


@dataclass(frozen=True, slots=True)
class Closeness:
    """A model at the teacher's answers to the test prompts: additive statistics, one row an answer.

    `columns` name them, `evaluation.closeness` says what they are and makes numbers of them.
    """

    columns: tuple[str, ...]
    sums: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a model's own beginnings cost it, by position: KL(teacher ‖ model), summed over answers, and their number.

    `free` is after the model's own tokens, `forced` after the teacher's (Arora et al. 2022, 2204.01171). `reverse_sums`
    and `lengths` are, an answer, log q - log p of the model's own tokens, summed, and how many they are. `answers` are
    the sums behind one number, an answer: nats and tokens of the model's own, nats and tokens of the teacher's
    (`evaluation.exposure`).
    """

    free: tuple[float, ...]
    free_counts: tuple[int, ...]
    forced: tuple[float, ...]
    forced_counts: tuple[int, ...]
    reverse_sums: tuple[float, ...]
    lengths: tuple[int, ...]
    answers: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one quantity."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True, slots=True)
class Speed:
    """A warm engine that answers `batch` prompts at a time."""

    batch: int
    first_token_s: Spread
    token_s: Spread
    tokens_per_s: Spread


@dataclass(frozen=True, slots=True)
class TextSpeed:
    """A warm model with a task head that answers `batch` texts at a time: seconds a text, one value a round.

    Models that are measured together take turns, so that their values of one round belong together.
    """

    batch: int
    text_s: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """All rounds."""
        return Spread(statistics.median(self.text_s), min(self.text_s), max(self.text_s), len(self.text_s))


@dataclass(frozen=True, slots=True)
class Serving:
    """What it takes to serve a model. `measured_on` names device and settings: only equal ones share a column.

    A model that writes has `speeds`, one with a task head `texts`.
    """

    measured_on: str
    speeds: tuple[Speed, ...]
    peak_host_bytes: float
    peak_gpu_bytes: float
    joules_per_token: float
    texts: tuple[TextSpeed, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """What a student took to make; of a reused one, what it took then. `curves` are (step, value) by metric."""

    seconds: float
    tokens: int
    joules: float
    trained_on: str
    curves: Mapping[str, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True)
class LayerLikeness:
    """How alike a student of a task and one of its teachers are inside, on test texts (`evaluation.analysis.cka`).

    `cka` has a row for each layer of the teacher and a column for each of the student's, both from the embeddings up.
    """

    teacher: str
    texts: int
    cka: tuple[tuple[float, ...], ...]

    @property
    def matched(self) -> tuple[tuple[int, int], ...]:
        """(layer of the student, layer of the teacher at the same relative depth); the last is beside the last."""
        return spread_layers("uniform", student=len(self.cka[0]) - 1, teacher=len(self.cka) - 1)


@dataclass(frozen=True, slots=True)
class ModelResults:
    """One row of the comparison.

    `role` is teacher, untouched or student; `method` names the objectives of a student's stages in order ("seqkd",
    "seqkd, minillm"); `start` is the row that it started from, None for the teacher or where that was not measured.
    `answers` are to the test prompts, `answer_tokens` their lengths. `failures` hold a line for whatever could not be
    measured.

    A student of a task is trained with `seeds` seeds and is one row: its examples bear the number of the training seed.
    A model with fewer seeds than others gives its answers again under theirs, so that all models weigh a row alike.
    What is not answers (digest, size, speed, `likeness`) is that of the seed which did best on dev. `dev` holds the
    scores that a choice is made by.
    """

    name: str
    role: str
    method: str
    start: str | None
    digest: str
    parameters: int
    disk_bytes: int
    closeness: Closeness | None
    exposure: Exposure | None
    answers: tuple[str, ...]
    answer_tokens: tuple[int, ...]
    tasks: tuple[FinalScores, ...]
    serving: Serving | None
    training: Training | None
    failures: tuple[str, ...]
    dev: tuple[DevScores, ...] = ()
    seeds: int = 1
    likeness: LayerLikeness | None = None


@dataclass(frozen=True, slots=True)
class StageCost:
    """A stage of the run: its time, and its energy as far as that is known (`RunCost.energy_source`)."""

    name: str
    seconds: float
    joules: float
    co2_kg: float


@dataclass(frozen=True, slots=True)
class RunCost:
    """What an experiment took. Money is in `currency`, NaN without prices.

    `saved_*` is what the rows that the cache already held would have taken: tokens, and time, energy and money at what
    they took when they were bought.
    """

    stages: tuple[StageCost, ...]
    energy_source: str
    teacher_tokens: int
    saved_tokens: int
    teacher_hours: float
    saved_hours: float
    saved_joules: float
    paid: float
    saved: float
    currency: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where it all comes from: what a reader who wants to repeat or to ship it has to know.

    `licence_terms` says a line a teacher what its licence asks of students; nothing of one that asks nothing.
    """

    teacher: str
    teacher_identity: str
    teacher_licence: str | None
    cache_digest: str
    config_digest: str
    data: Mapping[str, str]
    versions: Mapping[str, str]
    licence_terms: tuple[str, ...] = ()


Place = Literal["driver", "cluster", "teacher", "workers", "student"]
"""What something runs on: this program, Ray, engines of a teacher, worker groups, engines of students."""

PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True, slots=True)
class Span:
    """Something that ran, from one moment to another, in seconds since 1970. `start` numbers the starts of a run."""

    title: str
    place: Place
    start: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class RunResults:
    """A finished experiment. `settings` is its resolved configuration, flat, by dotted key.

    `prompts` are the test prompts and `references` the teacher's cached answers to them. Where several teachers were
    combined `held_against` says in words what closeness is measured against; it is empty where there was one.
    `timeline` is what ran when, over all starts of the run.
    """

    experiment: str
    settings: Mapping[str, str]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    reference_tokens: tuple[int, ...]
    models: tuple[ModelResults, ...]
    tasks: tuple[TaskFacts, ...]
    cost: RunCost
    provenance: Provenance
    rows_set_aside: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    held_against: str = ""
    timeline: tuple[Span, ...] = ()
