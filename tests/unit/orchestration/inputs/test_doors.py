"""Who answers behind a door, held against what is known here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment, model_in
from served_teachers import TOKEN_ENV, ServedTeacher, serving, without_weights

from cache.identity import RemoteTeacherIdentity
from configs import ConfigError, DistillConfig, DoorError
from configs.doors import DoorConfig
from orchestration.inputs.doors import TeacherDoor, knock, open_doors, weights_wanted
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import Teacher, open_cache, open_teacher, open_teachers

CUT = {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}}


def own(root: Path) -> dict[str, Any]:
    """A student that is not cut out of its teacher."""
    stages = [{"objective": "kd", "steps": 1}]
    return {"kd": {"init": {"model": {"path": str(model_in(root))}}, "stages": stages}}


def teacher_block(model: Path, url: str, **changes: Any) -> dict[str, Any]:
    serve = {"url": url, "token_env": TOKEN_ENV, "patience_s": 5.0}
    return {"model": {"path": str(model)}, "dtype": "float32", "top_k": 4, "serve": serve} | changes


@pytest.fixture
def local(tmp_path: Path) -> Teacher:
    """The teacher as engines here would have it."""
    return open_teacher(experiment(tmp_path, teacher={"model": {"path": str(model_in(tmp_path, layers=2, seed=9))},
                                                      "dtype": "float32", "top_k": 4}))  # fmt: skip


@pytest.fixture
def served(tmp_path: Path, local: Teacher, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedTeacher]:
    files = local.files
    with serving(
        tmp_path,
        local.identity,
        vocab=files.vocab,
        stop_ids=files.stop_ids,
        max_model_len=64,
        vocab_sha256=files.vocab_sha256,
    ) as opened:
        monkeypatch.setenv(TOKEN_ENV, opened.token)
        yield opened


def config_of(root: Path, model: Path, served: ServedTeacher, **changes: Any) -> DistillConfig:
    blocks = {"students": own(root)} | {
        name: changes.pop(name) for name in ("students", "evaluation", "data") if name in changes
    }
    return experiment(root, teacher=teacher_block(model, served.url, **changes), **blocks)


def test_a_served_teacher_is_the_one_that_it_would_be_here(
    tmp_path: Path, local: Teacher, served: ServedTeacher
) -> None:
    bare = without_weights(local.files.directory, tmp_path / "bare")
    for model in (local.files.directory, bare):
        config = config_of(tmp_path, model, served)
        teacher = open_teachers(config)["teacher"]
        assert teacher.identity == local.identity
        assert teacher.door is not None and teacher.door.facts.most_k == 16
        assert open_cache(config, teacher).identity == open_cache(config, local).identity
        said = teacher.provenance(config)
        assert said["served_by"] == served.url.removeprefix("http://") and "vllm" not in said
        assert served.token not in repr(teacher) + str(said)


def test_of_several_teachers_behind_doors_each_knows_its_own_key(
    tmp_path: Path, local: Teacher, served: ServedTeacher
) -> None:
    second = teacher_block(local.files.directory, served.url)
    blocks = {"teachers": {"b": second}, "students": own(tmp_path)}
    found = open_teachers(experiment(tmp_path, teacher=second, **blocks))
    assert [teacher.identity for teacher in found.values()] == [local.identity] * 2
    blocks["teachers"] = {"b": second | {"dtype": "bfloat16"}}
    with pytest.raises(ConfigError, match=r"^teachers\.b\.dtype=bfloat16, and noise behind"):
        open_teachers(experiment(tmp_path, teacher=second, **blocks))


def test_without_a_door_only_that_is_known_which_files_say(
    tmp_path: Path, local: Teacher, served: ServedTeacher
) -> None:
    config = config_of(tmp_path, local.files.directory, served)
    assert open_teachers(config, doors={})["teacher"].identity == local.identity
    bare = without_weights(local.files.directory, tmp_path / "bare")
    unknown = open_teachers(config_of(tmp_path, bare, served), doors={})["teacher"]
    assert unknown.door is None and unknown.identity != local.identity


def spoilt(local: Teacher, tmp_path: Path, how: str) -> Path:
    """The model of another teacher, or the same with other words."""
    if how == "weights":
        return model_in(tmp_path, layers=2, seed=10)
    if how == "layers":
        return without_weights(model_in(tmp_path, layers=1, seed=9), tmp_path / "spoilt")
    model = without_weights(local.files.directory, tmp_path / "spoilt")
    (model / "generation_config.json").write_text('{"eos_token_id": [0, 5]}')
    return model


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("weights", r"has other weights \(\w{12}\) than noise behind 127.0.0.1:\d+ \(\w{12}\)"),
        ("layers", r"has another config.json \(\w{12}\) than noise behind 127.0.0.1:\d+ \(\w{12}\)"),
        ("stops", r"ends at the tokens .* and noise behind .* at "),
    ],
)
def test_another_model_than_the_one_behind_the_door_is_refused(
    tmp_path: Path, local: Teacher, served: ServedTeacher, how: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^teacher.model=.* {said}"):
        open_teachers(config_of(tmp_path, spoilt(local, tmp_path, how), served))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"dtype": "bfloat16"},
            "teacher.dtype=bfloat16, and noise behind .* has dtype=float32, .*: set teacher.dtype to",
        ),
        ({"quantization": "fp8"}, "teacher.quantization=fp8, and noise behind .* has quantization=None"),
        ({"top_k": 17}, "teacher.top_k=17 is more than the 16 that noise behind .* gives"),
    ],
)
def test_a_configuration_that_asks_for_another_teacher_or_more_of_it_is_refused(
    tmp_path: Path, local: Teacher, served: ServedTeacher, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_teachers(config_of(tmp_path, local.files.directory, served, **changes))


def test_what_the_door_tells_otherwise_is_refused(tmp_path: Path, local: Teacher, served: ServedTeacher) -> None:
    config, door = config_of(tmp_path, local.files.directory, served), served.door()
    told: dict[str, tuple[Any, str]] = {
        "vocab": (300, r"a tokenizer of 26\d tokens and noise behind .* one of 300"),
        "vocab_sha256": ("0" * 64, r"whose ids mean other tokens \(\w{12}\) than those of noise behind .* \(0{12}\)"),
        "licence": ("apache-2.0", "teacher.licence=not set, and noise behind .* is under apache-2.0"),
        "max_model_len": (38, "take up to 39 tokens at once and noise behind .* takes 38"),
        "identity": (RemoteTeacherIdentity("p", "m", "1"), "is p/m, whose weights nobody can hash"),
    }
    for field, (value, said) in told.items():
        lying = TeacherDoor(door.settings, replace(door.facts, **{field: value}))
        with pytest.raises(ConfigError, match=said):
            open_teachers(config, doors={"teacher": lying})
    epoch = replace(local.identity, numerics_epoch=7)
    with pytest.raises(ConfigError, match="has numerics_epoch=7, and this installation 1"):
        open_teachers(config, doors={"teacher": TeacherDoor(door.settings, replace(door.facts, identity=epoch))})


def test_a_licence_that_the_door_knows_and_the_configuration_names_is_fine(
    tmp_path: Path, local: Teacher, served: ServedTeacher
) -> None:
    door = served.door()
    known = TeacherDoor(door.settings, replace(door.facts, licence="mit"))
    for told, licence, fine in ((known, "mit", True), (door, "mit", True), (known, "apache-2.0", False)):
        config = config_of(tmp_path, local.files.directory, served, licence=licence)
        if fine:
            assert open_teachers(config, doors={"teacher": told})["teacher"].door is told
        else:
            with pytest.raises(ConfigError, match=r"teacher\.licence=apache-2\.0, and noise behind .* is under mit"):
                open_teachers(config, doors={"teacher": told})


def test_what_takes_the_weights_is_refused_where_they_are_not(
    tmp_path: Path, local: Teacher, served: ServedTeacher
) -> None:
    bare = without_weights(local.files.directory, tmp_path / "bare")
    live = own(tmp_path)
    live["kd"]["stages"] = [{"objective": "kd", "teacher": "live", "steps": 1}]
    wanted = {
        r"students\.kd\.init is cut out of the teacher's weights": {"students": CUT},
        r"students\.kd\.stages\.0 has the teacher beside it": {"students": live},
        r"evaluation\.exposure=true reads with the teacher's weights": {"evaluation": {"exposure": True}},
    }
    for said, blocks in wanted.items():
        config = config_of(tmp_path, bare, served, **blocks)
        with pytest.raises(ConfigError, match=f"{said}.*, and teacher.model=.*bare holds none"):
            open_teachers(config)
        # Where they are here it works.
        assert open_teachers(config_of(tmp_path, local.files.directory, served, **blocks))["teacher"].door is not None
    assert weights_wanted(config_of(tmp_path, bare, served)) is None


def test_a_damaged_model_is_not_one_without_weights(tmp_path: Path, local: Teacher) -> None:
    bare = without_weights(local.files.directory, tmp_path / "bare")
    assert not open_model(bare, label="bare", weights=False).has_weights
    (bare / "model.safetensors").mkdir()
    with pytest.raises(Exception, match=r"model\.safetensors"):
        open_model(bare, label="bare", weights=False)


def test_a_token_that_is_not_there_is_said_by_its_variable(
    served: ServedTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = DoorConfig(url=served.url, token_env=TOKEN_ENV, patience_s=5.0)
    assert knock(door, key="teacher").facts.name == "noise"
    monkeypatch.setenv(TOKEN_ENV, "stillroom_wrong")
    with pytest.raises(DoorError, match=r"teacher\.serve: the door refused .*unknown, expired or revoked") as raised:
        knock(door, key="teacher")
    assert "stillroom_wrong" not in str(raised.value)
    for absent in ("", None):
        monkeypatch.delenv(TOKEN_ENV) if absent is None else monkeypatch.setenv(TOKEN_ENV, absent)
        with pytest.raises(ConfigError, match=rf"teachers\.b\.serve\.token_env={TOKEN_ENV} is not set"):
            knock(door, key="teachers.b")


def test_a_door_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_ENV, "stillroom_some")
    config = experiment(tmp_path, teacher=teacher_block(model_in(tmp_path), "http://127.0.0.1:9"))
    with pytest.raises(DoorError, match=r"^teacher\.serve: http://127\.0\.0\.1:9 cannot be reached") as raised:
        open_doors(config, patience_s=0.2)
    assert "\n" not in str(raised.value)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_ENV, "stillroom_some")
    broken = tmp_path / "ca.pem"
    for content in (None, "no certificate"):
        if content is not None:
            broken.write_text(content)
        with pytest.raises(DoorError, match=r"ca\.pem"):
            knock(DoorConfig(url="https://127.0.0.1:9", token_env=TOKEN_ENV, ca_file=broken), key="teacher")
