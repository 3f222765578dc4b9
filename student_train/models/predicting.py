"""What a student of a task says of texts: a class, the tags of words, or the answer in a passage; on the CPU.

Texts are read in batches of about one length. One that is longer than the student reads is cut for classification (and
says so), and read in windows for tags and spans, as a teacher's head reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from configs.errors import DataError, ModelError
from configs.task import TaskKind
from configs.text_windows import first_tokens, length_batches, passage_tokens, passage_windows, word_windows
from configs.visible_text import first_line
from student_train.models.task_model import load_task_student, stored_task
from student_train.models.task_tokenizer import load_task_tokenizer, require_pairs

LIKELIEST = 3
"""Labels of a text that are named with their probabilities."""

LONGEST_SPAN = 30
"""Tokens of the longest answer that is looked for (as in Devlin et al. 2019)."""

OUTSIDE = "O"
"""The tag of a word of which the tokenizer makes no token."""


@dataclass(frozen=True, slots=True)
class PredictedClass:
    """The likeliest class of a text and its probability; `cut` says that the student did not see all of the text.

    `likeliest` are the first few classes with their probabilities, the likeliest first.
    """

    label: str
    probability: float
    cut: bool
    likeliest: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PredictedTags:
    """The tag of every word and its probability, which is None for a word without a token."""

    tags: tuple[str, ...]
    probabilities: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class PredictedSpan:
    """The answer as it stands in the passage, from character `start` to `end` (excluded).

    `probability` is that of its first times that of its last token, among those of the window it was found in.
    """

    text: str
    start: int
    end: int
    probability: float


Prediction = PredictedClass | PredictedTags | PredictedSpan


class Predictor:
    """A student of a task, loaded. `kind` and `labels` are what its directory says of it."""

    def __init__(self, model_dir: Path, *, onnx: Path | None = None) -> None:
        """Load it. With `onnx` the passes are those of this file that was made of it (`onnx_export`).

        Raises:
            ModelError: it has no task head, or does not load; or the file does not, or was made of another student.
        """
        self.kind, self.labels = stored_task(model_dir)
        self._dir = model_dir
        self._student = load_task_student(model_dir, kind=self.kind, labels=self.labels)
        self._forward = self._student if onnx is None else _onnx_forward(onnx, kind=self.kind, labels=self.labels)
        self._tokenizer = load_task_tokenizer(model_dir)
        self._longest = min(self._student.max_tokens, self._tokenizer.model_max_length)

    @property
    def parameters(self) -> int:
        """How many parameters it has; tied ones count once."""
        return sum(each.numel() for each in self._student.parameters())

    def predict(self, inputs: Sequence[Sequence[str]]) -> list[Prediction]:
        """What the student says of each input.

        An input is a text or a pair of texts (classification), the words of a text (tagging), or a question and a
        passage (extractive question answering).

        Raises:
            DataError: an input is not of that form, or no token is made of it.
            ModelError: pairs are given to a student whose tokenizer cannot tell their texts apart.
        """
        if not inputs:
            return []
        match self.kind:
            case "classification":
                return list(self._classify(inputs))
            case "tagging":
                return list(self._tag(inputs))
            case _:
                return list(self._find(inputs))

    def _classify(self, texts: Sequence[Sequence[str]]) -> list[PredictedClass]:
        _require_parts(texts, allowed=(1, 2))
        if len(texts[0]) == 2:
            require_pairs(self._tokenizer, self._dir)
        columns = [list(part) for part in zip(*texts, strict=True)]
        windows = self._tokenizer(*columns, truncation=True, max_length=self._longest).encodings
        found: dict[int, PredictedClass] = {}
        for places, logits in self._passes(windows):
            for place, row in zip(places, logits.softmax(dim=-1), strict=True):
                ranked = row.topk(min(LIKELIEST, len(row))).indices.tolist()
                first = [(self.labels[at], float(row[at])) for at in ranked]
                found[place] = PredictedClass(*first[0], bool(windows[place].overflowing), tuple(first))
        return [found[place] for place in range(len(texts))]

    def _tag(self, rows: Sequence[Sequence[str]]) -> list[PredictedTags]:
        windows, owners = word_windows(self._tokenizer, rows, longest=self._longest)
        best: list[dict[int, tuple[str, float]]] = [{} for _ in rows]
        firsts = first_tokens(windows, owners)
        for places, logits in self._passes(windows):
            for place, window in zip(places, logits.softmax(dim=-1), strict=True):
                for word, token in firsts[place].items():
                    label = int(window[token].argmax())
                    best[owners[place]][word] = self.labels[label], float(window[token, label])
        found = []
        for row, known in zip(rows, best, strict=True):
            said = [known.get(word, (OUTSIDE, None)) for word in range(len(row))]
            found.append(PredictedTags(tuple(tag for tag, _ in said), tuple(probability for _, probability in said)))
        return found

    def _find(self, asked: Sequence[Sequence[str]]) -> list[PredictedSpan]:
        _require_parts(asked, allowed=(2,))
        questions, passages = ([pair[at] for pair in asked] for at in (0, 1))
        windows, owners = passage_windows(self._tokenizer, questions, passages, longest=self._longest)
        best: dict[int, tuple[float, PredictedSpan]] = {}
        for places, logits in self._passes(windows):
            for place, window in zip(places, logits, strict=True):
                owner = owners[place]
                score, span = _best_span(window, windows[place], passages[owner])
                if owner not in best or score > best[owner][0]:
                    best[owner] = score, span
        return [best[owner][1] for owner in range(len(asked))]

    def _passes(self, windows: Sequence[Any]) -> Iterator[tuple[list[int], Float[Tensor, "B *rest"]]]:
        """Forward passes over all windows, each over some of about one length: (their places, logits)."""
        empty = next((place for place, window in enumerate(windows) if not window.ids), None)
        if empty is not None:
            raise DataError(f"input {empty}: the student's tokenizer makes no token of it: leave it out")
        for places in length_batches([len(window.ids) for window in windows]):
            rows = laid_out([windows[place] for place in places])
            with torch.inference_mode():
                yield places, self._forward(*rows).float()


def laid_out(windows: Sequence[Any]) -> Int64[Tensor, "3 B T"]:
    """Ids, mask and segments of windows, each filled up on the right to the longest."""
    rows = torch.zeros(3, len(windows), max(len(window.ids) for window in windows), dtype=torch.int64)
    for at, window in enumerate(windows):
        ids, parts = window.ids, window.sequence_ids
        rows[0, at, : len(ids)] = torch.tensor(ids)
        rows[1, at, : len(ids)] = 1
        if 1 in parts:
            rows[2, at, parts.index(1) : len(ids)] = 1
    return rows


def _onnx_forward(path: Path, *, kind: TaskKind, labels: tuple[str, ...]) -> Callable[..., Tensor]:
    """The forward pass of an ONNX file: ids, mask and segments [B, T] to logits."""
    import onnxruntime  # not before it is asked for: it takes a part of a second

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # The runtime has an error of its own for everything that may be wrong with a file.
    except Exception as error:
        raise ModelError(f"{path}: does not load as ONNX ({first_line(error)}): write it again") from error
    said = session.get_modelmeta().custom_metadata_map
    if (said.get("kind"), said.get("labels")) != (kind, json.dumps(labels)):
        raise ModelError(f"{path}: was made of another student, with other labels: write it again from this one")
    wanted = [each.name for each in session.get_inputs()]

    def forward(*rows: Tensor) -> Tensor:
        given = dict(zip(("input_ids", "attention_mask", "segment_ids"), rows, strict=True))
        return torch.from_numpy(session.run(None, {name: given[name].numpy() for name in wanted})[0])

    return forward


def _require_parts(inputs: Sequence[Sequence[str]], *, allowed: tuple[int, ...]) -> None:
    for place, parts in enumerate(inputs):
        if isinstance(parts, str) or len(parts) not in allowed or len(parts) != len(inputs[0]):
            given = "a text" if isinstance(parts, str) else f"{len(parts)} texts"
            raise DataError(
                f"input {place} is {given}: give every input as {' or '.join(map(str, allowed))} texts, all alike"
            )


def _best_span(logits: Float[Tensor, "T 2"], window: Any, passage: str) -> tuple[float, PredictedSpan]:
    """The likeliest answer of at most `LONGEST_SPAN` tokens of a window, behind the sum of its logits."""
    tokens = passage_tokens(window)
    if not tokens:
        return -torch.inf, PredictedSpan("", 0, 0, 0.0)
    ends = logits[tokens]
    scores = ends[:, None, 0] + ends[None, :, 1]
    allowed = torch.ones_like(scores).triu().bool() & ~torch.ones_like(scores).triu(LONGEST_SPAN).bool()
    place = int(scores.masked_fill(~allowed, -torch.inf).argmax())
    first, last = divmod(place, len(tokens))
    believed = ends.softmax(dim=0)
    start, end = window.offsets[tokens[first]][0], window.offsets[tokens[last]][1]
    probability = float(believed[first, 0] * believed[last, 1])
    return float(scores[first, last]), PredictedSpan(passage[start:end], start, end, probability)
