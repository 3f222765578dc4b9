"""A language model labels the examples of a task through the cache: asked once, whoever wants it again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_engines import IDENTITY, lease_queue
from task_builders import task_of
from task_files import tiny_model, write_task

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.keys import sequence_key
from cache.protocols import Failure, Outcome
from configs import BudgetReached, ConfigError, EngineError
from orchestration.comparison.task_questions import Asking, Question
from orchestration.fill.answers import SequenceAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress
from orchestration.fill.fill import Budgets
from orchestration.fill.ledger import read_counts
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.tasks.generative_teacher import (
    GenerativeTeacher,
    SpokenTeacher,
    answers_to,
    beliefs_of,
    believed_labels,
    written_labels,
)
from teacher_server.requests import Asked

ASKING = Asking()


@dataclass(slots=True)
class Speaker:
    """Engines with one teacher that writes `says` of a prompt, and finds every token of a continuation as likely as
    `likes` says of both; what is None is refused."""

    files: ModelFiles
    says: Callable[[str], str | None] = lambda prompt: ""
    likes: Callable[[str, str], float | None] = lambda prompt, more: -1.0
    asked: list[Request] = field(default_factory=list)

    def fill(
        self,
        work: Sequence[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: Any,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        queue = lease_queue(work, token_budget=token_budget)
        cache = TeacherCache.open(order.cache_root, IDENTITY)
        with cache.writer(vocab=self.files.vocab, encoding=order.encoding) as writer:
            EngineLoop(queue, order, SequenceAnswers(self, writer, k=order.k)).work()
        done: FillProgress = queue.progress()
        return done

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        for place, each in enumerate(asked):
            assert each is not None
            self.asked.append(each.request)
            yield [(place, self._answer(each.request, each.k))]

    def _answer(self, request: Request, k: int) -> TeacherRecord | Failure:
        tokenizer = self.files.tokenizer
        if isinstance(request, GenerateRequest):
            said = self.says(tokenizer.decode(request.prompt_ids))
            if said is None:
                return Failure("too long")
            answer = [*tokenizer.encode(said), tokenizer.eos_token_id][: request.max_new_tokens]
            ids, prompt_len = np.array([*request.prompt_ids, *answer], np.int32), len(request.prompt_ids)
            finish: Any = "stop" if answer[-1] == tokenizer.eos_token_id else "length"
            return TeacherRecord(sequence_key(IDENTITY.digest(), ids, prompt_len), ids, prompt_len, finish, "decode")
        ids, prompt_len = np.array(request.token_ids, np.int32), request.prompt_len
        liked = self.likes(*(tokenizer.decode(part) for part in (ids[:prompt_len], ids[prompt_len:])))
        if liked is None:
            return Failure("too long")
        rows = len(ids) - prompt_len
        return TeacherRecord(
            sequence_key(IDENTITY.digest(), ids, prompt_len), ids, prompt_len, "given", "prefill",
            topk_ids=ids[prompt_len:, None], topk_logprobs=np.full((rows, 1), liked, np.float32),
            tail_logmass=np.full(rows, math.log(-math.expm1(liked)), np.float32),
            target_logprobs=np.full(rows, liked, np.float32), target_ranks=np.ones(rows, np.int32),
        )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


def teacher(root: Path, engines: Speaker, *, budgets: Budgets | None = None) -> GenerativeTeacher:
    order = FillOrder(False, root / "cache", 0, 1e6, None, {}, root / "ledger")
    progress = StageProgress("fill", total=None, unit="rows", started=time.monotonic())
    cache = TeacherCache.open(root / "cache", IDENTITY)
    return GenerativeTeacher(engines.files, cache, engines, order, lambda: budgets or Budgets(None, None), progress)


def moods(root: Path, **settings: Any) -> LoadedTask:
    return load_task(write_task(root / "task", **settings))


def likes(prompt: str, more: str) -> float:
    """Prefers `rain` three to one a token, whatever it is asked, and `sun` nine times as much of a pie."""
    liked = {"sun": -3.0, "rain": -3.0 + math.log(3)}[more.strip()]
    return liked + (math.log(9) if "pie" in prompt and "sun" in more else 0.0)


def test_labels_are_believed_by_their_words_and_asked_once(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    engines = Speaker(files, likes=likes)
    found = believed_labels(teacher(tmp_path, engines), task.test, task=task, asking=ASKING, calibrated=False)
    # By the mean of tokens: nine to three of a pie, one to three of fog and fig.
    np.testing.assert_allclose(np.exp(found.logprobs), [[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]], atol=2e-3)
    assert found.failed == {} and len(engines.asked) == 6
    assert read_counts(tmp_path / "ledger").fill == sum(
        len(r.token_ids) for r in engines.asked if isinstance(r, ScoreRequest)
    )
    again = Speaker(files)
    second = believed_labels(teacher(tmp_path, again), task.test, task=task, asking=ASKING, calibrated=False)
    np.testing.assert_array_equal(second.logprobs, found.logprobs)
    assert again.asked == []


def test_calibration_takes_out_what_is_preferred_anyway(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    engines = Speaker(files, likes=likes)
    found = believed_labels(teacher(tmp_path, engines), task.test, task=task, asking=ASKING, calibrated=True)
    np.testing.assert_allclose(np.exp(found.logprobs), [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], atol=2e-3)
    prompts = {files.tokenizer.decode(r.token_ids) for r in engines.asked if isinstance(r, ScoreRequest)}
    assert {"N/A is sun", "N/A is rain"} < prompts and len(engines.asked) == 8


def test_the_task_says_whether_likelihood_is_by_token(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path, label_scoring={"per_token": False})
    found = believed_labels(teacher(tmp_path, Speaker(files)), task.test, task=task, asking=ASKING, calibrated=False)
    # " sun" has four bytes and " rain" five, each -1.
    np.testing.assert_allclose(found.logprobs[:, 0] - found.logprobs[:, 1], [1.0] * 3, atol=2e-3)


def test_a_label_that_is_not_scored_costs_its_example(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    engines = Speaker(files, likes=lambda prompt, more: None if "fog" in prompt and "sun" in more else -1.0)
    found = believed_labels(teacher(tmp_path, engines), task.test, task=task, asking=ASKING, calibrated=False)
    assert found.failed == {1: "too long"}
    assert np.isnan(found.logprobs[1]).all() and not np.isnan(found.logprobs[[0, 2]]).any()


def test_a_question_that_cannot_be_asked_keeps_its_place(tmp_path: Path, files: ModelFiles) -> None:
    example = moods(tmp_path).test[0]
    questions = [Question(example, refused="refused by the chat template"), Question(example, (5, 6), ((7,), (8, 9)))]
    asked = teacher(tmp_path, Speaker(files))
    found = beliefs_of(asked, questions, classes=2, content_free=None, per_token=True)
    assert found.failed == {0: "refused by the chat template"}
    np.testing.assert_allclose(found.logprobs, [[np.nan] * 2, [-math.log(2)] * 2], atol=2e-3)
    alone = beliefs_of(asked, questions[:1], classes=2, content_free=None, per_token=True)
    assert alone.logprobs.shape == (1, 2)
    with pytest.raises(
        EngineError, match=r"without content cannot be answered \(refused .*: set teacher.calibrated: false"
    ):
        beliefs_of(asked, questions[1:], classes=2, content_free=questions[0], per_token=True)


def test_a_budget_ends_it_and_what_was_bought_stays(tmp_path: Path, files: ModelFiles) -> None:
    task, engines = moods(tmp_path), Speaker(files)
    with pytest.raises(BudgetReached):
        believed_labels(
            teacher(tmp_path, engines, budgets=Budgets(25, None)),
            task.test,
            task=task,
            asking=ASKING,
            calibrated=False,
        )
    bought = len(engines.asked)
    assert 0 < bought < 6
    rest = Speaker(files)
    believed_labels(teacher(tmp_path, rest), task.test, task=task, asking=ASKING, calibrated=False)
    assert len(rest.asked) == 6 - bought


def test_other_kinds_of_tasks_are_not_labelled_so(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    other = replace(task, config=task_of("extractive_qa"))
    with pytest.raises(
        ConfigError, match=r"teacher\.answers=labels gives the class of a text, and task t is extractive_qa"
    ):
        believed_labels(teacher(tmp_path, Speaker(files)), (), task=other, asking=ASKING, calibrated=False)


def test_written_answers_are_read_and_those_that_cannot_be_are_counted(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    words = {"pie is": "rather sun", "fog is": "who knows", "fig is": None}
    engines = Speaker(files, says=lambda prompt: words[prompt])
    found = written_labels(teacher(tmp_path, engines), task.test, task=task, asking=ASKING)
    assert found.predicted == (("good",), None, None)
    assert (found.unread, found.failed) == (1, {2: "too long"})
    assert found.labels(task.config).tolist() == [0, -1, -1]
    (labelled,) = found.labelled(task.test)
    assert labelled == replace(task.test[0], gold=("good",), labelled=True)
    again = Speaker(files, says=lambda prompt: None)
    second = written_labels(teacher(tmp_path, again), task.test[:2], task=task, asking=ASKING)
    assert second.predicted == found.predicted[:2] and again.asked == []


def test_a_question_that_is_refused_is_not_written_to(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    engines = Speaker(files, says=lambda prompt: "rain")
    questions = [Question(task.test[0], refused="no"), Question(task.test[1], (40, 41))]
    found = answers_to(teacher(tmp_path, engines), questions, task=task.config, asking=ASKING)
    assert found.predicted == (None, ("bad",)) and found.failed == {0: "no"} and found.unread == 0


def test_students_learn_its_beliefs_or_its_word(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    liked = SpokenTeacher(teacher(tmp_path, Speaker(files, likes=likes)), task, ASKING).about(task.test)
    assert [belief is not None and belief.units for belief in liked] == [((0, 0),)] * 3
    assert liked[0] is not None and liked[0].logits.dtype == np.float32
    np.testing.assert_allclose(np.exp(liked[0].logits), [[0.75, 0.25]], atol=2e-3)
    words = {"pie is": "sun", "fog is": "rain", "fig is": "hm"}
    spoken = SpokenTeacher(teacher(tmp_path, Speaker(files, says=lambda p: words[p])), task, ASKING, by_text=True)
    first, second, third = spoken.about(task.test)
    assert first is not None and first.logits.tolist() == [[30.0, 0.0]]
    assert second is not None and second.logits.tolist() == [[0.0, 30.0]]
    assert third is None and spoken.said == ["1 of 3 answers of the teacher could not be read"]
    with pytest.raises(ConfigError, match=r"teacher\.answers=text gives the class"):
        replace(spoken, task=replace(task, config=task_of("tagging", labels=["LOC"]))).about(())


def test_an_example_that_was_not_scored_is_not_learned(tmp_path: Path, files: ModelFiles) -> None:
    task = moods(tmp_path)
    engines = Speaker(files, likes=lambda prompt, more: None if "fog" in prompt else -1.0)
    found = SpokenTeacher(teacher(tmp_path, engines), task, ASKING, calibrated=True).about(task.test)
    assert [belief is None for belief in found] == [False, True, False]
