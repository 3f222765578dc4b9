"""The schema: contradictions are refused with both values, digests cover what changes the numbers and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.data import DataConfig
from configs.models import ModelSource
from configs.schema import DistillConfig, GenerationConfig, ModelShape, PriceConfig
from configs.stages import InitConfig, StageConfig


def experiment(**changes: Any) -> DistillConfig:
    blocks: dict[str, Any] = {
        "name": "test",
        "teacher": {"model": {"path": "teacher"}},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
        "students": {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]}},
    }
    return DistillConfig.model_validate(blocks | changes)


def data(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({split: {"hub": "a/b"} for split in ("train", "dev", "test")} | settings)


def test_whoever_asks_for_exposure_has_another_digest() -> None:
    on, off = experiment(evaluation={"exposure": True}), experiment()
    assert on.evaluation.exposure is True and off.evaluation.exposure is None
    assert on.digest() != off.digest()


def test_evaluation_seeds_need_noise() -> None:
    assert experiment(generation={"temperature": 0.7}, evaluation={"seeds": 3}).evaluation.seeds == 3
    assert experiment(evaluation={"seeds": 1}).evaluation.seeds == 1
    with pytest.raises(ValidationError, match=r"evaluation\.seeds=3 with generation\.temperature=0\.0 gives the same"):
        experiment(evaluation={"seeds": 3})


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "students": {
                    "x": {"init": {"keep_layers": 1}, "stages": [{"objective": "sft", "source": "gold", "steps": 9}]}
                }
            },
            ["students.x", "source=gold", "data.response_field"],
        ),
        (
            {"generation": {"max_new_tokens": 768}},
            [
                "data.max_prompt_tokens=256",
                "generation.max_new_tokens=768",
                "teacher_engine.max_model_len=1024",
                "1025",
            ],
        ),
        (
            {"evaluation": {"max_new_tokens": 900}},
            ["evaluation.max_new_tokens=900", "teacher_engine.max_model_len=1024", "1157"],
        ),
        (
            {
                "students": {
                    "x": {
                        "init": {"keep_layers": 1},
                        "stages": [{"objective": "minillm", "rollout": {"count": 2, "ahead": True}}],
                    }
                },
                "runtime": {"training": {"weight_sync": "broadcast"}},
            },
            ["students.x.stages.0.rollout.ahead=true", "runtime.training.weight_sync=broadcast"],
        ),
    ],
)
def test_contradictions_between_blocks_name_both_keys(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment(**changes)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: PriceConfig(), "name gpu_hour, teacher_million_tokens or both"),
        (lambda: PriceConfig(gpu_hour=-1.0), "greater than or equal to 0"),
        (lambda: PriceConfig.model_validate({"gpu_hour": "cheap"}), "valid number"),
        (lambda: PriceConfig.model_validate({"gpu_houre": 2.0}), "Extra inputs"),
    ],
)
def test_malformed_prices_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        build()


def test_neither_prices_nor_a_country_change_what_an_experiment_is() -> None:
    priced = experiment(prices={"gpu_hour": 2.0}, runtime={"energy_country": "DEU"})
    assert priced.digest() == experiment().digest()


def test_the_longest_sequence_that_fits_is_accepted() -> None:
    assert experiment(generation={"max_new_tokens": 767}).generation.max_new_tokens == 767


def on_plain_text(**changes: Any) -> DistillConfig:
    stages = [{"objective": "kd", "source": "plain", "steps": 10}]
    return experiment(students={"kd": {"init": {"keep_layers": 2}, "stages": stages}}, **changes)


def test_stages_on_plain_text_have_some_that_fits_engine_and_trainer() -> None:
    with pytest.raises(ValidationError, match=r"students\.kd\.stages\.0\.source=plain but data\.plain is not set"):
        on_plain_text()

    def windows(length: int) -> dict[str, Any]:
        plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}, "max_tokens": length}
        return {"data": data(plain=plain).model_dump()}

    assert on_plain_text(**windows(128)).data.plain is not None
    with pytest.raises(ValidationError, match=r"data\.plain\.max_tokens=9000 \+ 1 exceed .*raise it to 9001"):
        on_plain_text(**windows(9000))
    small = {"training": {"micro_batch_tokens": 64}}
    assert on_plain_text(**windows(65), runtime=small).runtime.training.micro_batch_tokens == 64
    with pytest.raises(ValidationError, match=r"data\.plain\.max_tokens=66 is more than .*micro_batch_tokens=64 holds"):
        on_plain_text(**windows(66), runtime=small)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_whoever_learns_answers_has_prompts_for_it_and_plain_text_alone_needs_none(split: str) -> None:
    plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}
    without = data(plain=plain).model_copy(update={split: None}).model_dump()
    assert split not in on_plain_text(data=without).data.splits
    with pytest.raises(
        ValidationError,
        match=rf"students\.kd\.stages\.0\.source=teacher but data\.{split} is not set: name its prompts",
    ):
        experiment(data=without)
    with pytest.raises(ValidationError, match=r"data\.test"):
        on_plain_text(data={"plain": plain})


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


@pytest.mark.parametrize("name", ["teacher", "untouched", "fill", "pipeline"])
def test_a_student_may_not_take_a_name_of_the_comparison(name: str) -> None:
    student = {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]}
    with pytest.raises(ValidationError, match=f"students.{name}.*choose another"):
        experiment(students={name: student})


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


def test_a_view_of_a_prompt_is_an_answer_that_was_asked_for() -> None:
    stage = {"objective": "kd", "epochs": 4, "views": 3}
    students = {"small": {"init": {"keep_layers": 1}, "stages": [stage]}}
    with pytest.raises(ValidationError, match=r"small.stages.0.views=3 is more than generation.samples_per_prompt=2"):
        experiment(students=students, generation={"temperature": 1.0, "samples_per_prompt": 2})
    experiment(students=students, generation={"temperature": 1.0, "samples_per_prompt": 3})


def context(stage: dict[str, Any], **changes: Any) -> DistillConfig:
    students = {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 4, **stage}]}}
    shown = {"system_prompt": "Be brief."}
    return experiment(**({"students": students, "teacher_context": shown} | changes))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"teacher": "live"}, "has teacher=live"),
        ({"features": [{"kind": "cosine"}]}, "has features"),
        ({"steps": None, "rollout": {"count": 2}}, "has a rollout"),
        ({"objective": "sft", "source": "plain"}, "has source=plain"),
    ],
)
def test_a_stage_that_a_context_does_not_reach_is_refused_with_the_cure(stage: dict[str, Any], words: str) -> None:
    plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}
    changes = {"data": data(plain=plain).model_dump()}
    with pytest.raises(
        ValidationError, match=rf"students\.kd\.stages\.0 {words}, where the teacher does not see teacher"
    ):
        context(stage, **changes)
    assert context(stage, **changes, teacher_context=None).teacher_context is None


def test_a_student_that_another_one_teaches_is_free_of_the_context() -> None:
    stages = [{"objective": "kd", "steps": 4}]
    students = {
        "a": {"init": {"keep_layers": 2}, "stages": stages},
        "b": {"init": {"keep_layers": 2}, "teacher": "a", "stages": [{"objective": "kd", "rollout": {"count": 2}}]},
    }
    assert context({}, students=students).students["b"].teacher == "a"


def test_what_a_context_cannot_have_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"evaluation\.exposure=true has the teacher read prompts as students see"
    ):
        context({}, evaluation={"exposure": True})
    with pytest.raises(ValidationError, match=r"teacher_context\.examples\.count=2 shows rows with their gold answers"):
        context({}, teacher_context={"examples": {"count": 2}})
    answered = context({}, teacher_context={"examples": {"count": 2}}, data=data(response_field="gold").model_dump())
    assert answered.longest_context == 1024 - 256 - 1


def test_without_a_context_an_experiment_is_written_as_it_was() -> None:
    assert "teacher_context" not in experiment().model_dump(mode="json")
    assert context({}).model_dump(mode="json")["teacher_context"]["system_prompt"] == "Be brief."


CANARIES: dict[str, Any] = {"audit": {"canaries": {}}}


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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"audit": {"canaries": {"where": ["answer"]}}}, "where names answer, and no stage has source: gold"),
        (
            {"teacher_context": {"system_prompt": "be brief"}},
            "planted rows, and teacher_context shows rows beside others",
        ),
        (
            {
                "teachers": {"other": {"model": {"path": "other"}}},
                "combine": {"kind": "route", "field": "of", "to": {"a": "teacher", "b": "other"}},
            },
            "planted rows, and combine.kind=route wants a field that planted rows lack",
        ),
    ],
)
def test_canaries_that_nobody_could_learn_or_everybody_is_shown_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        experiment(**(CANARIES | changes))


def test_plain_text_alone_has_no_place_for_canaries() -> None:
    with pytest.raises(
        ValidationError, match=r"audit.canaries stand in prompts and answers, and all stages learn plain"
    ):
        on_plain_text(data=data(plain={"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}).model_dump(), **CANARIES)
