"""Patience: what a long schedule makes of answers that were given once, of many copies, and of a teacher at hand.

Real texts: messages to a help desk (`configs/tasks/intents`). A bag of embeddings that was tuned on the gold ones
teaches a smaller one what it believes of messages without labels, as rules change them. With one copy of each message
the student learns the same answers in every epoch; with many they take turns; with the live teacher no text comes
twice. Objective, rules, steps and seed are the same, and held-out messages are never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from benchmarks.measurement import Measurement
from benchmarks.timing import one_thread
from configs.task_data import RuleAugmentation
from configs.task_stages import TaskStageConfig
from orchestration.inputs.augment import Row, Texts, change_by_rules
from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.feed.task_steps import task_batches, task_steps
from student_train.feed.turns import take_turns
from student_train.losses.metrics import METRICS
from student_train.models.bag import BagStudent
from student_train.models.task_inside import AnsweringTeacher, LiveTeacher
from student_train.models.task_module import TaskModule

FOLDER = Path(__file__).parents[1] / "configs" / "tasks" / "intents"
MESSAGES, EPOCHS, COPIES, BATCH, LEARNING_RATE = 240, 160, 24, 32, 4e-3
SHOWN = (10, 20, 40, 80, 160)
"""Epochs after which the held-out split is measured."""

RULES = RuleAugmentation(kind="rules", of=("transfer",), mask=0.2, same_part=0.0, ngram=0.25, copies=EPOCHS)
MASK, UNKNOWN = "[MASK]", "[UNK]"


@dataclass(frozen=True, slots=True)
class PatientResult:
    """Of one way to be taught: KL(teacher ‖ student), nats a message, held out and learned, after each of `SHOWN`."""

    name: str
    held_out: tuple[float, ...]
    learned: tuple[float, ...]

    @property
    def over_learned(self) -> float:
        """How many times what is held out is as far from the teacher at the end as what is learned."""
        return self.held_out[-1] / self.learned[-1]


def bench_views() -> Iterator[Measurement]:
    """One line a way to be taught, and one that sets them side by side."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        results = []
        for result in compare_views():
            results.append(result)
            held_out, learned = (
                " ".join(f"{value:.3f}" for value in values) for values in (result.held_out, result.learned)
            )
            epochs = ", ".join(map(str, SHOWN))
            yield Measurement(
                f"views, {result.name}, held-out KL after {EPOCHS} epochs", result.held_out[-1], "nats a message",
                digits=3, peers={"of rows that are learned": result.learned[-1]},
                note=f"after {epochs} epochs: held out {held_out}; learned {learned}",
            )  # fmt: skip
        for each in results[1:]:
            ratio = results[0].held_out[-1] / each.held_out[-1]
            yield Measurement(f"views, held-out KL of one copy / {each.name}", ratio)


def compare_views() -> Iterator[PatientResult]:
    """The same student, taught by one copy of each message, by `COPIES` in turn, and by a live teacher."""
    world = _World.read()
    teacher = world.teacher()
    stage = TaskStageConfig(
        objective="soft_labels", data=("rules",), epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE
    )
    dev = _answered(world.examples(world.dev), teacher)
    for name, copies in (("one copy", 1), (f"{COPIES} copies", COPIES), ("live teacher", EPOCHS)):
        examples = world.copies(copies)
        live = copies == EPOCHS
        if not live:
            examples = _answered(examples, teacher)
        answering = AnsweringTeacher(LiveTeacher(teacher), tuple(range(len(world.labels)))) if live else None
        module = TaskModule(world.student(hidden=48, seed=1), stage=stage, answering=answering)
        yield PatientResult(name, *_taught(module, stage=stage, examples=examples, dev=dev))


