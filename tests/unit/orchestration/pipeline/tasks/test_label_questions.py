"""Texts at a door become the questions of a fill, and its answers the beliefs that students learn from."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking_engines import Speaker
from task_files import IDENTITY, tiny_model, write_task

from cache import SignalRecord, TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from cache.signals import Signal
from configs import ConfigError
from configs.task_teacher import TaskTeacherConfig
from orchestration.comparison.task_questions import Asking
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.tasks import load_task
from orchestration.pipeline.tasks.generative_teacher import GenerativeTeacher, TaskQuestions
from orchestration.pipeline.tasks.label_questions import LabelQuestions
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.signals.labels import LabelDesk, LabelTexts
from teacher_server.http.texts import TextError
from teacher_server.requests import Asked

CLASSES = Signal("class_logits")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


def likes(prompt: str, more: str) -> float:
    """Prefers `rain` three to one a token, whatever it is asked, and `sun` nine times as much of a pie."""
    liked = {"sun": -3.0, "rain": -3.0 + math.log(3)}[more.strip()]
    return liked + (math.log(9) if "pie" in prompt and "sun" in more else 0.0)


def asked_as(root: Path, files: ModelFiles, *, calibrated: bool = False, **task: Any) -> TaskQuestions:
    model: Any = {"path": files.directory}
    settings = TaskTeacherConfig.model_validate({"model": model, "answers": "labels", "calibrated": calibrated})
    return TaskQuestions(files, load_task(write_task(root / "task", **task)), settings, Asking())


class Engine:
    """A speaking engine as a desk asks it."""

    def __init__(self, files: ModelFiles) -> None:
        self.speaker = Speaker(files, IDENTITY, likes=likes)

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        [[(_, outcome)]] = self.speaker.work([Asked(request, k)])
        return outcome


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_door_says_what_a_fill_says_of_rows_that_both_find(
    tmp_path: Path, files: ModelFiles, *, calibrated: bool
) -> None:
    questions = asked_as(tmp_path, files, calibrated=calibrated)
    reader, examples = LabelQuestions.of(questions, identity=IDENTITY, key="teacher"), questions.task.test
    texts = LabelTexts(reader)
    asks = [texts.text(example.text).asks(CLASSES) for example in examples]

    def seen() -> tuple[list[SignalRecord], int]:
        """What a new door says, and how many sequences it had scored."""
        engine = Engine(files)
        terms = DeskTerms(vocab=files.vocab, most_k=1, encoding="topk-f16", commit_every_s=3600.0)
        sequences = SequenceDesk(TeacherCache.open(tmp_path / "cache", IDENTITY), engine, terms)
        desk = LabelDesk(sequences, reader, identity=reader.identity.digest())

        async def play() -> list[SignalRecord]:
            found = [each.outcome for each in await desk.answer(asks)]
            await desk.close()
            return [each for each in found if isinstance(each, SignalRecord)]

        return asyncio.run(play()), len(engine.speaker.asked)

    first, paid = seen()
    assert paid == 2 * (len(examples) + (3 if calibrated else 0))
    # What a fill would have asked for is there, and is read as it is read here.
    teacher = GenerativeTeacher(questions, TeacherCache.open(tmp_path / "cache", IDENTITY))
    for record, expected in zip(first, teacher.about(examples), strict=True):
        assert isinstance(expected, Beliefs)
        np.testing.assert_allclose(record.values, expected.logits, atol=1e-6)
    again, paid = seen()
    assert paid == 0 and len(again) == len(first)


def test_a_text_that_cannot_be_asked_about_is_refused(tmp_path: Path, files: ModelFiles) -> None:
    texts = LabelTexts(LabelQuestions.of(asked_as(tmp_path, files), identity=IDENTITY, key="teacher"))
    special = files.tokenizer.all_special_tokens[0]
    for ask, reason in [
        (lambda: texts.text(f"tea {special}"), "spells the special token"),
        (lambda: texts.text("tea", "milk"), "asks about 1 texts at once"),
        (lambda: texts.words(["tea"]), "ask about text, not words"),
        (lambda: texts.ids((1, 2), None), "ask about text, not token_ids"),
    ]:
        with pytest.raises(TextError, match=reason):
            ask()


def test_pairs_are_the_two_fields_that_the_task_names(tmp_path: Path, files: ModelFiles) -> None:
    task: dict[str, Any] = {
        "rows": {
            split: [{"text": "a", "more": "b", "mood": "good"}, {"text": "c", "more": "d", "mood": "bad"}]
            for split in ("train", "dev", "test")
        },
        "fields": {"label": "mood", "second": "more"},
        "template": "{{ text }} and {{ more }} is",
    }
    questions = asked_as(tmp_path, files, **task)
    reader = LabelQuestions.of(questions, identity=IDENTITY, key="teacher")
    text = LabelTexts(reader).text("tea", "milk")
    assert files.tokenizer.decode(text.token_ids) == "tea and milk is"
    assert [files.tokenizer.decode(ids) for ids in text.label_ids] == [" sun", " rain"]
    with pytest.raises(TextError, match="asks about 2 texts"):
        LabelTexts(reader).text("tea")


def test_more_fields_than_texts_are_refused(tmp_path: Path, files: ModelFiles) -> None:
    questions = asked_as(tmp_path, files, template="{{ text }} {{ mood }} is")
    with pytest.raises(ConfigError, match="name one field in it"):
        LabelQuestions.of(questions, identity=IDENTITY, key="teacher")
