"""What several teachers of a language model cannot be combined for, and the digest of who has one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema import DistillConfig

MODEL = {"model": {"path": "teacher"}}
ROUTE = {"kind": "route", "field": "language", "to": {"de": "teacher", "en": "second"}}
MIXTURE = {"kind": "mixture", "weights": {"teacher": 2.0, "second": 1.0}}


def experiment(*stages: dict[str, Any], **changes: Any) -> DistillConfig:
    """Two teachers and one student of these stages, which learn the teachers' beliefs unless it is said."""
    taught = [{"objective": "kd", "steps": 10, **stage} for stage in stages or ({},)]
    blocks: dict[str, Any] = {
        "name": "test",
        "teacher": MODEL,
        "teachers": {"second": {"model": {"path": "second"}, "licence": "mit"}},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
        "students": {"kd": {"init": {"keep_layers": 2}, "stages": taught}},
    }
    return DistillConfig.model_validate(blocks | changes)


def test_teachers_are_mixed_or_have_rows_of_their_own() -> None:
    mixed = experiment(combine=MIXTURE)
    assert mixed.shares == pytest.approx({"teacher": 2 / 3, "second": 1 / 3}) and mixed.route is None
    assert mixed.label_of_teachers == "teacher + second"
    assert mixed.licence_of_teachers == "teacher: not stated; second: mit"
    routed = experiment({"objective": "seqkd"}, combine=ROUTE)
    assert routed.route is not None and routed.route.field == "language"
    alone = routed.of_teacher("second")
    assert str(alone.teacher.model.path) == "second" and (alone.teachers, alone.combine) == ({}, None)
    # A stage of text beside one of beliefs is fine.
    experiment({"objective": "seqkd"}, {})


def test_one_teacher_has_the_digest_that_it_had() -> None:
    alone = experiment(teachers={})
    assert {"teachers", "combine"}.isdisjoint(alone.model_dump(mode="json"))
    digests = {each.digest() for each in (alone, experiment(), experiment(combine=MIXTURE), experiment(combine=ROUTE))}
    assert len(digests) == 3 + 1


ROLLOUT = {"steps": None, "rollout": {"count": 1, "prompts": 4, "max_new_tokens": 8}}


@pytest.mark.parametrize(
    ("stage", "changes", "reason"),
    [
        (ROLLOUT, {}, r"stages\.0 has rollout, for which one teacher reads .* and teachers names second: remove one"),
        ({"teacher": "live"}, {}, r"stages\.0 has teacher=live, for which one teacher"),
        ({"features": [{"kind": "cosine"}]}, {}, r"stages\.0 has features, for which one teacher"),
        (
            {"temperature": 2.0, "tail": "renormalize"},
            {},
            r"stages\.0\.temperature=2 with several teachers that are mixed: .* or combine by kind: route",
        ),
        ({"objective": "seqkd"}, {}, "teachers names second, whose beliefs are mixed, and no stage learns what a"),
        ({}, {"evaluation": {"exposure": True}}, r"evaluation\.exposure=true has one teacher read"),
        ({}, {"teachers": {"kd": MODEL}}, r"teachers\.kd has a name that another row of the comparison has"),
        ({}, {"teachers": {}, "combine": {"kind": "mixture"}}, "combines several teachers, and teachers names none"),
    ],
)
def test_what_needs_one_teacher_is_refused(stage: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        experiment(stage, **changes)


def test_plain_text_has_no_field_to_go_by() -> None:
    data = {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")}
    plain = {"train": {"path": "a.jsonl"}, "dev": {"path": "b.jsonl"}, "max_tokens": 64}
    stage = {"source": "plain"}
    experiment(stage, data=data | {"plain": plain})
    with pytest.raises(ValidationError, match=r"source=plain with combine\.kind=route, which goes by a field"):
        experiment(stage, data=data | {"plain": plain}, combine=ROUTE)


def test_assistants_have_one_teacher() -> None:
    student = {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 1}]}
    with pytest.raises(
        ValidationError, match=r"students\.small\.teacher=kd has one teacher, and teachers names second"
    ):
        experiment(students={"kd": student, "small": student | {"teacher": "kd"}})


def test_a_softened_row_of_one_teacher_is_what_it_is_alone() -> None:
    assert (
        experiment({"temperature": 2.0, "tail": "renormalize"}, combine=ROUTE).students["kd"].stages[0].temperature == 2
    )
