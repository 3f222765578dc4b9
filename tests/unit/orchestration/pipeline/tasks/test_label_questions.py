"""Texts at a door become the questions of a fill, and its answers the beliefs that students learn from."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking_engines import Speaker
from task_files import IDENTITY, tiny_model
from test_generative_teacher import likes, place

from cache import SignalRecord, TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from cache.signals import Signal
from configs import ConfigError
from orchestration.inputs.models import ModelFiles
from orchestration.pipeline.tasks.label_questions import LabelQuestions
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.signals.labels import LabelDesk, LabelTexts
from teacher_server.http.texts import TextError

CLASSES = Signal("class_logits")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


class Engine:
    """A speaking engine as a desk asks it."""

    def __init__(self, files: ModelFiles) -> None:
        self.speaker = Speaker(files, IDENTITY, likes=likes)

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        [answer] = self.speaker.answer([request], k=k).answers
        return answer


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_door_says_what_the_fill_says_and_asks_nothing_that_the_fill_has(
    tmp_path: Path, files: ModelFiles, *, calibrated: bool
) -> None:
    here = place(tmp_path, files, calibrated=calibrated)
    here.ask(likes=likes)
    reader = LabelQuestions.of(here.teacher.questions, identity=IDENTITY, key="teacher")
    engine = Engine(files)

    async def play() -> None:
        cache = TeacherCache.open(here.root / "cache", IDENTITY)
        terms = DeskTerms(vocab=files.vocab, most_k=1, encoding="topk-f16", commit_every_s=3600.0)
        desk = LabelDesk(SequenceDesk(cache, engine, terms), reader, identity=reader.identity.digest())
        texts = LabelTexts(reader)
        questions = [texts.text(example.text).asks(CLASSES) for example in here.task.test]
        for found, expected in zip(await desk.answer(questions), here.teacher.about(here.task.test), strict=True):
            assert found.cached and isinstance(found.outcome, SignalRecord) and expected is not None
            np.testing.assert_allclose(found.outcome.values, expected.logits, atol=1e-6)
        assert engine.speaker.asked == []
        # A text that nobody asked about, twice at once: one question, a sequence a label.
        new = texts.text("hail").asks(CLASSES)
        first, second = await asyncio.gather(desk.answer([new]), desk.answer([new]))
        assert len(engine.speaker.asked) == 2 and not first[0].cached and not second[0].cached
        assert desk.counts.teacher_tokens == sum(len(each.token_ids) for each in new.scores)
        (held,) = await desk.held([new])
        assert isinstance(held, SignalRecord)
        await desk.close()

    asyncio.run(play())
    # What was said is an ordinary row of the language model: the next door, and a fill, find it.
    cache = TeacherCache.open(here.root / "cache", IDENTITY)
    assert None not in cache.lookup(list(LabelTexts(reader).text("hail").asks(CLASSES).scores), k=1)


def test_a_text_that_cannot_be_asked_about_is_refused(tmp_path: Path, files: ModelFiles) -> None:
    texts = LabelTexts(LabelQuestions.of(place(tmp_path, files).teacher.questions, identity=IDENTITY, key="teacher"))
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
    questions = place(tmp_path, files, **task).teacher.questions
    reader = LabelQuestions.of(questions, identity=IDENTITY, key="teacher")
    text = LabelTexts(reader).text("tea", "milk")
    assert files.tokenizer.decode(text.token_ids) == "tea and milk is"
    assert [files.tokenizer.decode(ids) for ids in text.label_ids] == [" sun", " rain"]
    with pytest.raises(TextError, match="asks about 2 texts"):
        LabelTexts(reader).text("tea")


def test_more_fields_than_texts_are_refused(tmp_path: Path, files: ModelFiles) -> None:
    questions = place(tmp_path, files, template="{{ text }} {{ mood }} is").teacher.questions
    with pytest.raises(ConfigError, match="name one field in it"):
        LabelQuestions.of(questions, identity=IDENTITY, key="teacher")
    assert math.isfinite(likes("pie is", " sun"))
