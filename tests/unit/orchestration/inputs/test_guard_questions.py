"""How a guard is asked: by its own template or in words, and what of its first token counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard_models import guard_config, save_guard

from cache import TeacherRecord
from configs import ConfigError
from configs.models import ModelShape
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.guard_questions import GuardQuestions
from orchestration.inputs.models import open_model
from orchestration.inputs.random_models import make_random

IN_WORDS = {"ask_prompt": "judge {prompt}", "ask_answer": "judge {prompt} and {answer}"}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guard") / "model", learned=False)


def questions(guard: Path, **keys: Any) -> GuardQuestions:
    return GuardQuestions(guard_config(guard, **keys), open_model(guard, label="guard"))


def test_it_is_given_the_conversation_or_a_question_about_it(guard: Path) -> None:
    exchanges = [Exchange.of("tea"), Exchange.of("tea", "rain {prompt}")]
    assert questions(guard).texts(exchanges) == [
        "<user> tea <assistant> ", "<user> tea <assistant> rain {prompt} <assistant> ",
    ]  # fmt: skip
    assert questions(guard, **IN_WORDS).texts(exchanges) == [
        "<user> judge tea <assistant> ", "<user> judge tea and rain {prompt} <assistant> ",
    ]  # fmt: skip
    raw = questions(guard, template="raw", begins=" it is ", **IN_WORDS)
    assert raw.texts(exchanges) == ["judge tea it is ", "judge tea and rain {prompt} it is "]


def test_what_is_too_long_for_it_is_not_asked(guard: Path) -> None:
    asked = questions(guard, max_tokens=12).tokens([Exchange.of("tea " * 9), Exchange.of("tea " * 12)])
    assert asked[0] is not None and len(asked[0]) == 11 and asked[1] is None


def record(logprobs: dict[int, float]) -> TeacherRecord:
    ids = np.array([list(logprobs)], dtype=np.int32)
    values = np.array([list(logprobs.values())], dtype=np.float32)
    return TeacherRecord(bytes(32), np.zeros(2, np.int32), 1, "length", "decode", topk_ids=ids, topk_logprobs=values)


def test_the_verdict_is_the_unsafe_words_among_all_that_mean_something(guard: Path) -> None:
    asked = questions(guard, unsafe=["unsafe", "bomb"])
    (unsafe, bomb), (safe,) = asked.unsafe, asked.safe
    odds = {0: np.log(0.4), safe: np.log(0.3), unsafe: np.log(0.2), bomb: np.log(0.1)}
    assert asked.verdict(record(odds)) == pytest.approx(0.5)
    assert asked.verdict(record({safe: -0.1, 0: -3.0})) == 0.0
    assert asked.verdict(record({bomb: -0.1, 0: -3.0})) == 1.0
    assert asked.verdict(record({0: -0.1})) is None


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"max_tokens": 128}, r"max_tokens=128 and guard reads 128 tokens.*lower it to 127 or less"),
        ({"unsafe": ["wicked"]}, r"writes 'wicked' not as a token of its own.*content\.guard\.begins"),
        ({"unsafe": ["unsafe", "safe"], "safe": ["tea", "safe "]}, r"'safe' and 'safe ' begin with the same token"),
        ({"template_kwargs": {"risk": "harm"}}, r"content\.guard: the chat template of guard cannot be used \(.*risk"),
    ],
)
def test_a_guard_that_cannot_be_asked_so_is_refused_with_the_cure(
    guard: Path, keys: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        questions(guard, **keys)


def test_a_guard_without_a_template_or_whose_template_refuses_is_asked_in_words(tmp_path: Path, guard: Path) -> None:
    for template, reason in ((None, "no chat template"), ("{{ raise_exception('no') }}", "takes no conversation")):
        folder = save_guard(tmp_path / reason.replace(" ", "-"), learned=False)
        file = folder / "chat_template.jinja"
        file.unlink() if template is None else file.write_text(template)
        with pytest.raises(ConfigError, match=rf"content\.guard: .*{reason}"):
            questions(folder)
        if template is None:
            questions(folder, template="raw", begins=" ", **IN_WORDS)


def test_words_of_several_tokens_are_known_by_the_first(tmp_path: Path) -> None:
    shape = ModelShape(layers=1, hidden=16, heads=2, kv_heads=1, mlp=32, vocab=272, max_positions=128)
    by_bytes = make_random(shape, seed=0, models_root=tmp_path)
    asked = questions(by_bytes)
    tokenizer = open_model(by_bytes, label="guard").tokenizer
    assert tokenizer.convert_ids_to_tokens([*asked.unsafe, *asked.safe]) == ["u", "s"]
    with pytest.raises(ConfigError, match="'yes' and 'yonder' begin with the same token of guard"):
        questions(by_bytes, unsafe=["yes"], safe=["yonder"])
