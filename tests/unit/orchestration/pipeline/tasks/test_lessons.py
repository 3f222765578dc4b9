from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_builders import task_of
from task_heads import save_span_finder
from transformers import AutoTokenizer

from configs import ConfigError, DataError
from configs.task_data import AgreementFilter
from configs.task_stages import TaskStageConfig
from evaluation.tasks.examples import Example, read_examples
from orchestration.inputs.example_sets import Copies, TaskSets
from orchestration.inputs.task_examples import Beliefs, Said
from orchestration.inputs.task_sets import name_anew
from orchestration.inputs.task_texts import WHOLE
from orchestration.pipeline.tasks.lessons import Lessons, Reader, TaskLesson
from student_train.feed.examples import ExampleSet

TASK = task_of("classification", labels=["good", "bad"])

GOLD = TaskStageConfig(objective="hard_labels", steps=1)

LOGITS = TaskStageConfig(objective="logit_mse", data=("train", "transfer"), steps=1)


def examples(*texts: str, labelled: bool = True) -> tuple[Example, ...]:
    """Texts that begin with `sun` are good, others bad."""
    rows = [{"text": text, "label": "good" if text.startswith("sun") else "bad"} for text in texts]
    return read_examples(TASK, list(enumerate(rows)), labelled=labelled).usable


SETS = TaskSets(
    {"train": examples("sun sun", "rain", "sun rain"), "transfer": examples("oslo", "rome", labelled=False)}, ()
)

DEV = examples("sun", "rain rain")


class Teacher:
    """Finds every text good at these odds, and `oslo` beyond it; `asked` counts."""

    def __init__(self, odds: float = 2.0) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._odds = odds

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None]:
        self.asked.append(tuple(example.text for example in examples))
        logits = np.array([[np.log(self._odds), 0.0]], np.float32)
        return [None if example.text == "oslo" else Beliefs((WHOLE,), logits) for example in examples]


@pytest.fixture()
def reader(tmp_path: Path) -> Reader:
    return Reader(AutoTokenizer.from_pretrained(save_span_finder(tmp_path / "model")), "tokenizer", 16)


def lessons(place: Path, teacher: Teacher | None = None, **changes: Any) -> Lessons:
    fields: dict[str, Any] = {"task": TASK, "beliefs": teacher, "agreement": None, "folder": place / "lessons"}
    return Lessons(SETS, DEV, **fields | changes)


def test_gold_needs_no_teacher_and_does_not_depend_on_one(tmp_path: Path, reader: Reader) -> None:
    teacher = Teacher()
    lesson = lessons(tmp_path, teacher).of(GOLD, reader)
    train, dev = ExampleSet.load(lesson.train), ExampleSet.load(lesson.dev)
    assert (train.gold.tolist(), dev.gold.tolist()) == ([0, 1, 0], [0, 1])
    assert train.teacher is None and dev.teacher is None and teacher.asked == []
    assert (lesson.train_digest, lesson.dev_digest) == (train.digest, dev.digest)
    assert lessons(tmp_path / "elsewhere").of(GOLD, reader).train_digest == train.digest


def test_what_the_teacher_believes_stands_beside_each_example_that_it_answered(tmp_path: Path, reader: Reader) -> None:
    lesson = lessons(tmp_path, Teacher()).of(LOGITS, reader)
    train, dev = ExampleSet.load(lesson.train), ExampleSet.load(lesson.dev)
    assert train.gold.tolist() == [0, 1, 0, -1]
    assert train.teacher is not None and train.teacher.shape == (4, 2)
    assert dev.teacher is not None and dev.teacher.shape == (2, 2)
    assert lesson.rows == 4
    assert lesson.notes == ("train-transfer: 1 examples are left out: the teacher did not answer",)


def test_a_set_is_asked_about_once(tmp_path: Path, reader: Reader) -> None:
    teacher = Teacher()
    made = lessons(tmp_path, teacher)
    first = made.of(LOGITS, reader)
    assert made.of(LOGITS.model_copy(update={"learning_rate": 0.5}), reader) is first
    made.of(LOGITS.model_copy(update={"data": ("train",)}), reader)
    assert len(teacher.asked) == 3


@pytest.mark.parametrize(("odds", "gold"), [(2.0, [0, 0, -1]), (0.5, [1, -1])])
def test_gold_on_which_the_teacher_disagrees_is_left_out(
    odds: float, gold: list[int], tmp_path: Path, reader: Reader
) -> None:
    made = lessons(tmp_path, Teacher(odds), agreement=AgreementFilter(min_probability=0.6))
    lesson = made.of(LOGITS, reader)
    assert ExampleSet.load(lesson.train).gold.tolist() == gold
    assert len(ExampleSet.load(lesson.dev)) == 2
    assert any("teacher and gold disagree (data.agreement)" in note for note in lesson.notes)


def test_texts_that_the_student_does_not_see_whole_are_counted(tmp_path: Path, reader: Reader) -> None:
    short = Reader(reader.tokenizer, reader.name, 3)
    lesson = lessons(tmp_path).of(GOLD, short)
    assert "train: 2 of 3 texts are cut to 3 tokens of the student" in lesson.notes
    assert "dev: 1 of 2 texts are cut to 3 tokens of the student" in lesson.notes


def test_nothing_to_learn_from_is_refused(tmp_path: Path, reader: Reader) -> None:
    silent = Teacher()
    silent.about = lambda examples: [None] * len(examples)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="no example of task t is left"):
        lessons(tmp_path, silent).of(LOGITS, reader)


def test_agreement_is_about_one_label_a_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.agreement compares one label a text"):
        lessons(tmp_path, task=task_of("tagging", labels=["LOC"]), agreement=AgreementFilter(min_probability=0.5))


