"""Encoders of plain text: families, heads that are drawn, and output layers that look at hidden tokens alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from general_jobs import save_encoder
from safetensors.torch import load_file, save_file
from task_students import WORDS, batch_of
from transformers import AutoModelForMaskedLM

from configs.errors import ModelError
from student_train.losses.words import Words
from student_train.models.general_student import Asked, GeneralTeacher, has_word_head, load_general_student
from student_train.models.task_model import load_task_student, write_task_student

BATCH = batch_of([5, 9, 7], kind="tagging")


def words_of(place: Path) -> Words:
    _, words = GeneralTeacher(load_general_student(place)).read(BATCH, vocab=len(WORDS), words=True, inside=False)
    assert words is not None
    return words


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "mpnet", "electra", "modernbert"])
def test_logits_at_hidden_tokens_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    place = save_encoder(tmp_path, family=family)
    model = AutoModelForMaskedLM.from_pretrained(place).eval()
    student = load_general_student(place)
    with torch.no_grad():
        padded = BATCH.input_ids.masked_fill(BATCH.attention_mask == 0, model.config.pad_token_id)
        segments = {"token_type_ids": BATCH.segment_ids} if student._segments else {}
        whole = model(padded, attention_mask=BATCH.attention_mask, **segments).logits
    found = words_of(place).logits(slice(None))
    torch.testing.assert_close(found, whole.flatten(0, 1)[BATCH.units], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guesses", [True, False])
def test_what_is_written_is_read_back_and_is_plain_transformers(tmp_path: Path, guesses: bool) -> None:
    place = save_encoder(tmp_path / "start", guesses=guesses)
    student = load_general_student(place)
    assert student.guesses == guesses == has_word_head(place)
    out = tmp_path / "out"
    out.mkdir()
    write_task_student(student, dict(student.named_parameters()), start=place, folder=out)
    again = load_general_student(out)
    for (name, one), (other_name, other) in zip(student.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    if guesses:
        model, said = AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
        assert not said["missing_keys"] and not said["unexpected_keys"]
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_task_begins_with_its_body_and_a_head_of_its_own(tmp_path: Path) -> None:
    place = save_encoder(tmp_path)
    student = load_task_student(place, kind="classification", labels=("no", "yes"), head_seed=3)
    assert student.new_head and student.labels == ("no", "yes")


def test_a_head_is_drawn_where_there_is_none_and_tied_to_the_embeddings(tmp_path: Path) -> None:
    place = save_encoder(tmp_path, guesses=False)
    first, again, other = (load_general_student(place, head_seed=seed) for seed in (1, 1, 2))
    assert first.guesses and first.new_head
    assert first.model.get_output_embeddings().weight is first.model.get_input_embeddings().weight
    name = "model.cls.predictions.transform.dense.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_every_weight_has_a_place_and_the_head_stands_above(tmp_path: Path) -> None:
    for guesses in (True, False):
        student = load_general_student(save_encoder(tmp_path / str(guesses), guesses=guesses))
        groups = student.groups()
        assert len(groups) == 5
        head = {name for name, weight in student.named_parameters() if any(weight is each for each in groups[0])}
        assert all(name.startswith("model.cls." if guesses else "model.pooler.") for name in head) and head


def test_states_are_those_of_the_body_and_none_are_kept_unless_they_are_wanted(tmp_path: Path) -> None:
    student = load_general_student(save_encoder(tmp_path))
    with torch.no_grad():
        trace = student.read(BATCH)
        assert student.read(BATCH, inside=False).states == ()
    assert len(trace.states) == 4 and trace.states[-1].shape == (3, 9, 16)


def test_a_layer_that_says_no_loss_is_refused(tmp_path: Path) -> None:
    student = load_general_student(save_encoder(tmp_path))
    student.model.cls.predictions.register_forward_hook(lambda _, __, said: said + torch.zeros(2))
    asked = Asked(BATCH.units, len(WORDS), loss=lambda words: _Sums(words.states.sum()))
    with pytest.raises(ModelError, match="does more with its output layer than to apply it"):
        student.read(BATCH, asked=asked)


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    file = save_encoder(tmp_path) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"num_hidden_layers": 4}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"lacks 16 of the weights .* bert\.encoder\.layer\.3\."):
        load_general_student(tmp_path, head_seed=1)


def test_a_body_that_was_published_without_pooler_has_none(tmp_path: Path) -> None:
    place = save_encoder(tmp_path, guesses=False)
    weights = load_file(place / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "pooler" not in name},
        place / "model.safetensors",
        metadata={"format": "pt"},
    )
    student = load_general_student(place)
    assert not any("pooler" in name for name, _ in student.named_parameters())
    with torch.no_grad():
        assert len(student.read(BATCH).states) == 4


class _Sums:
    def __init__(self, loss: torch.Tensor) -> None:
        self.loss, self.metrics = loss, torch.zeros(1)
