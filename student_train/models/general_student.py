"""Encoders of plain text: a body, and the head of a masked language model where it has one.

Students of general distillation, and the teachers that read beside them. The last layer of such a head is as wide as
the vocabulary. Here it is applied to hidden tokens alone, and the loss is computed inside it: under ZeRO-3 a weight is
whole only inside the forward pass of the module that holds it (`student_train.models.decoder`).

Shapes: B rows, T tokens, N hidden tokens, V the vocabulary, H the width before the output layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM

from configs.errors import ModelError
from configs.model_files import weight_files
from student_train.feed.task_batch import TaskBatch
from student_train.losses.fused import LossSums
from student_train.losses.words import Words
from student_train.models.loading import load_seeded, require_all_weights
from student_train.models.task_tokenizer import load_task_tokenizer
from student_train.models.task_transformer import POOLER, TransformerStudent, is_head, read_model_config, segments_of
from student_train.models.tracing import Trace, recording

WORD_HEADS = ("ForMaskedLM", "ForPreTraining")
"""How the class of a model ends that guesses hidden tokens."""


@dataclass(slots=True, eq=False)
class Asked:
    """What an output layer is asked in one forward pass, and what it found.

    `units` are the places of N tokens in the B x T tokens laid flat, the first `vocab` rows of the layer tokens. With
    `loss` it gives that; else it says what stands before it (`words`).
    """

    units: Int64[Tensor, " N"]
    vocab: int
    loss: Callable[[Words], LossSums] | None = None
    words: Words | None = None
    metrics: Float[Tensor, " M"] | None = None


class WordLayer(nn.Linear):
    """The output layer of a masked language model. Unless it is `asked` it looks at the first token of a row alone."""

    asked: Asked | None = None

    def forward(self, states: Float[Tensor, "B T H"]) -> Tensor:
        """Logits [B, 1, V] of the first tokens; a loss [1, 1, 1]; or [1, 1, 0] where words are kept."""
        asked = self.asked
        if asked is None:
            return super().forward(states[:, :1])
        picked = states.flatten(0, 1).index_select(0, asked.units)
        words = Words(picked, self.weight, self.bias, asked.vocab)
        if asked.loss is None:
            asked.words = words
            return states.new_empty(1, 1, 0)
        sums = asked.loss(words)
        asked.metrics = sums.metrics
        return sums.loss.reshape(1, 1, 1)


class GeneralStudent(TransformerStudent):
    """An encoder of plain text. Its units are tokens, each of which has one right choice: that makes it a tagger."""

    def __init__(self, model: Any, *, pad: int, segments: bool) -> None:
        super().__init__(model, kind="tagging", labels=(), pad=pad, segments=segments)
        self.guesses = _is_masked(model)
        if self.guesses:
            layer = model.get_output_embeddings()
            if type(layer) is not nn.Linear:
                raise ModelError(
                    f"{model.config.model_type}: its output layer is not one matrix, so hidden tokens cannot be "
                    "learned: name another model (BERT, DistilBERT, RoBERTa, MPNet), or learn features alone"
                )
            # Of another class, not wrapped: its weights keep their names, and stay tied to the embeddings.
            layer.__class__ = WordLayer

    @property
    def purpose(self) -> str:
        """See `TaskStudent.purpose`."""
        return "An encoder of plain text, without the head of any task"

    @property
    def pipeline(self) -> str:
        """See `TaskStudent.pipeline`."""
        return "fill-mask" if self.guesses else "feature-extraction"

    def read(self, batch: TaskBatch, *, asked: Asked | None = None, inside: bool = True) -> Trace:
        """One forward pass; `logits` are the loss that was `asked` for, else nothing that is read.

        Without `inside` no states are kept.
        """
        layer = self.model.get_output_embeddings() if self.guesses else None
        if layer is not None:
            layer.asked = asked
        try:
            with recording() as scores:
                output = self._output(
                    batch.input_ids, batch.attention_mask, batch.segment_ids, output_hidden_states=inside
                )
        finally:
            if layer is not None:
                layer.asked = None
        found = self._logits(output)
        if asked is not None and asked.loss is not None and found.shape != (1, 1, 1):
            raise ModelError(
                f"{self.model.config.model_type}: does more with its output layer than to apply it, so hidden tokens "
                "cannot be learned: name another model (BERT, DistilBERT, RoBERTa, MPNet), or learn features alone"
            )
        return Trace(found.flatten(0, -2), tuple(output.hidden_states or ()), tuple(scores))

    def traced(self, batch: TaskBatch) -> Trace:
        """See `TaskStudent.traced`."""
        return self.read(batch)

    def in_head(self, name: str) -> bool:
        """See `TransformerStudent.in_head`; a model without head has a pooler at most."""
        return is_head(self.model, name) if self.guesses else name.split(".")[0] == POOLER

    def _logits(self, output: Any) -> Tensor:
        if self.guesses:
            logits: Tensor = output.logits
            return logits
        pooled = getattr(output, "pooler_output", None)
        found: Tensor = output.last_hidden_state[:, :1] if pooled is None else pooled
        return found


class GeneralTeacher:
    """A teacher of plain text: frozen, in its own dtype, whole in every process, and in no checkpoint."""

    def __init__(self, teacher: GeneralStudent) -> None:
        self.model = teacher.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def read(self, batch: TaskBatch, *, vocab: int, words: bool, inside: bool) -> tuple[Trace, Words | None]:
        """What is `inside` it while it reads a batch, and the `words` that it expects at the hidden tokens."""
        model = self.model.to(batch.input_ids.device)
        asked = Asked(batch.units, vocab) if words else None
        trace = model.read(batch, asked=asked, inside=inside)
        return trace, None if asked is None else asked.words


def has_word_head(model_dir: Path) -> bool:
    """Whether a model guesses hidden tokens, by its config.json alone.

    Raises:
        ModelError: it cannot be read.
    """
    names = map(str, read_model_config(model_dir).architectures or ())
    return any(name.endswith(WORD_HEADS) for name in names)


def load_general_student(
    model_dir: Path, *, dtype: torch.dtype = torch.float32, head_seed: int | None = None
) -> GeneralStudent:
    """Load an encoder with the head of a masked language model, or without one where it has none.

    On the CPU and in evaluation mode, from safetensors and without remote code. With `head_seed` one without a head
    gets one, drawn with that seed, whose output layer is its embeddings.

    Raises:
        ModelError: it does not load, or lacks weights.
    """
    weight_files(model_dir)
    tokenizer, config, there = load_task_tokenizer(model_dir), read_model_config(model_dir), has_word_head(model_dir)
    config.pad_token_id = tokenizer.pad_token_id
    loader = AutoModelForMaskedLM if there or head_seed is not None else AutoModel
    model, drawn = load_seeded(
        loader,
        model_dir,
        config=config,
        dtype=dtype,
        seed=head_seed or 0,
        wanted="as an encoder of plain text",
        cure="name a model that transformers has a masked language model of",
    )
    new = head_seed is not None and not there
    # A published body often lacks its pooler, which nothing here reads.
    require_all_weights(model_dir, {name for name in drawn if not (is_head(model, name) and new) and not _pools(name)})
    if any(map(_pools, drawn)):
        model.base_model.pooler = None
    student = GeneralStudent(model, pad=tokenizer.pad_token_id, segments=segments_of(model, tokenizer))
    student.new_head = new
    return student


def random_general_student(config: Any, *, tokenizer: Any, seed: int, guesses: bool) -> GeneralStudent:
    """A student of this configuration of transformers, its weights drawn with `seed`, for this tokenizer."""
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (AutoModelForMaskedLM if guesses else AutoModel).from_config(config).eval()
    return GeneralStudent(model, pad=tokenizer.pad_token_id, segments=segments_of(model, tokenizer))


def _is_masked(model: Any) -> bool:
    return type(model).__name__.endswith(WORD_HEADS)


def _pools(name: str) -> bool:
    return POOLER in name.split(".")
