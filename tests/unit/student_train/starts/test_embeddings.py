"""Embeddings of a teacher against numpy's singular values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from task_students import FAMILIES, save_network, save_transformer
from tiny_llama import save_tiny_llama
from transformers import AutoModelForSequenceClassification

from configs.errors import ConfigError, ModelError
from student_train.starts.embeddings import narrowed_embeddings, read_embeddings


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embeddings_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(save_transformer(tmp_path, family=family))
    assert torch.equal(read_embeddings(tmp_path), model.get_input_embeddings().weight)


def test_a_language_model_has_embeddings_too(tmp_path: Path) -> None:
    found = read_embeddings(save_tiny_llama(tmp_path, seed=1, dtype=torch.bfloat16))
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (160, 64))


def test_a_model_whose_embeddings_have_another_name_is_refused(tmp_path: Path) -> None:
    save_transformer(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.replace("word_embeddings", "words"): weight for name, weight in weights.items()},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(
        ModelError, match=r"none of its tensors is named as embeddings are .* set embeddings: random and"
    ):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_largest_singular_values_span_what_is_kept(size: int) -> None:
    matrix = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.2, 2.0, 8)
    found = narrowed_embeddings(matrix, size=size).numpy()
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    expected = left[:, :size] * values[:size]
    signs = np.sign(right[np.arange(size), np.abs(right[:size]).argmax(axis=1)])
    np.testing.assert_allclose(found, expected * signs, atol=1e-5)
    # Distances between words are what they are in the teacher's best approximation of that rank.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_the_same_width_is_the_matrix_itself() -> None:
    matrix = torch.randn(9, 4)
    assert torch.equal(narrowed_embeddings(matrix, size=4), matrix)
    assert torch.equal(narrowed_embeddings(matrix, size=None), matrix)


def test_wider_than_the_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedding_size=5 but the teacher's embeddings have 4: set at most 4, or"):
        narrowed_embeddings(torch.randn(9, 4), size=5)


def test_a_network_has_no_embeddings_by_those_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none of its tensors"):
        read_embeddings(save_network(tmp_path / "network", name="bag"))
