"""States of every layer, beside those that transformers and torch hand out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from task_students import NETWORKS, save_network, save_transformer
from transformers import AutoModel, AutoTokenizer

from configs import text_windows
from configs.errors import DataError
from configs.task import TaskKind
from student_train.models.layer_states import layer_states
from student_train.models.task_model import stored_inside

TEXTS = [("w1 w2 w3",), ("w4",), ("w5 w6s w7 w8ed w9 w1 w1",), ("w2",)]


def of_transformers(folder: Path, *parts: str | list[str], words: bool = False) -> list[np.ndarray]:
    """Means over the tokens of one text, by a plain pass over it alone."""
    read = AutoTokenizer.from_pretrained(folder)(*parts, return_tensors="pt", is_split_into_words=words)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**read, output_hidden_states=True).hidden_states
    return [state[0].mean(dim=0).numpy() for state in states]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_states_are_means_over_the_tokens_of_each_text(tmp_path: Path, family: str) -> None:
    folder = save_transformer(tmp_path / "model", family=family)
    found = layer_states(folder, TEXTS)
    assert len(found) == 4
    for place, text in enumerate(TEXTS):
        for layer, state in enumerate(of_transformers(folder, *text)):
            np.testing.assert_allclose(found[layer][place], state, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [("tagging", ["w1", "w2s", "w3"], True), ("extractive_qa", ("w1 w2", "w3 w4"), False)],
)
def test_words_and_passages_are_read_as_a_tokenizer_puts_them(
    tmp_path: Path, kind: TaskKind, given: list[str], words: bool
) -> None:
    folder = save_transformer(tmp_path / "model", kind=kind)
    found = layer_states(folder, [given, given])
    expected = of_transformers(folder, *([given] if words else given), words=words)
    for layer, state in enumerate(expected):
        np.testing.assert_allclose(found[layer], [state, state], atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_embeddings_and_what_their_head_reads(tmp_path: Path, name: str) -> None:
    folder = save_network(tmp_path / "model", name=name)
    found = layer_states(folder, TEXTS)
    assert [state.shape for state in found] == [(4, width) for width in stored_inside(folder).widths]
    alone = [layer_states(folder, [text]) for text in TEXTS]
    for layer, states in enumerate(found):
        np.testing.assert_allclose(states, np.concatenate([one[layer] for one in alone]), atol=1e-5)
        assert not np.allclose(states[0], states[1])


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_transformer(tmp_path / "model")
    together = layer_states(folder, TEXTS)
    monkeypatch.setattr(text_windows, "BATCH_TOKENS", 1)
    for one, other in zip(together, layer_states(folder, TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_of_a_long_text_the_beginning_counts(tmp_path: Path) -> None:
    folder = save_transformer(tmp_path / "model")
    long = " ".join(["w1"] * 38)
    for one, other in zip(layer_states(folder, [(long,)]), layer_states(folder, [(long + " w2 w3",)]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_input_without_a_token_is_named(tmp_path: Path) -> None:
    folder = save_transformer(tmp_path / "model", family="bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataError, match="input 1: the model's tokenizer makes no token of it"):
        layer_states(folder, [("w1",), (" ",)])
