from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from task_files import tiny_model
from task_heads import save_classifier

from configs import ConfigError, ModelError
from configs.architecture import read_text_model
from configs.task_starts import TaskStart
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, in_words, made_start, reader_of, require_start

START: TypeAdapter[Any] = TypeAdapter(TaskStart)

LABELS = ("good", "bad")


def start(**fields: Any) -> Any:
    return START.validate_python(fields)


BAG = start(kind="bag", embedding_size=4)


@pytest.fixture()
def of(tmp_path: Path) -> StartsOf:
    return StartsOf(
        teacher_dir=save_classifier(tmp_path / "teacher"),
        kind="classification",
        labels=LABELS,
        models_root=tmp_path / "models",
        artifacts=Artifacts(tmp_path / "runs"),
    )


def test_a_start_is_made_once(of: StartsOf) -> None:
    made = made_start(BAG, seed=0, of=of)
    assert of.artifacts.has_start(made.digest)
    assert made.directory == of.artifacts.init_dir(made.digest)
    before = (made.directory / "model.safetensors").stat().st_mtime_ns
    assert made_start(BAG, seed=0, of=of) == made
    assert (made.directory / "model.safetensors").stat().st_mtime_ns == before


def test_whatever_it_is_made_from_addresses_it(of: StartsOf, tmp_path: Path) -> None:
    made = made_start(BAG, seed=0, of=of)
    other = replace(of, teacher_dir=save_classifier(tmp_path / "other", labels=("bad", "good")))
    digests = [
        made_start(BAG, seed=1, of=of).digest,
        made_start(start(kind="bag", embedding_size=5), seed=0, of=of).digest,
        made_start(BAG, seed=0, of=replace(of, labels=("bad", "good"))).digest,
        made_start(BAG, seed=0, of=other).digest,
    ]
    assert len({made.digest, *digests}) == 5


def test_a_reader_reads_no_more_than_its_student_can(of: StartsOf) -> None:
    kept = made_start(start(kind="transformer", keep_layers=1), seed=0, of=of)
    long, short = (reader_of(kept, max_tokens=most) for most in (500, 9))
    assert (long.max_tokens, short.max_tokens) == (64, 9)
    assert long.name == short.name
    assert long.tokenizer("sun").input_ids
    assert isinstance(kept, MadeStart) and kept.origin == "1 layers (linspace) of the teacher"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "bag", "embedding_size": 64}, "bag over teacher embeddings of 64"),
        ({"kind": "recurrent", "layers": 2}, "2-layer BiLSTM over teacher embeddings"),
        (
            {"kind": "recurrent", "cell": "gru", "embeddings": "random", "embedding_size": 8},
            "1-layer BiGRU over random embeddings of 8",
        ),
        ({"kind": "transformer", "model": {"hub": "some/encoder"}}, "some/encoder"),
        (
            {"kind": "transformer", "model": {"hub": "some/encoder"}, "keep_layers": 3},
            "3 layers (linspace) of some/encoder",
        ),
        (
            {"kind": "transformer", "shape": {"layers": 2, "hidden": 64, "heads": 2, "mlp": 8}},
            "random encoder of 2 layers x 64",
        ),
        ({"kind": "transformer", "keep_layers": (0, 3)}, "layers 0, 3 of the teacher"),
        ({"kind": "transformer", "hidden_size": 64}, "a narrower teacher"),
    ],
)
def test_a_start_in_words(fields: dict[str, Any], words: str) -> None:
    assert in_words(start(**fields)) == words


def test_starts_that_cannot_work_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    encoder, decoder = save_classifier(tmp_path / "encoder"), tiny_model(tmp_path / "models").directory
    for kind in ("tagging", "extractive_qa"):
        with pytest.raises(ConfigError, match=rf"^students\.s\.start\.kind=bag is for classification, .* is {kind}"):
            require_start(BAG, name="s", kind=kind, teacher_dir=encoder)
    require_start(BAG, name="s", kind="classification", teacher_dir=decoder)
    recurrent = start(kind="recurrent", hidden=4)
    require_start(recurrent, name="s", kind="tagging", teacher_dir=decoder)
    with pytest.raises(ModelError, match="puts no special token between two texts"):
        require_start(recurrent, name="s", kind="extractive_qa", teacher_dir=decoder)
    own = start(kind="transformer", model={"path": str(encoder)})
    require_start(own, name="s", kind="extractive_qa", teacher_dir=decoder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "transformer", "keep_layers": 7}, "keep_layers=7 but the model has 1 layers: keep"),
        ({"kind": "transformer", "keep_layers": (0, 3)}, "layer"),
        (
            {"kind": "transformer", "keep_layers": 2, "layers_by": "alternate"},
            "keep_layers=2 but the model has 1 layers",
        ),
        ({"kind": "transformer", "keep_layers": 2, "layers_by": "block_influence"}, "keep_layers=2 but the model"),
        ({"kind": "transformer", "hidden_size": 99}, "hidden_size=99 but the teacher has 16: keep at most 16"),
        ({"kind": "transformer", "attention_heads": 3}, "attention_heads=3 but the teacher has 1"),
        ({"kind": "bag", "embedding_size": 99}, "embedding_size=99 but the teacher's embeddings have 16: set at most"),
        ({"kind": "recurrent", "embedding_size": 17}, "embedding_size=17 but the teacher's embeddings have 16"),
    ],
)
def test_more_than_the_teacher_has_is_refused_before_it_is_asked(
    of: StartsOf, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^students\.s\.start\..*{words}"):
        require_start(start(**fields), name="s", kind="classification", teacher_dir=of.teacher_dir)
    named = start(kind="transformer", model={"path": "other"}, keep_layers=2)
    deep, flat = replace(read_text_model(of.teacher_dir), layers=2), read_text_model(of.teacher_dir)
    require_start(named, name="s", kind="classification", teacher_dir=of.teacher_dir, own=deep)
    with pytest.raises(ConfigError, match="keep_layers=2 but the model has 1 layers"):
        require_start(named, name="s", kind="classification", teacher_dir=of.teacher_dir, own=flat)
    fewer = start(kind="bag", embedding_size=99, embeddings="random")
    require_start(fewer, name="s", kind="classification", teacher_dir=of.teacher_dir)


def test_layers_of_a_teacher_with_a_head_know_the_task_and_nothing_else_does(of: StartsOf) -> None:
    shape = {"layers": 1, "hidden": 8, "heads": 2, "mlp": 16, "max_positions": 32}
    known = {
        what.kind if what.kind != "transformer" else ("shape" if what.shape else "layers"): made_start(
            what, seed=0, of=of
        ).knows_task
        for what in (start(kind="transformer", keep_layers=1), start(kind="transformer", shape=shape), BAG)
    }
    assert known == {"layers": True, "shape": False, "bag": False}


def test_a_start_says_which_model_it_begins_with_unless_that_is_the_teacher(of: StartsOf, tmp_path: Path) -> None:
    named = start(kind="transformer", model={"path": str(save_classifier(tmp_path / "own"))})
    begun = made_start(named, seed=0, of=of).begins_with
    assert begun is not None and begun.path == tmp_path / "own"
    assert made_start(start(kind="transformer", keep_layers=1), seed=0, of=of).begins_with is None
