"""Stages of training with everything that a teacher could give them, and each thing of it spoilt while others stay.

What is spoilt is one of `Taken`. Of a model that reads beside its student two things can be spoilt apart from each
other: `denied` has other answers from the same states, `turned` the same answers from states in another order.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from general_jobs import plain_examples, save_encoder
from numpy.typing import NDArray
from retokenised_builders import read_by_two
from safetensors.torch import load_file, save_file
from student_builders import TOP_K, VOCAB, believed, tiny_llama
from task_jobs import made_examples, set_dropout
from task_students import LABELS, WORDS, save_student
from torch import Tensor
from training_jobs import IDENTITY, keyed

from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.views import CacheView
from configs.architecture import read_text_model
from configs.methods import Taken
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from configs.task_stages import TaskStageConfig
from orchestration.plan.task_features import state_names
from student_train.handoff.rollouts import Rollout, RolloutExchange
from student_train.job import GeneralJob, TaskJob, TaughtInside, TrainJob
from student_train.models.task_model import stored_inside

ROWS, TEXTS = 12, 30
SETTINGS = TrainingSettings(workers=1, zero_stage=0, micro_batch_tokens=4096, checkpoint_every_s=1e9)
WHOLE: dict[str, Any] = {"dtype": "float32", "select": "last", "keep_start": False}
"""Beside it a stage reads everything in its first step: what it learns of later rows could not be seen there."""

SEQUENCES: tuple[Taken, ...] = ("text", "topk", "scores", "distribution", "inside")
EXAMPLES: tuple[Taken, ...] = ("label", "logits", "states", "afresh", "inside")
PLAIN: tuple[Taken, ...] = ("distribution", "inside")
"""What a teacher could give a language model, a student of a task, and one of plain text."""

BERT = frozenset({16})
"""How wide states of tiny encoders are."""

HEADS = ("lm_head", "classifier", "cls.predictions.transform")
"""Where the weights are that make answers of last states."""


@dataclass(frozen=True, slots=True)
class Taught:
    """A teacher as it is, and spoilt in two ways."""

    whole: Path
    denied: Path
    turned: Path

    @classmethod
    def of(cls, model: Path, *, widths: frozenset[int]) -> Taught:
        """A model with states of one of these widths, which nothing else in it has."""
        denied = _changed(model, {name: -weight for name, weight in _weights(model).items() if name.startswith(HEADS)})
        turned = _changed(
            model, {name: _turned(weight, widths) for name, weight in _weights(model).items()}, to="turned"
        )
        return cls(model, denied, turned)

    def but(self, spoilt: Taken | None) -> Path:
        """The one that lacks one thing."""
        if spoilt in ("distribution", "afresh"):
            return self.denied
        return self.turned if spoilt == "inside" else self.whole


def _weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


def _changed(model: Path, weights: Mapping[str, Tensor], *, to: str = "denied") -> Path:
    assert weights, f"{model} has nothing that could be {to}"
    place = model.with_name(f"{model.name}-{to}")
    shutil.copytree(model, place)
    save_file(_weights(model) | dict(weights), place / "model.safetensors", metadata={"format": "pt"})
    return place


def _turned(weight: Tensor, widths: frozenset[int]) -> Tensor:
    """Both halves of every state change places, and with them whole heads: what is computed stays the same."""
    for dim, size in enumerate(weight.shape):
        if size in widths:
            weight = weight.roll(size // 2, dim)
    return weight.contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A cache: what a teacher told, plain text, and what a student wrote as the teacher scored it."""

    folder: Path
    cache: TeacherCache
    told: Sequence[TeacherRecord]
    written: Sequence[TeacherRecord]

    @classmethod
    def of(cls, folder: Path, *, spoilt: Taken | None) -> Store:
        """The cache below a folder, and beside it the views of the teacher's sequences and of plain text."""
        cache = TeacherCache.open(folder / "cache", IDENTITY)
        told = [_told(seed, last=spoilt == "text", other=spoilt == "topk") for seed in range(ROWS)]
        plain = [_told(100 + seed, text_only=True) for seed in range(ROWS)]
        written = [_told(200 + seed, other=spoilt == "scores") for seed in range(ROWS)]
        written = [replace(row, finish="given", policy_version=0) for row in written]
        cache.put([*told, *plain], vocab=VOCAB)
        cache.put(written, vocab=VOCAB, rollout="test")
        cache.view([row.key for row in told], dataset="teacher-train", k=TOP_K).save(folder / "teacher-train")
        cache.view([row.key for row in plain], dataset="plain-train", k=0).save(folder / "plain-train")
        return cls(folder, cache, told, written)


