"""A student of a task as an ONNX file, held against torch before it is kept.

Models of transformers go through torch's exporter (`torch.onnx.export`, which follows the graph of `torch.export`): it
keeps batch and length open and needs no code of each family (tried: BERT, DistilBERT, RoBERTa, XLM-R, MPNet, ELECTRA,
ALBERT, DeBERTa, ModernBERT, Llama, Qwen2, Gemma 3, GPT-2). Networks over embeddings, which it cannot follow, are
written by `student_train.models.onnx_networks`. The older exporter, which records a trace, is deprecated, and keeps
what it saw of a shape without a word.

Every file takes `input_ids`, `attention_mask` and `segment_ids` [batch, tokens] (int64) and gives `logits` in float32;
its metadata name the kind of task and the labels.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Int64
from torch import Tensor

from configs.errors import ModelError
from configs.visible_text import first_line
from student_train.models.onnx_networks import INPUTS, OUTPUT, network_graph
from student_train.models.task_network import NetworkStudent
from student_train.models.task_student import TaskStudent

TOLERANCE = 1e-4
"""How far a logit may be from torch's, as a share of the largest one or of 1; float32 alone makes some 1e-6."""

CHECKED = ((5, 3), (1,), (2, 31, 17, 8), (64,))
"""Lengths of the rows of each batch that is compared; none is longer than the student reads."""

_CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


def export_onnx(student: TaskStudent, path: Path) -> float:
    """Write a student to `path` and compare it with torch; the largest difference of a logit, as in `TOLERANCE`.

    It is exported in float32, whatever it was loaded in. A file of more than 2 GB has its weights beside it.

    Raises:
        ModelError: it cannot be exported, or what the file says is not what torch says; then there is no file.
    """
    exact = copy.deepcopy(student).float().eval()
    metadata = {"kind": student.kind, "labels": json.dumps(student.labels)}
    try:
        if isinstance(exact, NetworkStudent):
            graph = network_graph(exact)
            onnx.helper.set_model_props(graph, metadata)
            onnx.checker.check_model(graph, full_check=True)
            onnx.save(graph, path)
        else:
            _trace(exact, path, metadata=metadata)
        difference = onnx_difference(exact, path)
    # The exporter has errors of its own for every step, and the runtime for every file.
    except Exception as error:
        path.unlink(missing_ok=True)
        said = first_line(error.__cause__ or error)
        raise ModelError(
            f"{path}: cannot be written as ONNX ({said}): keep the model as it is, or name another"
        ) from error
    if difference > TOLERANCE:
        path.unlink()
        raise ModelError(
            f"{path}: the logits of the ONNX file are {difference:.1e} from torch's, and {TOLERANCE:.0e} is allowed: "
            "keep the model as it is"
        )
    return difference


def onnx_difference(student: TaskStudent, path: Path) -> float:
    """The largest difference of a logit between a student and an ONNX file, over several batches of random tokens."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for place, lengths in enumerate(CHECKED):
        rows = _rows(student, [min(length, student.max_tokens) for length in lengths], seed=place)
        fed = dict(zip(INPUTS, rows, strict=True))
        found = session.run([OUTPUT], {each.name: fed[each.name].numpy() for each in session.get_inputs()})[0]
        with torch.no_grad():
            expected = student(*rows).numpy()
        if found.shape != expected.shape:
            raise ValueError(f"logits of shape {found.shape}, not {expected.shape}")
        real = slice(None) if student.kind == "classification" else rows[1].bool().numpy()
        found, expected = found[real], expected[real]
        scale = max(1.0, float(np.abs(expected).max()))
        # Not a number is no small difference.
        largest = max(largest, float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max()) / scale)
    return largest


def _trace(student: TaskStudent, path: Path, *, metadata: dict[str, str]) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with _quiet():
        program = torch.onnx.export(
            student,
            _rows(student, [min(7, student.max_tokens), 4], seed=0),
            dynamo=True,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch, 1: tokens},) * len(INPUTS),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(metadata)
        program.save(path)


def _rows(student: TaskStudent, lengths: list[int], *, seed: int) -> tuple[Int64[Tensor, "B T"], ...]:
    """Padded rows of random tokens, of which the second half is the second text."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(student.vocab, (len(lengths), max(lengths)), generator=drawn)
    places, ends = torch.arange(max(lengths))[None], torch.tensor(lengths)[:, None]
    mask = places < ends
    return ids * mask, mask.long(), (mask & (places >= ends // 2 + 1)).long()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that it does not need, and of how it is built itself."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    try:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
