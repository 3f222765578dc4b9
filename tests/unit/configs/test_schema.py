"""The schema: contradictions are refused with both values, digests cover what changes the numbers and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from schema_builders import CANARIES, context, data, experiment

from configs.models import ModelSource
from configs.schema import DistillConfig, GenerationConfig, ModelShape
from configs.stages import StageConfig
from configs.starts import InitConfig


def test_whoever_asks_for_exposure_has_another_digest() -> None:
    on, off = experiment(evaluation={"exposure": True}), experiment()
    assert on.evaluation.exposure is True and off.evaluation.exposure is None
    assert on.digest() != off.digest()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ModelSource(), ["exactly one", "none of them"]),
        (lambda: ModelSource(hub="a/b", path=Path("c")), ["exactly one", "hub, path"]),
        (lambda: ModelSource(package="p"), ["package=p", "file=None"]),
        (lambda: ModelSource(path=Path("c"), revision="main"), ["revision=main", "hub"]),
        (lambda: ModelShape(layers=1, hidden=10, heads=3, kv_heads=3, mlp=4, vocab=8), ["hidden=10", "heads=3"]),
        (lambda: ModelShape(layers=1, hidden=12, heads=4, kv_heads=3, mlp=4, vocab=8), ["heads=4", "kv_heads=3"]),
        (lambda: GenerationConfig(samples_per_prompt=3), ["samples_per_prompt=3", "temperature=0.0"]),
        (lambda: InitConfig(), ["keep_layers", "model"]),
        (lambda: InitConfig(keep_layers=(2, 1)), ["[2, 1]", "increasing"]),
        (lambda: InitConfig(keep_layers=(1, 1)), ["[1, 1]", "repeats"]),
        (lambda: InitConfig(keep_layers=()), ["keep_layers=[]"]),
        (lambda: StageConfig(objective="kd"), ["steps=None", "epochs=None"]),
        (lambda: StageConfig(objective="kd", steps=1, epochs=1.0), ["steps=1", "epochs=1.0"]),
        (lambda: StageConfig(objective="kd", steps=4, warmup_steps=4), ["warmup_steps=4", "steps=4"]),
        (lambda: StageConfig(objective="sft", steps=4), ["objective=sft", "source=teacher"]),
        (lambda: StageConfig(objective="seqkd", steps=4, source="gold"), ["objective=seqkd", "source=gold"]),
        (lambda: StageConfig(objective="seqkd", steps=4, ce_weight=0.5), ["ce_weight=0.5", "seqkd"]),
    ],
)
def test_contradictions_within_a_block_name_both_values(build: Any, words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        build()
    for word in words:
        assert word in str(caught.value)


def test_neither_prices_nor_a_country_change_what_an_experiment_is() -> None:
    priced = experiment(prices={"gpu_hour": 2.0}, runtime={"energy_country": "DEU"})
    assert priced.digest() == experiment().digest()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_number_is_infinite(value: float) -> None:
    with pytest.raises(ValidationError):
        GenerationConfig(temperature=value)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        experiment().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": {"nodes": 4, "run_root": "elsewhere", "training": {"workers": 7}}},
        {"budgets": {"max_teacher_tokens": 5}},
    ],
)
def test_speed_place_and_budgets_leave_the_digest_alone(changes: dict[str, Any]) -> None:
    assert experiment(**changes).digest() == experiment().digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": {"model": {"path": "teacher"}, "top_k": 8}},
        {"generation": {"max_new_tokens": 255}},
        {"generation": {"temperature": 0.01}},
        {"evaluation": {"samples_shown": 4}},
        {"data": data(template_date="2024-07-27").model_dump()},
        {"data": data(template_kwargs={"enable_thinking": False}).model_dump()},
        {"data": data(chat_template="rag").model_dump()},
        {"data": data(plain={"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}).model_dump()},
        {"students": {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 11}]}}},
        {"teacher_context": {"system_prompt": "Be brief."}},
    ],
)
def test_what_changes_the_numbers_changes_the_digest(changes: dict[str, Any]) -> None:
    assert experiment(**changes).digest() != experiment().digest()


def test_where_former_rollouts_lie_is_not_part_of_an_experiment() -> None:
    def digest(place: str) -> str:
        stage = {"objective": "kd", "rollout": {"count": 1, "replay_from": place}}
        student = {"init": {"keep_layers": 2}, "stages": [stage]}
        blocks = {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"kd": student},
        }
        return DistillConfig.model_validate(blocks).digest()

    here = digest("/one/machine/runs/first-0123456789/rollouts/kd")
    assert digest("../runs/first-0123456789/rollouts/kd") == here
    assert digest("/one/machine/runs/first-0123456789/rollouts/other") != here
    assert digest("/one/machine/runs/second-9876543210/rollouts/kd") != here


@pytest.mark.parametrize("temperature", [0.005, 1e-9, 0.0099])
def test_a_temperature_that_engines_would_change_is_refused(temperature: float) -> None:
    with pytest.raises(ValidationError, match=r"set it to 0 \(greedy\) or at least 0\.01"):
        GenerationConfig(temperature=temperature)
    assert GenerationConfig(temperature=0.01).temperature == 0.01


def test_without_a_context_an_experiment_is_written_as_it_was() -> None:
    assert "teacher_context" not in experiment().model_dump(mode="json")
    assert context({}).model_dump(mode="json")["teacher_context"]["system_prompt"] == "Be brief."


def test_canaries_change_the_digest_and_are_written_only_where_they_are_planted() -> None:
    plain, planted = experiment(), experiment(**CANARIES)
    assert "audit" not in plain.model_dump(mode="json") and planted.digest() != plain.digest()
    assert planted.canary_places == ("prompt",)
    assert DistillConfig.model_validate(planted.model_dump(mode="json")) == planted


def test_what_audits_ask_of_finished_students_changes_no_digest() -> None:
    asked = {"run": ["privacy"], "rows": 64, "pairs": ["pairs.csv"]}
    audited = experiment(audit=asked)
    assert audited.digest() == experiment().digest() and audited.canaries is None
    assert experiment(audit={**asked, "canaries": {}}).digest() == experiment(**CANARIES).digest()
    assert DistillConfig.model_validate(audited.model_dump(mode="json")) == audited
