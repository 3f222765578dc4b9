"""Task students of transformers: heads old and new, labels in another order, padding and pairs, plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from task_students import FAMILIES, LABELS, PAIRED, WORDS, rows_of, save_transformer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.errors import ModelError
from configs.stages import LoraConfig
from student_train.models.adapters import attach_adapters
from student_train.models.task_model import load_task_student, write_task_student
from student_train.models.task_transformer import TransformerStudent
from teacher_server.encoder import TaskHead

TEXTS = ["w1 w2 w3", "w4", "w5 w6s w7 w8ed w9"]


def load(model_dir: Path, **options: Any) -> TransformerStudent:
    found = load_task_student(model_dir, **{"kind": "classification", "labels": LABELS} | options).eval()
    assert isinstance(found, TransformerStudent)
    return found


def logits(student: TransformerStudent, lengths: tuple[int, ...] = (5, 8)) -> Tensor:
    with torch.no_grad():
        return student(*rows_of(lengths))


def change_config(model_dir: Path, **changes: Any) -> None:
    path = model_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_weights(model_dir: Path, ending: str) -> None:
    weights = load_file(model_dir / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.endswith(ending)}
    assert len(kept) < len(weights)
    save_file(kept, model_dir / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_and_the_teachers_head_say_the_same(tmp_path: Path, family: str) -> None:
    start = save_transformer(tmp_path / "start", family=family)
    student = load(start)
    out = tmp_path / "out"
    out.mkdir()
    write_task_student(student, dict(student.named_parameters()), start=start, folder=out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    read = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=True)
    with torch.no_grad():
        ours = student(read["input_ids"], read["attention_mask"], read["token_type_ids"])
        plain = AutoModelForSequenceClassification.from_pretrained(out).eval()
        theirs = plain(**tokenizer(TEXTS, padding=True, padding_side="right", return_tensors="pt")).logits
    head = TaskHead(out)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(head.classify([(text,) for text in TEXTS])), theirs, rtol=0, atol=1e-5)
    assert head.labels == LABELS
    assert plain.config.label2id == {label: at for at, label in enumerate(LABELS)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_head_in_another_order_is_brought_into_that_of_the_task(tmp_path: Path, family: str, kind: str) -> None:
    start = save_transformer(tmp_path / "start", family=family, kind=kind)  # type: ignore[arg-type]
    student, turned = load(start, kind=kind), load(start, kind=kind, labels=("yes", "no", "maybe"))
    torch.testing.assert_close(logits(turned), logits(student)[..., [2, 0, 1]], rtol=0, atol=1e-5)
    out = tmp_path / "out"
    out.mkdir()
    write_task_student(turned, dict(turned.named_parameters()), start=start, folder=out)
    assert TaskHead(out).labels == ("yes", "no", "maybe")
    assert torch.equal(logits(load(out, kind=kind, labels=turned.labels)), logits(turned))


def test_other_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its head knows 3 labels \(no, maybe, yes\) and the task has 2 labels"):
        load(save_transformer(tmp_path), labels=("no", "yes"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_comes_from_its_seed_alone(tmp_path: Path, family: str) -> None:
    start = save_transformer(tmp_path, family=family, kind=None)
    torch.manual_seed(3)
    first, other = load(start, head_seed=7), load(start, head_seed=8)
    state = torch.get_rng_state()
    again = load(start, head_seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.new_head and first.model.config.id2label == dict(enumerate(LABELS))
    assert torch.equal(logits(first), logits(again))
    assert not torch.equal(logits(first), logits(other))
    same = {
        name for name, weight in first.named_parameters() if torch.equal(weight, dict(other.named_parameters())[name])
    }
    assert len(same) >= len(list(first.parameters())) - 4


def test_no_head_is_made_unless_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no head for classification: name a model whose class ends with ForSeq"):
        load(save_transformer(tmp_path, kind=None))
    assert not load(save_transformer(tmp_path / "with"), head_seed=1).new_head


def test_a_body_without_pooler_gets_one_with_its_head(tmp_path: Path) -> None:
    save_transformer(tmp_path, kind=None)
    drop_weights(tmp_path, "pooler.dense.weight")
    assert load(tmp_path, head_seed=1).new_head


@pytest.mark.parametrize(
    ("kind", "ending"), [(None, "layer.1.output.dense.weight"), ("classification", "classifier.bias")]
)
def test_missing_weights_are_refused(tmp_path: Path, kind: Any, ending: str) -> None:
    save_transformer(tmp_path, kind=kind)
    drop_weights(tmp_path, ending)
    with pytest.raises(ModelError, match=f"lacks 1 of the weights .* the first .*{ending}: copy or download it again"):
        load(tmp_path, head_seed=1)


def test_a_head_of_another_kind_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its head does tagging, not classification: name a model for classification"):
        load(save_transformer(tmp_path, kind="tagging"), head_seed=1)


def test_a_head_that_no_config_names_is_refused(tmp_path: Path) -> None:
    change_config(save_transformer(tmp_path), architectures=["BertModel"])
    with pytest.raises(ModelError, match=r"holds a head that its config.json does not name: let architectures name"):
        load(tmp_path, head_seed=1)


def test_what_transformers_does_not_know_is_one_line(tmp_path: Path) -> None:
    change_config(save_transformer(tmp_path), model_type="unheard")
    with pytest.raises(ModelError, match=r"cannot be (read|loaded)|does not load") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    save_transformer(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickles are not read"):
        load(tmp_path)


@pytest.mark.parametrize("family", PAIRED)
def test_spans_are_found_by_two_outputs_a_token(tmp_path: Path, family: str) -> None:
    student = load(save_transformer(tmp_path, family=family, kind="extractive_qa"), kind="extractive_qa", labels=())
    rows = rows_of([6, 9])
    found = logits(student, (6, 9))
    assert found.shape == (2, 9, 2)
    with torch.no_grad():
        extra = {"token_type_ids": rows[2]} if family == "bert" else {}
        plain = student.model(input_ids=rows[0], attention_mask=rows[1], **extra)
    torch.testing.assert_close(found[..., 0], plain.start_logits)
    torch.testing.assert_close(found[..., 1], plain.end_logits)


def test_a_reader_without_separators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="puts no special token between two texts"):
        load(save_transformer(tmp_path, family="llama", kind="extractive_qa"), kind="extractive_qa", labels=())


@pytest.mark.parametrize(("family", "matters"), [("bert", True), ("distilbert", False), ("roberta", False)])
def test_the_second_text_is_told_to_those_who_know_segments(tmp_path: Path, family: str, matters: bool) -> None:
    student = load(save_transformer(tmp_path, family=family))
    ids, mask, segments = rows_of([8, 5])
    with torch.no_grad():
        differ = not torch.allclose(student(ids, mask, segments), student(ids, mask, torch.zeros_like(segments)))
    assert differ == matters


@pytest.mark.parametrize(("family", "longest"), [("bert", 40), ("distilbert", 40), ("roberta", 39), ("llama", 40)])
def test_the_longest_row_is_what_positions_allow(tmp_path: Path, family: str, longest: int) -> None:
    """The tiny RoBERTa pads with id 0, so its positions begin with 1."""
    student = load(save_transformer(tmp_path, family=family))
    assert (student.max_tokens, student.vocab) == (longest, len(WORDS))


@pytest.mark.parametrize(
    ("family", "head", "top"),
    [
        ("bert", {"bert.pooler.dense", "classifier"}, "bert.encoder.layer.2."),
        ("distilbert", {"pre_classifier", "classifier"}, "distilbert.transformer.layer.2."),
        ("roberta", {"classifier.dense", "classifier.out_proj"}, "roberta.encoder.layer.2."),
        ("llama", {"score"}, ("model.layers.2.", "model.norm.")),
    ],
)
def test_groups_lead_from_the_head_to_the_embeddings(
    tmp_path: Path, family: str, head: set[str], top: str | tuple[str, ...]
) -> None:
    student = load(save_transformer(tmp_path, family=family))
    names = {id(parameter): name for name, parameter in student.model.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group} for group in student.groups()]
    assert len(groups) == 5
    assert {name.rpartition(".")[0] for name in groups[0]} == head
    assert all(name.startswith(top) for name in groups[1])
    assert all("embed" in name for name in groups[4])


def test_groups_are_found_with_adapters_too(tmp_path: Path) -> None:
    student = load(save_transformer(tmp_path))
    attach_adapters(student.model, LoraConfig(rank=2, modules=("query", "value")))
    groups = student.groups()
    assert sum(map(len, groups)) == len(list(student.parameters()))
    assert [sum(parameter.requires_grad for parameter in group) for group in groups] == [0, 4, 4, 4, 0]