class Speaker:
    """Says `bad` of every text, and nothing of `oslo`."""

    def about(self, examples: Sequence[Example]) -> list[Said | None]:
        return [None if example.text == "oslo" else Said(("bad",)) for example in examples]


def test_what_a_teacher_said_is_learned_as_certain(reader: Reader, tmp_path: Path) -> None:
    stage = TaskStageConfig(objective="hard_labels", labels="teacher", data=("train", "transfer"), steps=1)
    lessons = Lessons(SETS, DEV, task=TASK, beliefs=Speaker(), agreement=None, folder=tmp_path / "lessons")
    lesson = lessons.of(stage, reader)
    learned = ExampleSet.load(lesson.train)
    assert learned.teacher is not None and learned.teacher.argmax(axis=1).tolist() == [1] * 4
    # What gold says stays beside it.
    assert learned.gold.tolist() == [0, 1, 0, -1]
    assert lesson.notes == ("transfer: 1 examples are left out: the teacher did not answer",) or lesson.notes == (
        "train-transfer: 1 examples are left out: the teacher did not answer",
    )
    filtered = Lessons(
        SETS, DEV, task=TASK, beliefs=Speaker(), agreement=AgreementFilter(min_probability=0.5), folder=tmp_path / "l"
    ).of(stage, reader)
    assert ExampleSet.load(filtered.train).gold.tolist() == [1, -1]


TURNING = TaskSets(
    {"train": SETS.sets["train"], "made": examples("sun", "rain oslo", "oslo", "sun sun rain")},
    (),
    {
        "made": (
            Copies(("train", 0), (("made", 0), ("made", 3), ("train", 0))),
            Copies(("train", 1), (("made", 1), None, ("made", 9))),
            Copies(("train", 2), (("made", 2), None, ("made", 9))),
        )
    },
)
"""Of three texts three copies: one is the text itself, some are empty, and row 9 was left out on the way."""


def turning(place: Path, reader: Reader, sets: TaskSets = TURNING, **stage: Any) -> tuple[list[list[str]], TaskLesson]:
    """The words that epochs read, and the lesson."""
    fields: dict[str, Any] = {"objective": "logit_mse", "data": ("made",), "epochs": 3.0} | stage
    teacher = None if fields.get("teacher") == "live" else Teacher()
    made = Lessons(sets, DEV, task=TASK, beliefs=teacher, agreement=None, folder=place / "lessons")
    lesson = made.of(TaskStageConfig.model_validate(fields), reader)
    train = ExampleSet.load(lesson.train)
    texts = [
        reader.tokenizer.decode(train.token_ids[first:last], skip_special_tokens=True)
        for first, last in itertools.pairwise(train.token_offsets)
    ]
    return [[texts[at] for at in train.of_epoch(epoch)] for epoch in range(3)], lesson


def test_copies_take_turns_and_what_is_not_there_is_stood_for(tmp_path: Path, reader: Reader) -> None:
    # What the teacher did not answer (oslo alone) is as if it were not there: the text itself stands for all of it.
    first, second, third = ["sun", "rain oslo", "sun rain"], ["sun sun rain", "rain oslo", "sun rain"], "sun sun"
    epochs, lesson = turning(tmp_path, reader, views=3)
    assert epochs == [first, second, [third, *first[1:]]]
    assert "made: 1 examples are left out: the teacher did not answer" in lesson.notes
    assert turning(tmp_path, reader, views=2)[0] == [first, second, first]
    assert turning(tmp_path, reader, views=1)[0] == [first, first, first]
    # Texts that are named themselves are read in every epoch, beside those that stand for their copies.
    every = ["sun sun", "rain", "sun rain"]
    assert turning(tmp_path, reader, views=2, data=("train", "made"))[0][1] == every + second


def test_without_turns_every_copy_is_read(tmp_path: Path, reader: Reader) -> None:
    epochs, lesson = turning(tmp_path, reader)
    assert epochs == [["sun", "rain oslo", "sun sun rain"]] * 3
    assert lesson.rows == 3


def test_the_turns_are_part_of_what_a_student_is_addressed_by(tmp_path: Path, reader: Reader) -> None:
    digests = {turning(tmp_path, reader, views=views)[1].train_digest for views in (1, 2, 3)}
    assert len(digests) == 3
    again = turning(tmp_path / "elsewhere", reader, views=2)[1].train_digest
    assert again == turning(tmp_path, reader, views=2)[1].train_digest


def test_a_live_teacher_reads_what_is_drawn_anew_and_is_not_asked(tmp_path: Path, reader: Reader) -> None:
    anew = name_anew("made")
    copies = tuple(Copies(("train", at), ((anew, at), ("train", at), (anew, at))) for at in range(3))
    sets = TaskSets(
        {**TURNING.sets, anew: examples("oslo sun", "oslo rain", "rome")}, (), {**TURNING.copies, anew: copies}
    )
    epochs, lesson = turning(tmp_path, reader, sets, teacher="live", epochs=2.5)
    drawn, themselves = ["oslo sun", "oslo rain", "rome"], ["sun sun", "rain", "sun rain"]
    assert epochs == [drawn, themselves, drawn]
    assert lesson.counts == {anew: 3}
    train, dev = ExampleSet.load(lesson.train), ExampleSet.load(lesson.dev)
    assert train.turns is not None and len(train.turns) == 3
    assert (train.teacher, dev.teacher) == (None, None)
    # Texts that nothing is made of are the same in every epoch.
    assert turning(tmp_path, reader, sets, teacher="live", data=("train",))[0] == [themselves] * 3