@dataclass(frozen=True, eq=False)
class Classroom:
    """Tiny models below a folder, and the trainings of one stage among them. Every job has a folder of its own."""

    folder: Path
    _stores: dict[str, Store] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @cached_property
    def decoder(self) -> Path:
        """A language model that learns."""
        return tiny_llama(self.folder / "decoder")

    @cached_property
    def decoding_teacher(self) -> Taught:
        """A language model that teaches; its head is no embedding, so that either can be changed alone."""
        model = tiny_llama(self.folder / "decoding-teacher", seed=9, layers=6, tied=False)
        return Taught.of(model, widths=frozenset({32, 16}))

    @cached_property
    def encoding_teacher(self) -> Taught:
        """An encoder with the head of a task that teaches."""
        return Taught.of(save_student(self.folder / "encoding-teacher", name="bert", seed=9, layers=12), widths=BERT)

    @cached_property
    def guessing_teacher(self) -> Taught:
        """An encoder that guesses hidden words and teaches."""
        return Taught.of(save_encoder(self.folder / "guessing-teacher", layers=12, seed=9), widths=BERT)

    @cached_property
    def guesser(self) -> Path:
        """An encoder that learns from plain text."""
        return save_encoder(self.folder / "guesser", layers=6)

    @cached_property
    def students(self) -> dict[str, Path]:
        """Students of a task, by what a start calls them."""
        place = self.folder / "students"
        students = {
            "transformer": save_student(place / "bert", name="bert", layers=6),
            "recurrent": save_student(place / "lstm", name="lstm"),
            "bag": save_student(place / "bag", name="deep-bag"),
        }
        for student in students.values():
            # The order of texts follows from their content, all that is known of them included, and so would what is
            # dropped of each.
            set_dropout(student, 0.0)
        return students

    def sequences(self, stage: StageConfig, *, spoilt: Taken | None, retokenised: bool) -> TrainJob:
        """A stage of a language model; `retokenised`, of one with another tokenizer than its teacher's."""
        folder, store = self._new(), self._store(spoilt)
        place = store.folder / stage.train_view
        if retokenised:
            _read_otherwise(CacheView.load(place), last=spoilt == "text", place=folder / "view")
            place = folder / "view"
        if stage.rollout is not None:
            stage = _in_one(stage)
            _commit_rollout(stage, folder / "work", store=store)
        teacher = self.decoding_teacher.but(spoilt)
        return TrainJob(
            stage=StageConfig.model_validate(stage.model_dump() | WHOLE | {"tokens_per_step": 4096}),
            model_dir=self.decoder,
            cache_root=store.folder / "cache",
            identity=IDENTITY,
            train_view=place,
            dev_view=None,
            vocab=VOCAB,
            taught=TaughtInside(teacher, "identity", "float32", read_text_model(teacher).inside),
            retokenised=retokenised,
            **_shared(folder),
        )

    def examples(self, stage: TaskStageConfig, *, spoilt: Taken | None, start: str) -> TaskJob:
        """A stage of a task, of a student of this kind."""
        folder, student, teacher = self._new(), self.students[start], self.encoding_teacher.but(spoilt)
        sizes = stored_inside(teacher)
        examples = made_examples(TEXTS, seed=1)
        assert examples.teacher is not None
        logits, names = examples.teacher, state_names(stage, student=stored_inside(student), teacher=sizes)
        states = np.random.default_rng(0).standard_normal((TEXTS, len(names), sizes.widths[0])).astype(np.float32)
        if spoilt == "label":
            logits = np.roll(logits, 1, axis=1)
        if spoilt == "logits":
            logits = 3.0 * logits
        if spoilt == "states":
            states = np.roll(states, 1, axis=0)
        replace(examples, teacher=logits, states=states if names else None, state_names=names).save(folder / "examples")
        return TaskJob(
            stage=_whole_task(stage),
            model_dir=student,
            train_examples=folder / "examples",
            dev_examples=None,
            kind="classification",
            labels=LABELS,
            taught=TaughtInside(teacher, "identity", "float32", sizes, tuple(range(len(LABELS)))),
            **_shared(folder),
        )

    def plain_text(self, stage: TaskStageConfig, *, spoilt: Taken | None) -> GeneralJob:
        """A general stage."""
        folder, teacher = self._new(), self.guessing_teacher.but(spoilt)
        plain_examples(TEXTS, seed=1).save(folder / "examples")
        return GeneralJob(
            stage=_whole_task(stage),
            model_dir=self.guesser,
            train_examples=folder / "examples",
            dev_examples=None,
            kind="tagging",
            labels=WORDS,
            taught=TaughtInside(teacher, "identity", "float32", stored_inside(teacher)),
            **_shared(folder),
        )

    def _new(self) -> Path:
        place = self.folder / f"job-{next(self._numbers)}"
        place.mkdir(parents=True)
        return place

    def _store(self, spoilt: Taken | None) -> Store:
        """Made once for all stages: most of the time would go into writing caches."""
        name = spoilt if spoilt in ("text", "topk", "scores") else "whole"
        if name not in self._stores:
            self._stores[name] = Store.of(self.folder / f"told-{name}", spoilt=spoilt)
        return self._stores[name]