@dataclass(frozen=True, slots=True)
class _World:
    """The messages by split, their labels, and the words that both models know by their ids."""

    gold: Sequence[Row]
    messages: Sequence[Row]
    dev: Sequence[Row]
    labels: tuple[str, ...]
    words: dict[str, int]

    @classmethod
    def read(cls) -> _World:
        gold, transfer, dev = (
            [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("train", "transfer", "dev")
        )
        known = sorted({word for row in chain(gold, transfer) for word in _split(row["text"])})
        words = {word: at for at, word in enumerate([UNKNOWN, MASK, *known])}
        return cls(gold, transfer[:MESSAGES], dev, tuple(sorted({row["label"] for row in gold})), words)

    def student(self, *, hidden: int, seed: int) -> BagStudent:
        settings = {"task": "classification", "labels": self.labels, "vocab": len(self.words), "dropout": 0.0}
        torch.manual_seed(seed)
        made: BagStudent = BagStudent.of(settings | {"kind": "bag", "embedding_size": 2 * hidden, "hidden": hidden})
        return made

    def teacher(self) -> BagStudent:
        """A wider network that has learned the gold labels."""
        stage = TaskStageConfig(objective="hard_labels", epochs=12, batch_size=BATCH, learning_rate=LEARNING_RATE)
        teacher, examples = self.student(hidden=192, seed=0), self.examples(self.gold)
        _train(TaskModule(teacher, stage=stage), examples, stage=stage)
        return teacher.eval()

    def copies(self, count: int) -> ExampleSet:
        """The messages as rules change them, `count` copies of each in turn."""
        rules = RULES.model_copy(update={"copies": count})
        changed = change_by_rules(self.messages, texts=Texts(("text",)), rules=rules, mask=MASK, parts=None)
        found = [row if any(at is not None for at in row) else (place,) for place, row in enumerate(changed.copies)]
        return replace(self.examples([*self.messages, *changed.rows]), turns=take_turns(found, views=count).rows)

    def examples(self, rows: Sequence[Row]) -> ExampleSet:
        ids = [[self.words.get(word, 0) for word in _split(row["text"])] for row in rows]
        lengths, count = np.array([len(each) for each in ids]), len(rows)
        return ExampleSet(
            kind="classification",
            labels=self.labels,
            token_ids=np.array(list(chain.from_iterable(ids)), np.int32),
            token_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            split=lengths.astype(np.int32),
            unit_offsets=np.arange(count + 1, dtype=np.int64),
            unit_tokens=np.zeros(count, np.int32),
            gold=np.array([self.labels.index(row["label"]) if "label" in row else -1 for row in rows], np.int32),
            teacher=None,
        )


def _split(text: str) -> list[str]:
    return [word if word == MASK else word.lower().strip(".,:;!?'\"()") for word in text.split()]


@torch.no_grad()
def _answered(examples: ExampleSet, teacher: BagStudent) -> ExampleSet:
    """The examples with what the teacher believes of each: one pass in all."""
    return replace(examples, teacher=teacher.unit_logits(_whole(examples)).numpy())


def _taught(
    module: TaskModule, *, stage: TaskStageConfig, examples: ExampleSet, dev: ExampleSet
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The held-out divergence after each of `SHOWN` epochs, and that of what the epoch before it read."""
    each = task_steps(stage, examples=examples) // EPOCHS
    held_out, learned = [], []
    divergence = METRICS.index("divergence")
    sums: list[float] = []
    for step, metrics in enumerate(_steps(module, examples, stage=stage), start=1):
        sums.append(float(metrics[divergence]))
        if step % each == 0 and step // each in SHOWN:
            read = len(examples.of_epoch(step // each - 1))
            learned.append(sum(sums[-each:]) / read)
            held_out.append(_divergence(module, dev))
    return tuple(held_out), tuple(learned)


def _train(module: TaskModule, examples: ExampleSet, *, stage: TaskStageConfig) -> None:
    for _ in _steps(module, examples, stage=stage):
        pass


def _steps(module: TaskModule, examples: ExampleSet, *, stage: TaskStageConfig) -> Iterator[torch.Tensor]:
    """Train step by step; the metric sums of each."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=stage.learning_rate, weight_decay=0.0)
    total = task_steps(stage, examples=examples)
    for rows in task_batches(stage, examples=examples, first=0, steps=total):
        loss, metrics = module.train()(collate_examples(examples, rows))
        optimiser.zero_grad()
        torch.autograd.backward(loss / len(rows))
        optimiser.step()
        yield metrics


@torch.no_grad()
def _divergence(module: TaskModule, dev: ExampleSet) -> float:
    _, metrics = module.eval()(_whole(dev))
    return float(metrics[METRICS.index("divergence")]) / len(dev)


def _whole(examples: ExampleSet) -> TaskBatch:
    return collate_examples(examples, np.arange(len(examples)))
