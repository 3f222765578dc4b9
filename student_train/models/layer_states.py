"""What every layer of a model with a task head makes of a text: its states, as the mean over the tokens of the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from configs.errors import DataError
from configs.task import TaskKind
from configs.text_windows import length_batches
from student_train.feed.task_batch import TaskBatch
from student_train.models.predicting import laid_out
from student_train.models.task_model import load_task_student, stored_task
from student_train.models.task_tokenizer import load_task_tokenizer


def layer_states(model_dir: Path, inputs: Sequence[Sequence[str]]) -> list[Float32[np.ndarray, "N _"]]:
    """The states of N inputs (those of `Predictor.predict`) in every layer, on the CPU.

    Layer 0 is what the embeddings give. A network over embeddings has one more, what its head reads. Of an input that
    is longer than the model reads, the beginning counts.

    Raises:
        ModelError: it has no task head, or does not load.
        DataError: no token is made of an input.
    """
    kind, labels = stored_task(model_dir)
    model = load_task_student(model_dir, kind=kind, labels=labels)
    tokenizer = load_task_tokenizer(model_dir)
    longest = min(model.max_tokens, tokenizer.model_max_length)
    columns, words = _columns(inputs, kind=kind)
    windows = tokenizer(*columns, is_split_into_words=words, truncation=True, max_length=longest).encodings
    empty = next((place for place, window in enumerate(windows) if not window.ids), None)
    if empty is not None:
        raise DataError(f"input {empty}: the model's tokenizer makes no token of it: leave it out")
    found = [np.empty((len(inputs), width), dtype=np.float32) for width in model.sizes.widths]
    for places in length_batches([len(window.ids) for window in windows]):
        batch = _batch([windows[place] for place in places])
        with torch.inference_mode():
            trace = model.traced(batch)
            for layer, states in enumerate(found):
                states[places] = trace.state(layer, "mean", batch).numpy()
    return found


def _columns(inputs: Sequence[Sequence[str]], *, kind: TaskKind) -> tuple[list[list[Any]], bool]:
    """What a tokenizer is given, and whether that is words."""
    if kind == "tagging":
        return [[list(words) for words in inputs]], True
    return [list(part) for part in zip(*inputs, strict=True)], False


def _batch(windows: Sequence[Any]) -> TaskBatch:
    """Texts of which nothing is asked but what is inside their reader: each has one unit, its first token."""
    ids, mask, segments = laid_out(windows)
    rows = torch.arange(len(windows))
    return TaskBatch(
        input_ids=ids,
        attention_mask=mask,
        segment_ids=segments,
        units=rows * ids.shape[1],
        owner=rows,
        gold=torch.full((len(windows),), -1),
        teacher=None,
        texts=len(windows),
    )
