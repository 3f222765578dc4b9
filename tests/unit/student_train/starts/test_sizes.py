"""What a derived student keeps, from sizes alone."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.models import ModelShape
from configs.starts import InitConfig
from student_train.starts.sizes import kept_heads, kept_layers, planned_shape

TEACHER = ModelShape(layers=30, hidden=576, heads=9, kv_heads=3, mlp=1536, vocab=49_152, tied_embeddings=True)


def test_linspace_keeps_first_and_last() -> None:
    assert kept_layers(10, total=30)[0] == 0
    assert kept_layers(10, total=30)[-1] == 29
    assert kept_layers(4, total=10) == (0, 3, 6, 9)
    assert kept_layers(1, total=10) == (0,)


@pytest.mark.parametrize("by", ["linspace", "contiguous", "block_influence"])
def test_a_number_of_layers_is_kept_whatever_chooses_them(by: str) -> None:
    for total in range(1, 40):
        for keep in range(1, total + 1):
            influence = [float(layer % 3) for layer in range(total)]
            kept = kept_layers(keep, total=total, by=by, influence=influence)  # type: ignore[arg-type]
            assert len(kept) == keep
            assert list(kept) == sorted(set(kept))
            assert 0 <= kept[0] <= kept[-1] < total


def test_contiguous_drops_one_run_in_the_middle() -> None:
    assert kept_layers(4, total=10, by="contiguous") == (0, 1, 8, 9)
    assert kept_layers(5, total=8, by="contiguous") == (0, 1, 2, 6, 7)
    assert kept_layers(1, total=8, by="contiguous") == (0,)


def test_alternate_takes_every_second_and_linspace_the_layers_of_distilbert() -> None:
    assert kept_layers(3, total=12, by="alternate") == (0, 2, 4)
    assert kept_layers(6, total=12, by="alternate") == (0, 2, 4, 6, 8, 10)
    assert kept_layers(3, total=12, by="first") == (0, 1, 2)
    assert kept_layers(6, total=12) == (0, 2, 4, 7, 9, 11)
    assert kept_layers((1, 4), total=12, by="alternate") == (1, 4)


def test_more_layers_than_every_second_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep_layers=7 with layers_by=alternate .* 12 layers: keep at most 6"):
        kept_layers(7, total=12, by="alternate")
    with pytest.raises(ConfigError, match=r"keep_layers=13 but the model has 12 layers: keep 1 to 12"):
        kept_layers(13, total=12, by="first")


def test_a_shape_has_no_more_alternate_layers_than_there_are() -> None:
    assert planned_shape(InitConfig(keep_layers=15, layers_by="alternate"), teacher=TEACHER).layers == 15
    with pytest.raises(ConfigError, match=r"keep_layers=16 with layers_by=alternate .* keep at most 15"):
        planned_shape(InitConfig(keep_layers=16, layers_by="alternate"), teacher=TEACHER)


def test_block_influence_drops_the_least() -> None:
    influence = [0.9, 0.1, 0.3, 0.05, 0.3, 0.2]
    assert kept_layers(4, total=6, by="block_influence", influence=influence) == (0, 2, 4, 5)
    # Of equals the earlier one stays.
    assert kept_layers(2, total=6, by="block_influence", influence=influence) == (0, 2)


def test_block_influence_has_to_be_measured() -> None:
    for influence, known in ((None, 0), ([0.1, 0.2], 2)):
        with pytest.raises(ConfigError, match=f"influence of all 6 layers but has {known}: calibrate"):
            kept_layers(2, total=6, by="block_influence", influence=influence)


def test_the_refusal_names_both_values() -> None:
    with pytest.raises(ConfigError, match=r"keep_layers=40 but the model has 30 layers"):
        kept_layers(40, total=30)


def test_whole_groups_of_heads_go_where_they_can() -> None:
    assert kept_heads(6, heads=9, kv_heads=3) == (2, 3)
    assert kept_heads(9, heads=9, kv_heads=3) == (3, 3)
    # Groups of four do not fit ten heads, but five groups of two do.
    assert kept_heads(10, heads=20, kv_heads=5) == (5, 2)
    assert kept_heads(5, heads=8, kv_heads=8) == (5, 1)
    assert kept_heads(3, heads=8, kv_heads=1) == (1, 3)


@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (12, 4), (8, 8), (8, 1), (28, 4)])
def test_every_number_of_heads_is_kept_evenly_or_refused(heads: int, kv_heads: int) -> None:
    allowed = []
    for wanted in range(1, heads + 1):
        try:
            groups, each = kept_heads(wanted, heads=heads, kv_heads=kv_heads)
        except ConfigError:
            continue
        assert groups * each == wanted
        assert groups <= kv_heads
        assert each <= heads // kv_heads
        allowed.append(str(wanted))
    with pytest.raises(ConfigError, match=f"attention_heads=99 .* {heads} heads .* keep one of {', '.join(allowed)}$"):
        kept_heads(99, heads=heads, kv_heads=kv_heads)


def test_a_narrower_student_keeps_the_width_of_its_heads() -> None:
    init = InitConfig(keep_layers=20, attention_heads=6, mlp_channels=1024, hidden_size=480)
    shape = planned_shape(init, teacher=TEACHER)
    assert shape == TEACHER.model_copy(
        update={"layers": 20, "heads": 6, "kv_heads": 2, "head_dim": 64, "mlp": 1024, "hidden": 480}
    )
    assert shape.parameters < TEACHER.parameters


def test_fewer_layers_leave_every_width_unnamed() -> None:
    shape = planned_shape(InitConfig(keep_layers=(0, 3)), teacher=TEACHER)
    assert shape == TEACHER.model_copy(update={"layers": 2})


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (InitConfig(keep_layers=31), "keep_layers=31 but the model has 30 layers"),
        (InitConfig(keep_layers=(2, 30)), "the model's layers are 0 to 29"),
        (InitConfig(mlp_channels=1537), "mlp_channels=1537 but the teacher has 1536"),
        (InitConfig(hidden_size=577), "hidden_size=577 but the teacher has 576"),
        (InitConfig(attention_heads=5), "attention_heads=5 but the teacher has 9 heads in 3 groups: keep one of 3, 6, 9"),
        (InitConfig(hidden_size=448), "hidden_size=448 is not a multiple of attention_heads=9: choose 441"),
    ],
)  # fmt: skip
def test_what_the_teacher_cannot_give_is_refused(init: InitConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_shape(init, teacher=TEACHER)
