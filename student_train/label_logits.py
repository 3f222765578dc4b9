"""What a model with a task head makes of examples: its logits at every unit, one forward pass and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from configs.models import Device
from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import collate_examples
from student_train.feed.task_steps import measured_batches
from student_train.models.task_model import load_task_student

TOKENS_PER_BATCH = 4096
"""About as many tokens as are read at a time."""


def label_logits(
    model_dir: Path, examples: ExampleSet, *, labels: Sequence[str] | None = None, device: Device = "cpu"
) -> list[Float32[np.ndarray, "U C"]]:
    """The logits at the units of each example, in the order of the examples; U may differ, C is the number of labels.

    `labels` are those of the head, where it calls them otherwise than the examples do.

    Raises:
        ModelError: the model cannot be loaded, has another head or other labels, or reads fewer tokens than there are.
    """
    if not len(examples):
        return []
    longest = int(examples.lengths.max())
    student = load_task_student(model_dir, kind=examples.kind, labels=labels or examples.labels, max_tokens=longest)
    place = torch.device("cuda" if device == "gpu" else "cpu")
    student.to(place).eval()
    found: list[Float32[np.ndarray, "U C"]] = [np.empty((0, len(student.labels)), np.float32)] * len(examples)
    for rows in measured_batches(examples, tokens=TOKENS_PER_BATCH):
        with torch.inference_mode():
            logits = student.unit_logits(collate_examples(examples, rows).to(place)).cpu().numpy()
        ends = np.cumsum(np.diff(examples.unit_offsets)[rows])[:-1]
        for row, each in zip(rows.tolist(), np.split(logits, ends), strict=True):
            found[row] = each
    return found
