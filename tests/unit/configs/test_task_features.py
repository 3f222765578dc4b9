from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.task_features import FEATURES, FeatureTerm, InsideSizes, find_feature


def sizes(layers: int, *, width: int = 8, heads: int | None = 2) -> InsideSizes:
    return InsideSizes((width,) * (layers + 1), heads)


def term(kind: str, **fields: Any) -> FeatureTerm:
    return FeatureTerm.model_validate({"kind": kind, **fields})


def pairs(student: int, teacher: int, kind: str = "patient", **fields: Any) -> list[tuple[int, int]]:
    return list(term(kind, **fields).matched(student=sizes(student), teacher=sizes(teacher)))


@pytest.mark.parametrize("name", FEATURES)
def test_every_name_of_the_registry_leads_to_its_value(name: str) -> None:
    assert find_feature(name).name == name


def test_values_are_light() -> None:
    code = (
        "import sys; from configs.task_features import *; "
        "[find_feature(name) for name in FEATURES]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_maps_are_those_of_the_papers() -> None:
    assert pairs(6, 12, layers="skip") == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)], "PKD-skip"
    assert pairs(6, 12, layers="last") == [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)], "PKD-last"
    assert pairs(4, 12, "hidden_mse") == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)], "TinyBERT, with the embeddings"
    assert pairs(4, 12, "attention_mse") == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert pairs(6, 12, "cosine") == [(6, 12)], "DistilBERT"


def test_a_uniform_map_reaches_both_ends_where_layers_do_not_divide() -> None:
    assert pairs(4, 6, "hidden_mse") == [(0, 0), (1, 2), (2, 3), (3, 5), (4, 6)]
    assert pairs(3, 2, "hidden_mse") == [(0, 0), (1, 1), (2, 1), (3, 2)], "also with more layers than the teacher"


def test_pairs_may_be_named() -> None:
    assert pairs(2, 6, layers=[(1, 6), (2, 1), (0, 0)]) == [(1, 6), (2, 1), (0, 0)]


@pytest.mark.parametrize(
    ("student", "kind", "fields", "reason"),
    [
        (sizes(2), "patient", {"layers": [(3, 1)]}, "layer 3 of the student with layer 1 .*layers 0 to 2 and 0 to 6"),
        (sizes(2), "patient", {"layers": [(1, 7)]}, "layer 1 of the student with layer 7 of the teacher"),
        (sizes(2), "attention_mse", {"layers": [(0, 0)]}, "layers 1 to 2 and 1 to 6"),
        (sizes(1), "patient", {}, "layers=skip leaves the last layer out and the student has 1 alone: set layers: top"),
        (sizes(8), "patient", {}, "the student has 8 and the teacher 6: set layers: uniform"),
        (sizes(2, width=4), "patient", {}, "has 4 and layer 3 of the teacher 8: choose hidden_mse"),
        (sizes(2, width=4), "cosine", {}, "choose hidden_mse, which learns a projection"),
        (sizes(2, heads=4), "attention_mse", {}, "the student has 4 and the teacher 2: set heads: mean"),
        (sizes(2, heads=None), "attention_mse", {}, "the student has none"),
    ],
)
def test_what_cannot_be_matched_is_refused(
    student: InsideSizes, kind: str, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        term(kind, **fields).matched(student=student, teacher=sizes(6))


def test_another_width_or_number_of_heads_has_its_way() -> None:
    narrow = sizes(2, width=4, heads=1)
    assert term("hidden_mse").matched(student=narrow, teacher=sizes(6)) == ((0, 0), (1, 3), (2, 6))
    assert term("attention_mse", heads="mean").matched(student=narrow, teacher=sizes(6)) == ((1, 3), (2, 6))


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("patient", {"place": "all"}, "place=all does not go with kind=patient: choose first or last or mean"),
        ("attention_mse", {"place": "first"}, "attention has no place of its own"),
        ("cosine", {"heads": "mean"}, "heads=mean is about attention"),
        ("cosine", {"weight": 0.0}, "greater than 0"),
        ("patient", {"layers": []}, "layers"),
        ("patience", {}, "patient"),
    ],
)
def test_terms_that_contradict_themselves(kind: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        term(kind, **fields)


def test_single_places_are_kept_and_every_token_is_read_live() -> None:
    assert term("patient").is_kept and term("patient").where == "first"
    assert not term("cosine").is_kept and not term("attention_mse").is_kept
    assert term("hidden_mse", place="mean").is_kept
