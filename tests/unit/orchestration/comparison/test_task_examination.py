"""A task put to a model: by text, by the likelihood of labels, under several seeds; what is found is kept by address."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from task_files import SpeakingPool, candidate_of, tiny_model, write_task

from cache.protocols import Failure
from configs import EngineError
from evaluation.results import DevScores, FinalScores, ModelResults
from orchestration.comparison.task_examination import TaskExamination, on_dev, on_test
from orchestration.comparison.task_questions import Asking
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.tasks import load_task
from orchestration.outputs.artifacts import Artifacts

WORDS = {"pie": "sun", "fog": "It is sun.", "fig": "no idea"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


def says(prompt: str, seed: int) -> str:
    return WORDS[prompt.removesuffix(" is").rpartition("\n")[2]]


def examination(folder: Path, *, asking: Asking | None = None, **settings: Any) -> TaskExamination[FinalScores]:
    task = load_task(write_task(folder / "task", **settings))
    return on_test(task, asking or Asking(), artifacts=Artifacts(folder / "runs"))


def found(way: TaskExamination[FinalScores], files: ModelFiles, pool: Any) -> FinalScores:
    way.run(candidate_of(files), pool)
    scores = way.scores(candidate_of(files))
    assert scores is not None
    return scores


def test_text_is_read_and_what_cannot_be_read_is_kept_as_such(tmp_path: Path, files: ModelFiles) -> None:
    scores = found(examination(tmp_path), files, SpeakingPool(says))
    assert (scores.task, scores.answered_by) == ("moods", "text")
    assert [each.predicted for each in scores.examples] == [("good",), ("good",), None]
    assert [each.answer for each in scores.examples] == ["sun", "It is sun.", "no idea"]
    assert [each.gold for each in scores.examples] == [("good",), ("bad",), ("good",)]
    assert [each.shown for each in scores.examples] == ["pie is", "fog is", "fig is"]
    assert all(math.isnan(each.confidence) for each in scores.examples)
    assert scores.examples[0].tokens == len("pie is")


def test_an_answer_has_the_limits_of_the_task_and_the_stops_of_the_model(tmp_path: Path, files: ModelFiles) -> None:
    pool = SpeakingPool(says)
    found(examination(tmp_path, max_new_tokens=2), files, pool)
    assert {(each.max_new_tokens, each.stop_ids, each.temperature) for each in pool.asked} == {(2, files.stop_ids, 0.0)}


def test_the_longest_question_is_known_with_its_answer(tmp_path: Path, files: ModelFiles) -> None:
    by_text = examination(tmp_path / "a", max_new_tokens=7)
    assert by_text.longest(files) == len("pie is") + 7
    by_likelihood = examination(tmp_path / "b", label_scoring={})
    assert by_likelihood.longest(files) == len("pie is rain") + 1
    untalkative = tiny_model(tmp_path / "models")
    untalkative.tokenizer.chat_template = None
    assert examination(tmp_path / "c", chat=True).longest(untalkative) == 0


@pytest.mark.parametrize(("per_token", "best"), [(True, "bad"), (False, "good")])
def test_labels_are_likely_as_their_tokens_are(tmp_path: Path, files: ModelFiles, per_token: bool, best: str) -> None:
    """ " sun" has four tokens and " rain" five: the longer is likelier a token, the shorter as a whole."""
    likes = {" sun": -0.5, " rain": -0.45}
    pool = SpeakingPool(likes=lambda prompt, more: [likes[more]] * len(more))
    way = examination(tmp_path, label_scoring={"per_token": per_token})
    scores = found(way, files, pool)
    assert scores.answered_by == "label likelihood" + (" per token" if per_token else "")
    assert {each.predicted for each in scores.examples} == {(best,)}
    apart = 0.05 if per_token else 0.25
    assert scores.examples[0].confidence == pytest.approx(1 / (1 + math.exp(-apart)), abs=1e-6)
    assert len(pool.asked) == 6


def test_a_label_that_cannot_be_scored_is_an_answer_that_cannot_be_read(tmp_path: Path, files: ModelFiles) -> None:
    pool = SpeakingPool(likes=lambda prompt, more: Failure("too long") if "fog" in prompt else [-1.0] * len(more))
    scores = found(examination(tmp_path, label_scoring={}), files, pool)
    assert [each.predicted is None for each in scores.examples] == [False, True, False]


def test_sampled_answers_are_asked_for_under_every_seed(tmp_path: Path, files: ModelFiles) -> None:
    way = examination(tmp_path, asking=Asking(temperature=0.8, seed=4, seeds=2))
    pool = SpeakingPool(lambda prompt, seed: "sun" if seed == 4 else "rain")
    scores = found(way, files, pool)
    assert [(each.row, each.seed, each.predicted) for each in scores.examples] == [
        (0, 4, ("good",)), (1, 4, ("good",)), (2, 4, ("good",)), (0, 5, ("bad",)), (1, 5, ("bad",)), (2, 5, ("bad",)),
    ]  # fmt: skip


def test_one_question_that_fails_costs_the_others_nothing(tmp_path: Path, files: ModelFiles) -> None:
    pool = SpeakingPool(lambda prompt, seed: Failure("too long") if "fog" in prompt else "sun")
    scores = found(examination(tmp_path), files, pool)
    assert [each.predicted for each in scores.examples] == [("good",), None, ("good",)]


def test_a_model_that_answers_nothing_is_an_error(tmp_path: Path, files: ModelFiles) -> None:
    pool: Any = SpeakingPool(lambda prompt, seed: Failure("too long"))
    with pytest.raises(EngineError, match="no question was answered: too long"):
        examination(tmp_path).run(candidate_of(files), pool)


def test_what_was_found_is_kept_by_all_that_it_depends_on(tmp_path: Path, files: ModelFiles) -> None:
    way, candidate = examination(tmp_path), candidate_of(files)
    assert way.due(candidate)
    found(way, files, SpeakingPool(says))
    assert not way.due(candidate)
    assert not way.due(replace(candidate, name="called otherwise"))
    assert way.due(replace(candidate, digest="e" * 64))
    assert replace(way, asking=Asking(temperature=0.5)).due(candidate)
    assert examination(tmp_path, few_shot=1).due(candidate)


def test_dev_and_test_are_apart(tmp_path: Path, files: ModelFiles) -> None:
    task = load_task(write_task(tmp_path / "task"))
    artifacts, candidate = Artifacts(tmp_path / "runs"), candidate_of(files)
    dev, test = (make(task, Asking(), artifacts=artifacts) for make in (on_dev, on_test))
    assert (dev.title, test.title) == ("task moods on dev", "task moods")
    pool: Any = SpeakingPool(lambda prompt, seed: "sun")
    dev.run(candidate, pool)
    assert isinstance(dev.scores(candidate), DevScores)
    assert test.due(candidate)
    test.run(candidate, pool)
    assert isinstance(test.scores(candidate), FinalScores)
    row = ModelResults("s", "student", "", None, "", 0, 0, None, None, (), (), (), None, None, ())
    assert dev.add(row, candidate).tasks == ()
    assert [type(each) for each in test.add(row, candidate).tasks] == [FinalScores]


def test_what_a_teacher_is_asked_is_counted_at_most(tmp_path: Path, files: ModelFiles) -> None:
    asked = sum(len(text) for text in ("pie is", "fog is", "fig is"))
    assert replace(examination(tmp_path, max_new_tokens=7), teacher=files).teacher_tokens() == asked + 3 * 7
    scoring = replace(examination(tmp_path, label_scoring={}), teacher=files)
    assert scoring.teacher_tokens() == 2 * asked + 3 * (len(" sun") + len(" rain"))
    sampled = replace(examination(tmp_path, asking=Asking(temperature=1.0, seeds=2), max_new_tokens=7), teacher=files)
    assert sampled.teacher_tokens() == 2 * (asked + 3 * 7)


CHOICE = """
from evaluation.results import DevScores, FinalScores

def choose(scores: dict[str, DevScores]) -> str: ...
def wrong(scores: dict[str, FinalScores]) -> str: return choose(scores)
"""


@pytest.mark.parametrize(("scores", "refused"), [("FinalScores", True), ("DevScores", False)])
def test_a_choice_on_the_test_split_does_not_type_check(tmp_path: Path, scores: str, refused: bool) -> None:
    (tmp_path / "choice.py").write_text(CHOICE.replace("dict[str, FinalScores]", f"dict[str, {scores}]"))
    root = Path(__file__).resolve().parents[4]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--no-incremental",
        "--follow-imports=silent",
        "--config-file=",
        "choice.py",
    ]
    checked = subprocess.run(
        command, cwd=tmp_path, env={"MYPYPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert ("arg-type" in checked.stdout) is refused, checked.stdout + checked.stderr
