"""A language model labels the examples of a task through the cache: what it is asked, and what its answers mean."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking_engines import Speaker
from task_files import IDENTITY, tiny_model, write_task

from cache import GenerateRequest, ScoreRequest, TeacherCache
from configs import ConfigError, EngineError, ModelError
from configs.task_teacher import TaskTeacherConfig
from configs.teacher_context import TeacherContext
from orchestration.comparison.task_questions import Asking
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, fill
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.task_examples import Beliefs, Said
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.tasks.generative_teacher import GenerativeTeacher, TaskQuestions
from orchestration.plan.requests import SequenceSet, plan_fill


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


@dataclass
class Place:
    """A teacher with its cache, and engines that fill it."""

    root: Path
    files: ModelFiles
    task: LoadedTask
    settings: TaskTeacherConfig

    @property
    def teacher(self) -> GenerativeTeacher:
        cache = TeacherCache.open(self.root / "cache", IDENTITY)
        return GenerativeTeacher(TaskQuestions(self.files, self.task, self.settings, Asking()), cache)

    def ask(self, **says: Any) -> Speaker:
        """Ask about dev and test what the cache lacks."""
        teacher, engines = self.teacher, Speaker(self.files, IDENTITY, **says)
        questions = teacher.questions
        asked = questions.of((*self.task.dev, *self.task.test))
        asked += questions.content_free() if self.settings.calibrated else []
        requests = tuple(request for question in asked for request in questions.requests(question))
        order = FillOrder(False, self.root / "cache", questions.k, 1e6, None, {}, self.root / "ledger")
        fill(
            plan_fill([SequenceSet("teacher", "all", requests, questions.k)], cache=teacher.cache),
            cache=teacher.cache,
            engines=engines,
            order=order,
            budgets=Budgets(None, None),
            vocab=self.files.vocab,
            progress=StageProgress("fill", total=None, unit="rows", started=time.monotonic()),
        )
        return engines


def place(root: Path, files: ModelFiles, *, answers: str = "labels", calibrated: bool = False, **task: Any) -> Place:
    model: Any = {"path": files.directory}
    settings = TaskTeacherConfig.model_validate({"model": model, "answers": answers, "calibrated": calibrated})
    return Place(root, files, load_task(write_task(root / "task", **task)), settings)


def likes(prompt: str, more: str) -> float:
    """Prefers `rain` three to one a token, whatever it is asked, and `sun` nine times as much of a pie."""
    liked = {"sun": -3.0, "rain": -3.0 + math.log(3)}[more.strip()]
    return liked + (math.log(9) if "pie" in prompt and "sun" in more else 0.0)


def probabilities(found: Any) -> list[list[float]]:
    assert all(isinstance(each, Beliefs) and each.units == ((0, 0),) for each in found)
    return [np.exp(each.logits[0]).tolist() for each in found]


def test_labels_are_believed_by_their_words_and_asked_once(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files)
    engines = here.ask(likes=likes)
    assert len(engines.asked) == 8 and all(isinstance(request, ScoreRequest) for request in engines.asked)
    found = here.teacher.about(here.task.test)
    # By the mean of tokens: nine to three of a pie, one to three of fog and fig.
    np.testing.assert_allclose(probabilities(found), [[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]], atol=1e-5)
    assert here.ask().asked == []


def test_calibration_takes_out_what_is_preferred_anyway(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files, calibrated=True)
    engines = here.ask(likes=likes)
    found = here.teacher.about(here.task.test)
    np.testing.assert_allclose(probabilities(found), [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], atol=1e-5)
    prompts = {files.tokenizer.decode(r.token_ids) for r in engines.asked if isinstance(r, ScoreRequest)}
    assert {f"{content} is {word}" for content in ("N/A", "[MASK]", "") for word in ("sun", "rain")} < prompts


def test_calibration_is_by_the_mean_of_the_probabilities_after_three_questions(
    tmp_path: Path, files: ModelFiles
) -> None:
    shares = {"N/A is": 0.9, "[MASK] is": 0.9, " is": 0.3}

    def without_content(prompt: str, more: str) -> float:
        share = shares.get(prompt, 0.5)
        return math.log(share / 2 if more.strip() == "sun" else (1 - share) / 2)

    here = place(tmp_path, files, calibrated=True)
    here.ask(likes=without_content)
    # Even odds, divided by means of 0.7 and 0.3.
    np.testing.assert_allclose(probabilities(here.teacher.about(here.task.test)), [[0.3, 0.7]] * 3, atol=1e-5)


def test_calibration_needs_one_question_without_content(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files, calibrated=True)
    here.ask(likes=lambda prompt, more: None if prompt in ("N/A is", "[MASK] is") else likes(prompt, more))
    np.testing.assert_allclose(probabilities(here.teacher.about(here.task.test))[0], [0.9, 0.1], atol=1e-5)
    other = place(tmp_path / "other", files, calibrated=True)
    other.ask(likes=lambda prompt, more: None if prompt in ("N/A is", "[MASK] is", " is") else -1.0)
    with pytest.raises(EngineError, match=r"none of the questions without content .* set teacher\.calibrated: false"):
        other.teacher.about(other.task.test)


def test_the_task_says_whether_likelihood_is_by_token(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files, label_scoring={"per_token": False})
    here.ask()
    # " sun" has four bytes and " rain" five, each -1.
    found = probabilities(here.teacher.about(here.task.test))
    np.testing.assert_allclose(np.log([row[0] / row[1] for row in found]), [1.0] * 3, atol=1e-5)
    assert here.teacher.questions.answered_by == "label likelihood"


def test_a_label_that_is_not_scored_costs_its_example(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files)
    here.ask(likes=lambda prompt, more: None if "fog" in prompt and "sun" in more else -1.0)
    found = here.teacher.about(here.task.test)
    assert [each is None for each in found] == [False, True, False]
    assert here.teacher.unanswered(here.task.test) == 1 and here.teacher.unread(here.task.test) == 0


def test_a_question_that_cannot_be_asked_is_not_answered(tmp_path: Path, files: ModelFiles) -> None:
    spelt = str(files.tokenizer.eos_token)
    rows = {"train": [{"text": "tea", "mood": "good"}], "dev": [{"text": spelt, "mood": "bad"}]}
    rows["test"] = [{"text": "pie", "mood": "good"}]
    here = place(tmp_path, files, answers="text", rows=rows)
    assert len(here.ask(says=lambda prompt: "sun").asked) == 1
    teacher = here.teacher
    assert teacher.about(here.task.dev) == [None] and teacher.about(here.task.test) == [Said(("good",))]
    assert teacher.unanswered(here.task.dev) == 1 and teacher.unread(here.task.dev) == 0


def test_written_answers_are_read_and_those_that_cannot_be_are_counted(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files, answers="text")
    words = {"pie is": "rather sun", "fog is": "who knows", "fig is": None, "jam is": "rain"}
    engines = here.ask(says=lambda prompt: words[prompt])
    assert all(isinstance(request, GenerateRequest) for request in engines.asked)
    teacher = here.teacher
    assert teacher.about(here.task.test) == [Said(("good",)), None, None]
    assert (teacher.unread(here.task.test), teacher.unanswered(here.task.test)) == (1, 1)
    shown = teacher.answered(here.task.test)
    assert [(each.answer.strip(), each.predicted) for each in shown] == [
        ("rather sun", ("good",)),
        ("who knows", None),
        ("", None),
    ]
    assert teacher.questions.answered_by == "text, held to what can be read"
    assert {request.grammar for request in engines.asked} == {
        'start: SPACE? LABEL\nLABEL: "sun" | "rain"\nSPACE: " "\n'
    }


def test_labels_are_shown_with_how_likely_they_are(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files)
    here.ask(likes=lambda prompt, more: None if "fig" in prompt else likes(prompt, more))
    shown = here.teacher.answered(here.task.test)
    assert [each.predicted for each in shown] == [("good",), ("bad",), None]
    np.testing.assert_allclose([each.confidence for each in shown[:2]], [0.75, 0.75], atol=1e-5)


def test_entities_that_stand_nowhere_are_not_learned(tmp_path: Path, files: ModelFiles) -> None:
    row = {"tokens": ["Ada", "in", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}
    here = place(
        tmp_path, files, answers="text", rows={split: [row] for split in ("train", "dev", "test")}, kind="tagging",
        fields={"tokens": "tokens", "tags": "tags"}, labels=["PER", "LOC"], template="{{ tokens | join(' ') }}", answer=None,
    )  # fmt: skip
    here.ask(says=lambda prompt: "LOC: Rome\nPER: Bob")
    assert here.teacher.about(here.task.test) == [Said(("2 3 LOC",))]
    (shown,) = here.teacher.answered(here.task.test)
    assert shown.predicted == ("-1 -1 PER", "2 3 LOC")


def test_of_entities_that_were_cut_off_whole_lines_are_read(tmp_path: Path, files: ModelFiles) -> None:
    row = {"tokens": ["Ada", "in", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}
    here = place(
        tmp_path, files, answers="text", rows={split: [row] for split in ("train", "dev", "test")}, kind="tagging",
        fields={"tokens": "tokens", "tags": "tags"}, labels=["PER", "LOC"], template="{{ tokens | join(' ') }}",
        answer=None, max_new_tokens=30,
    )  # fmt: skip
    here.ask(says=lambda prompt: "LOC: Rome\nPER: Ada\nPER: Ada\nPER: Ada\n")
    assert here.teacher.about(here.task.test) == [Said(("0 1 PER", "2 3 LOC"))]
    (shown,) = here.teacher.answered(here.task.test)
    assert shown.predicted == ("0 1 PER", "2 3 LOC")


def test_labels_of_the_same_tokens_are_refused(tmp_path: Path, files: ModelFiles) -> None:
    place(tmp_path, files).teacher.questions.require_distinct_labels(load_task(tmp_path / "task/task.yaml").train[0])
    lower = tmp_path / "lower"
    files.tokenizer.save_pretrained(lower)
    described = json.loads((lower / "tokenizer.json").read_text())
    described["normalizer"] = {"type": "Replace", "pattern": {"String": "é"}, "content": "e"}
    (lower / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = type(files.tokenizer).from_pretrained(lower)
    same = ModelFiles(files.directory, "lower", files.shape, tokenizer)
    here = place(tmp_path / "same", same, labels={"good": "cafe", "bad": "rain", "ugly": "café"})
    with pytest.raises(ModelError, match=r"the same tokens of label good \('cafe'\) and of label ugly \('café'\)"):
        here.teacher.questions.require_distinct_labels(here.task.train[0])


def test_an_answer_that_was_cut_off_is_not_read_where_it_was_held_to_a_grammar(
    tmp_path: Path, files: ModelFiles
) -> None:
    here = place(tmp_path, files, answers="text", max_new_tokens=3)
    here.ask(says=lambda prompt: "sun" if "pie" in prompt else "sun and more")
    # Three letters leave no room for the token of the end.
    assert here.teacher.about(here.task.test) == [None] * 3 and here.teacher.unread(here.task.test) == 3


def test_without_a_grammar_it_writes_what_it_likes(tmp_path: Path, files: ModelFiles) -> None:
    here = place(tmp_path, files, answers="text", max_new_tokens=3)
    here.settings = here.settings.model_copy(update={"constrained": False})
    engines = here.ask(says=lambda prompt: "sun and more")
    assert {request.grammar for request in engines.asked if isinstance(request, GenerateRequest)} == {""}
    assert here.teacher.about(here.task.test) == [Said(("good",))] * 3
    assert here.teacher.questions.answered_by == "text"


def with_prompt(found: Place, prompt: str, *, asking: Asking, files: ModelFiles) -> TaskQuestions:
    context = TeacherContext(system_prompt=prompt)
    return TaskQuestions(files, replace(found.task, context=context), found.settings, asking)


def test_a_question_that_its_context_makes_too_long_is_not_asked(tmp_path: Path, files: ModelFiles) -> None:
    found = place(tmp_path, files)
    short = with_prompt(found, "x", asking=Asking(max_prompt_tokens=40), files=files)
    (question,) = short.of(found.task.test[:1])
    assert not short.is_too_long(question) and len(short.requests(question)) == 2
    room = len(question.prompt_ids) + max(map(len, question.label_ids))
    tight = with_prompt(found, "x", asking=Asking(max_prompt_tokens=room), files=files)
    # A score is read from one token more than the sequence has.
    assert tight.is_too_long(question) and tight.requests(question) == []
    bare = TaskQuestions(files, found.task, found.settings, Asking(max_prompt_tokens=1))
    assert not bare.is_too_long(question), "without a context the engine says so itself"
    written = place(tmp_path, files, answers="text", max_new_tokens=32)
    longer = with_prompt(written, "x", asking=Asking(max_prompt_tokens=40), files=files)
    assert longer.is_too_long(*longer.of(written.task.test[:1]))


def test_a_chat_template_without_a_place_for_an_instruction_is_named(tmp_path: Path, files: ModelFiles) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    strict = replace(files, tokenizer=tokenizer)
    found = place(tmp_path, files, chat=True)
    questions = with_prompt(found, "Judge.", asking=Asking(), files=strict)
    with pytest.raises(
        ConfigError, match=r"teacher_context.system_prompt is a message of the system, and .* no system"
    ):
        questions.require_taken(found.task.train[0])
    TaskQuestions(strict, found.task, found.settings, Asking()).require_taken(found.task.train[0])
    with_prompt(found, "Judge.", asking=Asking(), files=files).require_taken(found.task.train[0])
