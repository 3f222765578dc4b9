"""A task's examples as one model is asked them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from task_files import ROWS, write_task

from configs import DistillConfig, ModelError
from configs.teacher_context import TeacherContext
from evaluation.tasks.few_shot import Turn
from orchestration.comparison.task_questions import Asking, plain_prompt, questions_for
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.task_context import task_in_context
from orchestration.inputs.tasks import LoadedTask, load_task


def model(tokenizer: Any = None) -> Any:
    return SimpleNamespace(label="m", tokenizer=tokenizer or byte_tokenizer())


def asked(task: LoadedTask, files: Any, **asking: Any) -> list[str]:
    found = questions_for(files, task.test, task=task, asking=Asking(**asking))
    return [files.tokenizer.decode(question.prompt_ids) for question in found]


def test_plain_questions_stand_behind_their_worked_examples(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, few_shot=2))
    first, second = task.shots.before(task.test[0])
    worked = f"{first.question} {first.answer}\n\n{second.question} {second.answer}\n\n"
    assert asked(task, model()) == [worked + each for each in ("pie is", "fog is", "fig is")]


def test_chat_questions_have_their_worked_examples_as_turns(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, few_shot=1, chat=True))
    files = model()
    (shot,) = task.shots.before(task.test[0])
    turns = [
        {"role": "user", "content": shot.question},
        {"role": "assistant", "content": shot.answer},
        {"role": "user", "content": "pie is"},
    ]
    wanted = files.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked(task, files)[0] == wanted


@pytest.mark.parametrize(("template", "gap"), [("{{ text }} is", " "), ("{{ text }}: ", "")])
def test_a_label_goes_on_where_a_plain_question_ends(tmp_path: Path, template: str, gap: str) -> None:
    task = load_task(write_task(tmp_path, template=template, label_scoring={}))
    files = model()
    (question, *_) = questions_for(files, task.test, task=task, asking=Asking())
    assert [files.tokenizer.decode(ids) for ids in question.label_ids] == [f"{gap}sun", f"{gap}rain"]


def test_a_text_that_spells_a_special_token_is_not_asked(tmp_path: Path) -> None:
    rows = {**ROWS, "test": [{"text": "<|eos|> pie", "mood": "good"}, {"text": "fog", "mood": "bad"}]}
    task = load_task(write_task(tmp_path, rows=rows))
    refused, fine = questions_for(model(), task.test, task=task, asking=Asking())
    assert refused.refused == "its text spells the special token <|eos|>"
    assert refused.prompt_ids == ()
    assert fine.refused is None


def test_a_model_without_a_chat_template_is_named_with_the_cure(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    task = load_task(write_task(tmp_path, chat=True))
    with pytest.raises(ModelError, match=r"m: has no chat template: set chat: false in task moods"):
        questions_for(model(tokenizer), task.test, task=task, asking=Asking())
    plain = replace(task, config=task.config.model_copy(update={"chat": False}))
    assert len(asked(plain, model(tokenizer))) == 3


def test_a_broken_chat_template_is_the_models_fault(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% if %}"
    task = load_task(write_task(tmp_path, chat=True))
    with pytest.raises(ModelError, match="its chat template cannot be used for task moods"):
        questions_for(model(tokenizer), task.test, task=task, asking=Asking())


def test_an_experiment_says_how_tasks_are_asked() -> None:
    config = DistillConfig.model_validate(
        {
            "name": "x",
            "teacher": {"model": {"hub": "a/b"}},
            "data": {name: {"path": name} for name in ("train", "dev", "test")} | {"template_kwargs": {"think": False}},
            "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}},
            "generation": {"temperature": 0.7, "top_p": 0.9, "seed": 5},
            "evaluation": {"seeds": 3},
        }
    )
    asking = Asking.of(config)
    assert (asking.temperature, asking.top_p, list(asking.all_seeds)) == (0.7, 0.9, [5, 6, 7])
    assert asking.template_kwargs == {"think": False}
    assert list(Asking(seed=5).all_seeds) == [5]


def test_worked_examples_end_where_the_next_begins() -> None:
    turns = (Turn("tea?", "yes"), Turn("mud?\n", "no"))
    assert plain_prompt(turns, "pie?") == "tea? yes\n\nmud?\nno\n\npie?"


def shown(root: Path, *, settings: dict[str, Any] | None = None, **context: Any) -> LoadedTask:
    """The task as a teacher is asked it that sees more."""
    task = load_task(write_task(root, **(settings or {})))
    return task_in_context(task, TeacherContext.model_validate(context), folder=root)


def test_a_context_stands_in_front_of_a_plain_question(tmp_path: Path) -> None:
    context = {"system_prompt": "Judge.", "neighbours": {"before": 2, "after": 1}, "passage_field": "mood"}
    found = asked(shown(tmp_path, **context), model())
    assert found[1] == "Judge.\n\nPassage:\nbad\n\nBefore:\npie\n\nAfter:\nfig\n\nfog is"
    assert found[2] == "Judge.\n\nPassage:\ngood\n\nBefore:\npie\nfog\n\nfig is"


def test_worked_examples_of_a_context_stand_between_instruction_and_question(tmp_path: Path) -> None:
    task = shown(tmp_path, system_prompt="Judge.", examples={"count": 1}, neighbours={"before": 1})
    (shot,) = task.shots.before(task.test[1])
    worked = f"{shot.question} {shot.answer}"
    assert asked(task, model())[1] == f"Judge.\n\n{worked}\n\nBefore:\npie\n\nfog is"


def test_in_a_chat_the_instruction_is_the_message_of_the_system(tmp_path: Path) -> None:
    task, files = shown(tmp_path, settings={"chat": True}, system_prompt="Judge.", neighbours={"before": 1}), model()
    turns = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Before:\npie\n\nfog is"}]
    wanted = files.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked(task, files)[1] == wanted


def test_a_neighbour_that_spells_a_special_token_is_not_asked(tmp_path: Path) -> None:
    rows = {**ROWS, "test": [{"text": "<|eos|> pie", "mood": "good"}, {"text": "fog", "mood": "bad"}]}
    task = shown(tmp_path, settings={"rows": rows}, neighbours={"before": 1})
    found = questions_for(model(), task.test, task=task, asking=Asking())
    assert [one.refused for one in found] == ["its text spells the special token <|eos|>"] * 2
