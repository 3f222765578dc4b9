"""Models with a task head (classes, tags, spans): plain forward passes in torch, from safetensors, without remote code.

A head answers with logits and with where in the text they belong; what they mean for a task is said elsewhere
(`orchestration.comparison.head_answers`). Texts are run through in batches of about one length, so that little is
padding. A text longer than the model reads is cut for classification, and read in windows for tags and spans.

Shapes: N texts, L labels, W words, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from configs import ModelError
from configs.model_files import weight_files
from configs.models import Device
from configs.text_windows import first_tokens, length_batches, passage_tokens, passage_windows, word_windows
from configs.visible_text import first_line
from teacher_server.heads import HEADS, HeadKind, head_of, longest_sequence

LOADERS: dict[HeadKind, Any] = {
    "classification": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "extractive_qa": AutoModelForQuestionAnswering,
}


@dataclass(frozen=True, slots=True, eq=False)
class SpanWindow:
    """A window of a context: logits of being the first and the last token of the answer.

    `characters` are the beginning and the end (excluded) of every token in the context.
    """

    start: Float32[np.ndarray, " T"]
    end: Float32[np.ndarray, " T"]
    characters: tuple[tuple[int, int], ...]


class TaskHead:
    """A model with a task head, loaded."""

    def __init__(self, model_dir: Path, *, device: Device = "cpu") -> None:
        """Load it.

        Raises:
            ModelError: it has no task head, or does not load.
        """
        kind = head_of(model_dir)
        if kind is None:
            raise ModelError(f"{model_dir}: has no task head: name a model with one of {', '.join(HEADS)}")
        weight_files(model_dir)
        self.kind = kind
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self._model, self._tokenizer = load_with_head(model_dir, kind)
        self._model.to(self._device)
        names = self._model.config.id2label
        self.labels: tuple[str, ...] = tuple(str(names[at]) for at in sorted(names))
        self._longest = longest_sequence(int(self._model.config.max_position_embeddings), self._tokenizer)

    def classify(self, texts: Sequence[Sequence[str]]) -> Float32[np.ndarray, "N L"]:
        """Logits of the classes of each text, or pair of texts; a long one is cut."""
        found = np.zeros((len(texts), len(self.labels)), np.float32)
        parts = [list(part) for part in zip(*texts, strict=True)]
        windows = self._tokenizer(*parts, truncation=True, max_length=self._longest).encodings if parts else []
        for places, output in self._passes(windows):
            found[places] = _array(output.logits)
        return found

    def tag(self, rows: Sequence[Sequence[str]]) -> list[Float32[np.ndarray, "W L"]]:
        """Logits of the tags of each word, read at its first token; NaN for a word of which no token is made."""
        windows, owners = word_windows(self._tokenizer, rows, longest=self._longest)
        firsts = first_tokens(windows, owners)
        found = [np.full((len(row), len(self.labels)), np.nan, np.float32) for row in rows]
        for places, output in self._passes(windows):
            logits = _array(output.logits)
            for at, place in enumerate(places):
                for word, token in firsts[place].items():
                    found[owners[place]][word] = logits[at, token]
        return found

    def find_spans(self, questions: Sequence[str], contexts: Sequence[str]) -> list[list[SpanWindow]]:
        """The windows of each context, with the logits of where the answer to its question begins and ends."""
        windows, owners = passage_windows(self._tokenizer, questions, contexts, longest=self._longest)
        found: list[list[SpanWindow]] = [[] for _ in questions]
        for places, output in self._passes(windows):
            starts, ends = _array(output.start_logits), _array(output.end_logits)
            for at, place in enumerate(places):
                window = windows[place]
                tokens = passage_tokens(window)
                characters = tuple((int(a), int(b)) for a, b in (window.offsets[token] for token in tokens))
                found[owners[place]].append(SpanWindow(starts[at, tokens], ends[at, tokens], characters))
        return found

    def _passes(self, windows: Sequence[Any]) -> Iterator[tuple[list[int], Any]]:
        """Forward passes over all windows, each over some of about one length: (their places, output)."""
        fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        for places in length_batches([len(window.ids) for window in windows]):
            batch = self._tokenizer.pad(
                {
                    name: [getattr(windows[place], fields[name]) for place in places]
                    for name in self._tokenizer.model_input_names
                },
                padding_side="right",
                return_tensors="pt",
            )
            with torch.inference_mode():
                yield places, self._model(**batch.to(self._device))


def load_with_head(model_dir: Path, kind: HeadKind | None, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model with this head (None: without any), ready to answer, and its tokenizer, which has a padding token.

    Raises:
        ModelError: it does not load.
    """
    local = {"trust_remote_code": False, "local_files_only": True}
    loader = AutoModel if kind is None else LOADERS[kind]
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
        model = loader.from_pretrained(model_dir, use_safetensors=True, dtype=dtype, **local)
    # Each architecture has code of its own, which may die of anything that it does not expect.
    except Exception as error:
        raise ModelError(
            f"{model_dir}: does not load ({first_line(error)}): save model and tokenizer into one directory, as "
            "safetensors and without code of their own"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{model_dir}: its tokenizer does not say where its tokens lie: save it with a tokenizer.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # A decoder with a head finds the last token of a text by what is padding.
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _array(logits: torch.Tensor) -> Float32[np.ndarray, "..."]:
    found: Float32[np.ndarray, "..."] = logits.float().cpu().numpy()
    return found
