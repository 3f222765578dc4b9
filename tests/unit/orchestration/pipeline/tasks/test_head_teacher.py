"""A teacher with a head labels the examples of a task: engines only for what is missing, and only sound ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_engines import lease_queue
from task_builders import task_of
from task_heads import save_classifier, save_tagger

from cache import Failure, Signal, SignalRecord, SignalRequest, TeacherCache
from cache.signals import signal_key
from configs import EngineError
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from evaluation.tasks.examples import Example, read_examples
from orchestration.environment import installed_version
from orchestration.fill.answers import SignalAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress
from orchestration.fill.fill import Budgets, FillResult
from orchestration.fill.refusals import open_signal_refusals
from orchestration.fill.signals import items_of
from orchestration.inputs.task_teachers import open_task_cache, open_task_teacher
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.tasks.head_teacher import HeadTeacher
from teacher_server.features import SignalModel

CLASSES, TAGS = (Signal("class_logits"),), (Signal("tag_logits"),)
MOODS = task_of("classification", labels=["good", "bad"])
PLACES = task_of("tagging", labels=["LOC"], template="{{ tokens }}")


def examples(task: TaskConfig, rows: Sequence[Any]) -> tuple[Example, ...]:
    return read_examples(task, enumerate(rows)).usable


def moods(*texts: str) -> tuple[Example, ...]:
    return examples(MOODS, [{"text": text, "label": "good"} for text in texts])


@dataclass(slots=True)
class Local:
    """The real model in this process; `at_check` may raise."""

    head: HeadTeacher
    at_check: Callable[[], None] = lambda: None
    checked: list[SignalRequest] = field(default_factory=list)
    asked: list[SignalRequest] = field(default_factory=list)
    model: Any = None

    def check(self, requests: Sequence[SignalRequest]) -> None:
        self.checked += requests
        self.at_check()

    def fill(
        self,
        work: Iterable[tuple[int, SignalRequest]],
        order: FillOrder,
        *,
        progress: Any,
        token_budget: Any,
        seconds_budget: Any,
    ) -> FillProgress:
        items = list(work)
        self.asked += [request for _, request in items]
        teacher = self.head.teacher
        self.model = SignalModel(teacher.directory, teacher.identity)
        queue = lease_queue(list(items_of(items)), token_budget=token_budget)
        store = TeacherCache.open(order.cache_root, teacher.identity).signals
        EngineLoop(queue, order, SignalAnswers(self, lambda: store.writer(encoding=order.encoding))).work()
        done: FillProgress = queue.progress()
        return done

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[tuple[int, SignalRecord | Failure]]]:
        found: Iterator[list[tuple[int, SignalRecord | Failure]]] = self.model.passes(requests)
        return found


ENGINE = {"transformers": installed_version("transformers"), "encoding": "signal-f32"}


def opened(root: Path, model_dir: Path, task: TaskConfig, *, refusals: bool = False) -> HeadTeacher:
    config = TaskDistillConfig.model_validate(
        {
            "name": "t",
            "task": "t.yaml",
            "teacher": {"model": {"path": model_dir}, "max_tokens": 8},
            "students": {"s": {"start": {"kind": "bag"}, "stages": [{"objective": "soft_labels", "steps": 1}]}},
            "runtime": {"models_root": root / "m", "cache_root": root / "cache", "run_root": root / "runs"},
        }
    )
    teacher = open_task_teacher(config, task)
    kept = open_signal_refusals(config, teacher.identity) if refusals else None
    return HeadTeacher(teacher, task, config.teacher, open_task_cache(config, teacher), kept)


def ask(head: HeadTeacher, engines: Local, root: Path, sets: Any, signals: Any = CLASSES) -> FillResult[SignalRequest]:
    order = FillOrder(False, root / "cache", 0, 1e6, None, {}, root / "ledger", encoding="signal-f32", engine=ENGINE)
    progress = StageProgress("fill", total=None, unit="signals", started=time.monotonic())
    plan = head.plan(sets, signals)
    return head.ask(plan, engines=engines, order=order, budgets=Budgets(None, None), progress=progress)


def test_examples_are_asked_once_and_believed_in_the_order_of_the_task(tmp_path: Path) -> None:
    head = opened(tmp_path, save_classifier(tmp_path / "model", labels=("bad", "good")), MOODS)
    engines = Local(head)
    sets = {"train": moods("sun", "rain oslo"), "test": moods("rome")}
    assert ask(head, engines, tmp_path, sets).rows == 3
    # The shortest and the longest text; 'rome' is as short as 'sun'.
    assert [len(request.token_ids) for request in engines.checked] == [1, 2]
    sun, rain = head.about(sets["train"])
    # The model says 'bad', its first label, of what begins with 'sun'.
    assert sun is not None and sun.units == ((0, 0),) and sun.logits[0, 1] > sun.logits[0, 0] + 1
    assert rain is not None and rain.logits[0, 0] > rain.logits[0, 1] + 1
    again = Local(head)
    assert ask(head, again, tmp_path, {"train": moods("sun"), "dev": moods("rain oslo")}).rows == 0
    assert again.checked == again.asked == []
    assert head.about(moods("oslo")) == [None]


def test_tags_are_believed_word_by_word(tmp_path: Path) -> None:
    head = opened(tmp_path, save_tagger(tmp_path / "model", labels=("B-LOC", "I-LOC", "O")), PLACES)
    rows = examples(PLACES, [{"tokens": ["sunrain", "oslo"], "tags": ["O", "B-LOC"]}])
    ask(head, Local(head), tmp_path, {"train": rows}, TAGS)
    (belief,) = head.about(rows)
    assert belief is not None and belief.units == ((0, 0), (1, 1)) and belief.logits.shape == (2, 3)
    store = head.cache.signals
    (record,) = store.get_many(store.keys([head.plan({"train": rows}, TAGS).requests[0]]))
    assert record is not None
    # Tokens are [CLS] sun ##rain oslo [SEP]: words are read at their first; columns go as O, B-LOC, I-LOC.
    np.testing.assert_array_equal(belief.logits, record.values[[1, 3]][:, [2, 0, 1]])


def test_engines_that_disagree_keep_nothing(tmp_path: Path) -> None:
    head = opened(tmp_path, save_classifier(tmp_path / "model"), MOODS)

    def refuse() -> None:
        raise EngineError("off a plain forward pass")

    engines = Local(head, at_check=refuse)
    with pytest.raises(EngineError, match="off a plain"):
        ask(head, engines, tmp_path, {"train": moods("sun")})
    assert engines.asked == [] and head.about(moods("sun")) == [None]


def test_what_is_refused_is_kept_with_its_reason_and_not_asked_again(tmp_path: Path) -> None:
    head = opened(tmp_path, save_classifier(tmp_path / "model"), MOODS, refusals=True)
    wrong = (*CLASSES, Signal("state", layer=9, position="mean"))
    first = ask(head, Local(head), tmp_path, {"train": moods("sun")}, wrong)
    assert list(first.failed.values()) == ["state of layer 9, mean, and the model has 1 layers"]
    later = opened(tmp_path, tmp_path / "model", MOODS, refusals=True)
    again = Local(later)
    assert ask(later, again, tmp_path, {"train": moods("sun")}, wrong).failed == first.failed
    assert again.checked == again.asked == []


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    head = opened(tmp_path, save_classifier(tmp_path / "model"), MOODS)
    plan = head.plan({"train": moods("sun " * 9, "rain")}, CLASSES)
    assert plan.cut == 1 and plan.tokens == 8 + 1
    assert signal_key(head.teacher.identity.digest(), plan.requests[0]) == head.cache.signals.keys(plan.requests)[0]
