"""Shapes of models."""

from __future__ import annotations

import pytest

from configs.schema import ModelShape


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        (ModelShape(layers=28, hidden=3584, heads=28, kv_heads=4, mlp=18944, vocab=152064), 7_615_616_512),
        (
            ModelShape(layers=28, hidden=1536, heads=12, kv_heads=2, mlp=8960, vocab=151936, tied_embeddings=True),
            1_543_714_304,
        ),
        (ModelShape(layers=80, hidden=8192, heads=64, kv_heads=8, mlp=28672, vocab=128256), 70_553_706_496),
        (ModelShape(layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=128256), 8_030_261_248),
    ],
)
def test_parameter_counts_are_those_of_the_published_models(shape: ModelShape, published: int) -> None:
    # Qwen2.5 adds biases to queries, keys and values, which a Llama-style count leaves out: below 0.02 percent.
    assert shape.parameters == pytest.approx(published, rel=2e-4)


def test_a_wider_head_than_hidden_over_heads_counts() -> None:
    narrow = ModelShape(layers=1, hidden=8, heads=2, kv_heads=1, mlp=16, vocab=10)
    wide = narrow.model_copy(update={"head_dim": 8})
    # Queries and output grow by 2 heads x 4 columns each, keys and values by 1 head x 4 each, times 8 rows.
    assert (narrow.head_size, wide.head_size) == (4, 8)
    assert wide.parameters - narrow.parameters == 8 * 4 * (2 * 2 + 2 * 1)
