"""A guard that has learned ten words: what it finds, what it is asked again, and what a plan knows of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guard_models import PlainEngine, guard_config, save_guard, sayings
from pipeline_builders import experiment

from cache import GenerateRequest
from cache.protocols import Failure
from configs import ConfigError, DistillConfig, EngineError
from orchestration.inputs import model_guard
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.model_guard import (
    NO_VERDICT,
    NOT_ASKED,
    ModelGuard,
    guard_in_words,
    guard_root,
    open_guard,
    planned_guard,
)
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_rows import screened_data

FOUND = "the guard finds it unsafe (0.5 or more)"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guard") / "learned")


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guard") / "unlearned", learned=False)


def guarded(root: Path, folder: Path, **keys: Any) -> DistillConfig:
    return experiment(root, content={"guard": guard_config(folder, **keys).model_dump(mode="json")})


def opened(root: Path, folder: Path, engine: Any, **keys: Any) -> ModelGuard:
    config = guarded(root, folder, **keys)
    model = open_guard(config)
    assert model is not None
    return ModelGuard(model, model.verdicts(guard_root(config)), engine.answer, rest=engine.rest)


def test_it_finds_what_it_has_learned_in_prompts_and_in_answers(tmp_path: Path, learned: Path) -> None:
    guard = opened(tmp_path, learned, PlainEngine(learned))
    texts, unsafe = sayings(60, seed=7)
    expected = [FOUND if each else None for each in unsafe]
    assert guard.reasons([Exchange.of(text) for text in texts]) == expected
    assert guard.reasons([Exchange.of("tea rain", text) for text in texts]) == expected


def test_nothing_is_asked_twice_and_a_killed_run_goes_on_behind_its_last_lot(
    tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_guard, "LOT", 8)
    texts, unsafe = sayings(30, seed=3)
    exchanges = [Exchange.of(text) for text in texts]

    class Dying(PlainEngine):
        def answer(self, requests: Sequence[GenerateRequest]) -> list[Any]:
            if len(self.asked) == 2:
                raise EngineError("killed")
            return super().answer(requests)

    rooms: list[str] = []
    with pytest.raises(EngineError, match="killed"):
        opened(tmp_path, learned, Dying(learned)).reasons(exchanges, making_room=lambda: rooms.append("made"))
    engine = PlainEngine(learned)
    found = opened(tmp_path, learned, engine).reasons([*exchanges, exchanges[0]])
    assert engine.asked == [8, 6] and rooms == ["made"]
    assert found == [FOUND if each else None for each in (*unsafe, unsafe[0])]
    # A threshold decides without asking; other words are another question.
    again = opened(tmp_path, learned, engine, threshold=1.0)
    again.reasons(exchanges, making_room=lambda: rooms.append("again"))
    assert engine.asked == [8, 6] and rooms == ["made"]
    opened(tmp_path, learned, engine, safe=["tea"]).reasons(exchanges[:1])
    assert engine.asked == [8, 6, 1]
    kept = "".join(path.read_text() for path in guard_root(guarded(tmp_path, learned)).rglob("*.json"))
    assert texts[0].split()[0] not in kept


def test_what_it_does_not_judge_is_not_wanted(tmp_path: Path, learned: Path) -> None:
    class Mute(PlainEngine):
        def answer(self, requests: Sequence[GenerateRequest]) -> list[Any]:
            return [Failure("broken")] * len(requests)

    guard = opened(tmp_path, learned, Mute(learned))
    assert guard.reasons([Exchange.of("tea"), Exchange.of("tea " * 200)]) == [NO_VERDICT, NOT_ASKED]
    texts, _ = sayings(40, seed=5)
    with pytest.raises(ConfigError, match=r"answers 40 of 40 questions neither with 'unsafe' nor with 'safe': name"):
        guard.reasons([Exchange.of(text) for text in dict.fromkeys(texts)])


def test_an_untrained_twin_is_not_believed(tmp_path: Path, unlearned: Path) -> None:
    guard = opened(tmp_path, unlearned, PlainEngine(unlearned))
    texts, _ = sayings(60, seed=7)
    with pytest.raises(ConfigError, match="of 60 questions neither with 'unsafe' nor with 'safe'"):
        guard.reasons([Exchange.of(text) for text in texts])


def test_who_it_is_is_said_and_is_part_of_what_was_screened(tmp_path: Path, learned: Path, unlearned: Path) -> None:
    (learned / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    first, stated = (opened(tmp_path, learned, PlainEngine(learned), **keys) for keys in ({}, {"licence": "mit"}))
    assert "licence llama3.1) judges texts and teaches nobody" in first.said and "licence mit)" in stated.said
    others = [opened(tmp_path, learned, PlainEngine(learned), threshold=0.9)]
    others.append(opened(tmp_path, unlearned, PlainEngine(unlearned)))
    assert stated.digest == first.digest and len({first.digest, *(each.digest for each in others)}) == 3
    assert guarded(tmp_path, learned).digest() != experiment(tmp_path, content={"offensive": 0.5}).digest()


def test_what_a_run_screened_is_read_again_by_what_its_guard_has_said(tmp_path: Path, learned: Path) -> None:
    config, engine = guarded(tmp_path, learned), PlainEngine(learned)
    screening = Screening(tmp_path / "screened", say=lambda line: None, guard=opened(tmp_path, learned, engine))
    made = screened_data(config, screening)
    known = replace(screening, guard=planned_guard(config))
    for _ in range(2):
        asked = list(engine.asked)
        assert screened_data(config, known) == made and engine.asked == asked
        shutil.rmtree(tmp_path / "screened")


def test_a_plan_asks_nothing_and_says_what_is_open(tmp_path: Path, learned: Path) -> None:
    config = guarded(tmp_path, learned)
    plan = planned_guard(config)
    assert plan is not None and plan.reasons([Exchange.of("bomb"), Exchange.of("tea")]) == [None, None]
    assert "2 texts of the data were not put to the guard yet" in guard_in_words(config, plan)[1]
    opened(tmp_path, learned, PlainEngine(learned)).reasons([Exchange.of("bomb"), Exchange.of("tea")])
    plan = planned_guard(config)
    assert plan is not None and plan.reasons([Exchange.of("bomb")]) == [FOUND]
    assert len(guard_in_words(config, plan)) == 1
    hub = experiment(tmp_path, content={"guard": {"model": {"hub": "nobody/guard"}, "unsafe": ["u"], "safe": ["s"]}})
    assert planned_guard(hub) is None
    assert guard_in_words(hub, None) == (
        "content.guard: nobody/guard is not on this machine, and all texts count as wanted here.",
    )
    assert guard_in_words(experiment(tmp_path), None) == ()