def _shared(folder: Path) -> dict[str, Any]:
    return {"settings": SETTINGS, "work_dir": folder / "work", "output_dir": folder / "student", "accelerator": "cpu"}


def _whole_task(stage: TaskStageConfig) -> TaskStageConfig:
    """The stage whose first step reads all texts, and relates all of them, whatever their order, where it relates any.

    All terms weigh the same: what a large one drowns is taken all the same.
    """
    terms = [
        term.model_dump() | {"weight": 1.0} | ({"group": TEXTS} if term.related > 1 else {}) for term in stage.features
    ]
    whole = WHOLE | {"batch_size": TEXTS, "patience": None, "features": terms}
    return TaskStageConfig.model_validate(stage.model_dump() | whole)


def _in_one(stage: StageConfig) -> StageConfig:
    """The stage with rollouts whose first step reads all of one."""
    assert stage.rollout is not None
    rollout = stage.rollout.model_dump() | {"minibatches": 1, "prompts": ROWS}
    return StageConfig.model_validate(stage.model_dump() | {"rollout": rollout, "warmup_steps": 0})


def _told(seed: int, *, last: bool = False, other: bool = False, text_only: bool = False) -> TeacherRecord:
    """A sequence whose `last` token, which no model reads, is the second likeliest; with `other` beliefs about it."""
    draw = np.random.default_rng(seed)
    prompt, response = (int(size) for size in draw.integers(2, 8, size=2))
    usual: NDArray[np.float64]
    usual, others = 3 * draw.standard_normal((2, response, VOCAB))
    tokens = draw.integers(3, VOCAB, size=prompt + response).astype(np.int32)
    tokens[-1] = np.argsort(-usual[-1])[int(last)]
    told = keyed(believed(tokens, prompt=prompt, logits=others if other else usual, k=TOP_K))
    return TeacherRecord(told.key, tokens, prompt, "stop", "decode") if text_only else told


def _read_otherwise(view: CacheView, *, last: bool, place: Path) -> None:
    """The view as a student of another tokenizer reads it, the last token of every answer another one."""
    read = read_by_two(view)
    tokens = read.token_ids.copy()
    ends = read.token_offsets[1:] - 1
    tokens[ends] = 3 + (tokens[ends] - 3 + int(last)) % (VOCAB - 3)
    replace(read, token_ids=tokens).save(place)


def _commit_rollout(stage: StageConfig, work: Path, *, store: Store) -> None:
    """The first rollout of a stage: what the student wrote, and the share of the teacher's own sequences."""
    assert stage.rollout is not None
    by_teacher = store.told[: round((1 - stage.rollout.share) * ROWS)]
    rows = [*store.written, *by_teacher]
    lengths = [row.response_len for row in rows]
    RolloutExchange(work).commit(
        Rollout(
            number=0,
            version=0,
            view=store.cache.view([row.key for row in rows], dataset="rollout-0", k=TOP_K),
            samples=np.arange(len(rows)),
            drawn_by_teacher=np.repeat([*[False] * ROWS, *[True] * len(by_teacher)], lengths),
            engine_logprobs=np.full(sum(lengths), np.nan, dtype=np.float32),
            metrics={},
        )
    )
