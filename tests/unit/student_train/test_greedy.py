"""Greedy answers are the likeliest token each time, whatever else is answered beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_llama import full_logprobs, save_tiny_llama

from student_train import greedy as module
from student_train.greedy import greedy_answers

PROMPTS = [(1, 5, 9), (1, 7), (1, 30, 31), (4, 4, 4), (1, 8, 2, 90)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", seed=3)


def by_hand(model: Path, prompt: tuple[int, ...], *, stop_ids: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    ids = prompt
    for _ in range(tokens):
        best = int(full_logprobs(model, (*ids, 0))[-1].argmax())
        if best in stop_ids:
            break
        ids = (*ids, best)
    return ids[len(prompt) :]


@pytest.mark.parametrize("together", [1, 2, 16])
def test_every_token_is_the_likeliest(model: Path, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(module, "TOGETHER", together)
    found = greedy_answers(model, PROMPTS, stop_ids=(2,), max_new_tokens=5)
    assert found == [by_hand(model, prompt, stop_ids=(2,), tokens=5) for prompt in PROMPTS]


def test_it_ends_at_a_stop_and_the_models_own_settings_do_not_count(model: Path, tmp_path: Path) -> None:
    whole = greedy_answers(model, PROMPTS, stop_ids=(2,), max_new_tokens=5)
    stop = whole[0][2]
    cut = greedy_answers(model, PROMPTS[:1], stop_ids=(2, stop), max_new_tokens=5)
    assert cut == [whole[0][: whole[0].index(stop)]]
    own = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "max_new_tokens": 1, "eos_token_id": 2}
    (model / "generation_config.json").write_text(json.dumps(own))
    assert greedy_answers(model, PROMPTS, stop_ids=(2,), max_new_tokens=5) == whole


def test_nothing_asked_is_nothing_answered(model: Path) -> None:
    assert greedy_answers(model, [], stop_ids=(2,), max_new_tokens=5) == []
