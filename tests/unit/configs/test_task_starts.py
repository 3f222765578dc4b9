from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from configs.task_starts import TaskStart

START: TypeAdapter[Any] = TypeAdapter(TaskStart)

SHAPE = {"layers": 2, "hidden": 64, "heads": 2, "mlp": 128}


@pytest.mark.parametrize(
    "start",
    [
        {"kind": "transformer", "keep_layers": 2, "layers_by": "first"},
        {"kind": "transformer", "hidden_size": 128},
        {"kind": "transformer", "shape": SHAPE},
        {"kind": "transformer", "model": {"hub": "some/encoder"}},
        {"kind": "transformer", "model": {"hub": "some/encoder"}, "keep_layers": 6, "layers_by": "alternate"},
        {"kind": "recurrent", "cell": "gru", "embedding_size": 64},
        {"kind": "recurrent", "embeddings": "random", "embedding_size": 64, "pooling": "attention"},
        {"kind": "bag", "hidden": 32},
    ],
)
def test_starts_that_make_sense(start: dict[str, Any]) -> None:
    assert START.validate_python(start).kind == start["kind"]


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"kind": "transformer"}, "got none of them"),
        ({"kind": "transformer", "keep_layers": 2, "shape": SHAPE}, "got shape, what to keep of the teacher"),
        ({"kind": "transformer", "model": {"hub": "some/encoder"}, "shape": SHAPE}, "got model, shape"),
        (
            {"kind": "transformer", "model": {"hub": "some/encoder"}, "hidden_size": 8},
            "measured on texts as the teacher reads them, so of a model keep layers alone",
        ),
        ({"kind": "transformer", "keep_layers": ()}, "keeps nothing"),
        ({"kind": "transformer", "keep_layers": (2, 1)}, "must be increasing"),
        ({"kind": "transformer", "keep_layers": (1, 2), "layers_by": "first"}, "needs keep_layers as a number"),
        ({"kind": "transformer", "hidden_size": 8, "layers_by": "first"}, "needs keep_layers as a number"),
        ({"kind": "transformer", "shape": SHAPE | {"heads": 3}}, "hidden=64 is not a multiple of heads=3"),
        ({"kind": "recurrent", "embeddings": "random"}, "needs embedding_size"),
        ({"kind": "bag", "cell": "lstm"}, "Extra inputs"),
        ({"kind": "perceptron"}, "perceptron"),
    ],
)
def test_starts_that_make_none(start: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        START.validate_python(start)
