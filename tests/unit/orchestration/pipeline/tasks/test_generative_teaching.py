"""A language model is asked about all sets of an experiment, with engines that say what a function says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_teachers import TOKEN_ENV, serving, without_weights
from speaking_engines import Speaker
from task_pipeline_builders import TaskPlace, spoken_place

from cache import CacheView
from configs import BudgetReached, ConfigError, DoorError, ModelError
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.generative_teachers import generative_provenance, open_generative_teacher
from orchestration.inputs.task_examples import Said
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.pipeline.tasks.generative_teaching import AskedInWords, GenerativeTeaching

HARD = {"objective": "hard_labels", "labels": "teacher"}


def opened(place: TaskPlace) -> tuple[AskedInWords, LoadedTask]:
    run = place.run
    task = load_task(run.config.task)
    teaching: Any = place.teaching(run, place.journal, place.workers)
    assert "identity" in teaching.require(task, progress=lambda done, total: None)
    return teaching.plan(task, TaskSets({"train": task.train}, ()), prepared=None), task


def test_what_is_missing_is_asked_checked_counted_and_pinned(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage=HARD)
    asked, task = opened(place)
    assert (asked.wanted.answers, asked.wanted.misses) == (20, 20) and asked.wanted.stored_bytes > 0
    assert asked.pin(tmp_path / "views") == {}
    asked.ask()
    assert place.called == ["check 2", "fill 20", "release"] and place.workers.clusters == 1
    assert place.journal.ledger.counts().fill > 0
    views = asked.pin(tmp_path / "views")
    assert list(views) == ["train", "dev", "test"]
    assert CacheView.load(tmp_path / "views/train.npz").digest == views["train"]
    beliefs = asked.about(task.train)
    assert [int(each.logits.argmax()) for each in beliefs if not isinstance(each, Said | None)] == [0, 1, 0, 1, 0, 1]
    again, _ = opened(place)
    assert again.wanted.misses == 0
    again.ask()
    assert place.called[3:] == ["release"] and "nothing to ask: every row is in the cache" in place.said


def test_its_row_is_of_the_answers_on_dev_and_test(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    asked, _ = opened(place)
    asked.ask()
    given = asked.given()["teacher"]
    assert [example.predicted for example in given.test.examples] == [("good",), ("bad",)]
    assert [example.answer.strip() for example in given.dev.examples] == ["good", "bad, clearly"]
    assert given.test.answered_by == "text, held to what can be read" and given.digest == asked.name.identity.digest()
    assert given.parameters == asked.asked.teacher.files.shape.parameters and given.disk_bytes > 0


def test_what_was_refused_or_not_read_is_said_and_refusals_are_not_asked_again(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    words = {"sun is": None, "rain is": "hm"}
    place.speaks["says"] = lambda prompt: words.get(prompt, "bad")
    asked, task = opened(place)
    asked.ask()
    assert asked.notes() == (
        "train: the teacher did not answer 1 of 6 questions",
        "train: 1 of 6 answers of the teacher could not be read",
    )
    assert asked.about(task.train)[:3] == [None, None, Said(("bad",))]
    again, _ = opened(place)
    assert again.wanted.misses == 0 and again.asked.plan.refused


def test_a_budget_ends_it_and_what_was_bought_stays(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage=HARD)
    place.values["budgets"] = {"max_teacher_tokens": 60}
    asked, _ = opened(place)
    with pytest.raises(BudgetReached):
        asked.ask()
    place.values["budgets"] = {}
    rest, _ = opened(place)
    assert 0 < rest.wanted.misses < 20


def test_texts_are_read_with_its_tokenizer_for_starts_that_measure_it(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    asked, _ = opened(place)
    rows = asked.rows()
    assert len(rows) == 10 and [len(row) for row in rows[:2]] == [len("sun"), len("rain")]


@pytest.mark.parametrize(("answers", "grammars"), [("labels", False), ("text", True)])
def test_engines_for_text_hold_answers_to_grammars(answers: str, grammars: bool, tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers=answers, stage=HARD)
    workers: Any = place.workers
    asked = GenerativeTeaching(place.run, place.journal, workers).plan(
        load_task(place.run.config.task), TaskSets({}, ()), prepared=None
    )
    spec = asked.asked.pool.spec
    assert (spec.grammars, spec.teaches, spec.identity) == (grammars, True, asked.name.identity)
    assert spec.ledger == place.journal.ledger.directory.absolute()


@pytest.fixture
def there(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskPlace]:
    """An experiment without the weights of its teacher, which answers behind a door as long as the test lasts."""
    (tmp_path / "there").mkdir()
    place = spoken_place(tmp_path / "there", answers=getattr(request, "param", "labels"), stage=HARD)
    teacher = open_generative_teacher(place.run.config, load_task(place.run.config.task).config)
    files = teacher.files
    speaker = Speaker(files, teacher.by_weights, **place.speaks)
    with serving(
        tmp_path, teacher.by_weights, vocab=files.vocab, stop_ids=files.stop_ids, max_model_len=128,
        licence="mit", vocab_sha256=files.vocab_sha256, source=speaker,
    ) as served:  # fmt: skip
        monkeypatch.setenv(TOKEN_ENV, served.token)
        place.values["teacher"] |= {
            "model": {"path": str(without_weights(files.directory, tmp_path / "bare"))},
            "serve": served.block(),
            "licence": "mit",
        }
        place.values["students"]["bag"]["start"]["embeddings"] = "random"
        yield place


@pytest.mark.parametrize("there", ["labels", "text"], indirect=True)
def test_a_language_model_behind_a_door_answers_as_one_here(tmp_path: Path, there: TaskPlace) -> None:
    (tmp_path / "here").mkdir()
    here = spoken_place(tmp_path / "here", answers=there.values["teacher"]["answers"], stage=HARD)
    ours, task = opened(here)
    ours.ask()
    theirs, _ = opened(there)
    theirs.show(there.journal.console)
    theirs.ask()
    assert theirs.name.identity == ours.name.identity
    assert repr(theirs.about(task.train)) == repr(ours.about(task.train))
    assert there.called == [] and there.workers.clusters == 0
    assert "asked where it answers" in there.said and there.journal.ledger.counts().gpu_seconds == 0
    answers = theirs.given()["teacher"]
    assert "by noise behind 127.0.0.1" in answers.note and "vLLM" not in answers.note
    # Its weights are nowhere here: what they take is what the door serves.
    assert answers.disk_bytes == 4 * answers.parameters
    said = generative_provenance(there.run.config, theirs.asked.teacher)
    assert said["served_by"].startswith("127.0.0.1") and "vllm" not in said
    again, _ = opened(there)
    assert again.wanted.misses == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"licence": "apache-2.0"}, "teacher.licence=apache-2.0, and noise behind .* is under mit"),
        ({"dtype": "bfloat16"}, "teacher.dtype=bfloat16, and noise behind .* has dtype=float32"),
    ],
)
def test_a_door_to_another_language_model_is_refused_before_it_is_asked(
    there: TaskPlace, changes: dict[str, Any], said: str
) -> None:
    there.values["teacher"] |= changes
    with pytest.raises(ConfigError, match=said):
        opened(there)


def test_questions_that_the_door_does_not_take_are_refused(there: TaskPlace) -> None:
    there.values["runtime"]["teacher_engine"] = {"max_model_len": 256}
    with pytest.raises(ConfigError, match=r"max_model_len=256 is how long .* and noise behind .* takes 128 tokens"):
        opened(there)


def test_a_door_that_is_away_is_said(there: TaskPlace) -> None:
    there.values["teacher"]["serve"] = {"url": "http://127.0.0.1:9", "token_env": TOKEN_ENV, "patience_s": 0.1}
    with pytest.raises(DoorError, match=r"^teacher\.serve: "):
        opened(there)


def test_students_that_are_cut_out_of_it_need_its_weights(there: TaskPlace) -> None:
    there.values["students"]["bag"]["start"]["embeddings"] = "teacher"
    with pytest.raises(ModelError, match="safetensors"):
        opened(there)


def test_an_experiment_needs_no_weights_of_a_language_model_behind_a_door(there: TaskPlace, tmp_path: Path) -> None:
    ended = there.go("train")
    (tmp_path / "here").mkdir()
    here = spoken_place(tmp_path / "here", answers="labels", stage=HARD)
    here.values["students"] = there.values["students"]
    here.values["teacher"]["licence"] = "mit"
    weighed = here.go("train")
    # A student has the same address, wherever the weights of its teacher are.
    found, expected = ended.students, weighed.students
    assert found is not None and expected is not None
    assert found.chains.keys() == expected.chains.keys()
    for name, chains in found.chains.items():
        assert [each.digest for each in chains] == [each.digest for each in expected.chains[name]]
