"""A student as the training engine sees it: decoder and loss in one module.

The decoder gives hidden states; only those that predict a response token reach the head. The head is a module of its
own that holds the weight and returns the loss: under ZeRO-3 a weight is whole only inside the forward pass of the
module that holds it, and the fused loss needs it exactly there (its backward pass no longer needs it).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from configs.architecture import head_form
from configs.errors import ModelError
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.losses.fused import LossSums, fused_logprobs
from student_train.losses.head import Head
from student_train.losses.targets import LiveTargets
from student_train.models.inside import Inside, with_terms
from student_train.models.loading import require_all_weights
from student_train.models.tracing import DecoderTrace, recording
from student_train.objectives.answers import plain_loss

ObjectiveLoss = Callable[[Tensor, Head, MicroBatch, StageConfig], LossSums]
"""The loss of an objective: from hidden states [N, H] at the response positions to sums over positions."""

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The dtypes of a config by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """A causal language model taken apart: `body` gives hidden states, `head` [V, H] turns them into logits."""

    model: Any
    body: nn.Module
    head: nn.Parameter
    softcap: float | None

    @property
    def vocab(self) -> int:
        """V, the rows of the head, padding of the embedding included."""
        return int(self.head.shape[0])

    def hidden(self, batch: MicroBatch) -> Float[Tensor, "N H"]:
        """The hidden states that predict the batch's response tokens."""
        return hidden_states(self.body, batch)


def load_decoder(model_dir: Path, *, dtype: torch.dtype, gradient_checkpointing: bool = False) -> Decoder:
    """Load a plain transformers directory, from safetensors and without remote code.

    With `gradient_checkpointing` layers keep no activations; the backward pass computes them again.

    Raises:
        ModelError: not loadable, or its head does more than a matrix product and a tanh bound.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{model_dir} cannot be loaded as a causal language model: {error}") from error
    require_all_weights(model_dir, loading["missing_keys"])
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return take_apart(model)


def take_apart(model: Any) -> Decoder:
    """The parts of a loaded model.

    Raises:
        ModelError: its head does more than a matrix product and a tanh bound, so the fused loss would be wrong.
    """
    head, form = model.get_output_embeddings(), head_form(model.config)
    if not isinstance(head, nn.Linear) or getattr(head, "bias", None) is not None or form.scales:
        kind = model.config.model_type
        raise ModelError(
            f"{kind}: only heads that are one matrix without bias or scale are supported, so choose another student"
        )
    assert isinstance(head.weight, nn.Parameter)
    return Decoder(model, model.get_decoder(), head.weight, form.softcap)


def normalised_rows(matrix_rows: int, *, vocab: int, k: int) -> int:
    """Over how many rows of its output matrix a student's distribution is taken, for targets of `k` tokens.

    Over all of them, like the teacher's distribution and that of the engine which will serve the student: rows beyond
    the tokenizer's `vocab` ids belong to the tail on both sides, and learn to be as unlikely as they are for the
    teacher. Only where the teacher's probability of every id is known (k = V) there is no tail, and no padding in it.
    """
    return vocab if k >= vocab else matrix_rows


def hidden_states(body: nn.Module, batch: MicroBatch) -> Float[Tensor, "N H"]:
    """Run the decoder over the padded rows and pick the states that predict a response token."""
    return read_batch(body, batch, layers=False).hidden


def read_batch(body: nn.Module, batch: MicroBatch, *, layers: bool) -> DecoderTrace:
    """One forward pass over the padded rows: the states that predict a response token, and with `layers` all inside.

    Attention scores are among it where the model notes them (`student_train.models.tracing.note_attention`).
    """
    more = {"output_hidden_states": True} if layers else {}
    with recording() as scores:
        output = body(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **more)
    hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.positions)
    return DecoderTrace(hidden, tuple(output.hidden_states) if layers else (), tuple(scores) if layers else ())


def can_pack(decoder: Decoder) -> bool:
    """Whether the model keeps sequences in one row apart, found out by trying.

    Most decoders do, because position ids start again at 0. Those with a recurrent state or their own kind of attention
    may not: to them the second sequence continues the first.
    """
    if "position_ids" not in inspect.signature(decoder.body.forward).parameters:
        return False
    first, second = torch.arange(3, 9)[None], torch.arange(5, 11)[None]
    both, at = torch.cat([first, second], dim=1), torch.arange(6)[None]
    with torch.no_grad():
        alone = _states(decoder, second, position_ids=at)
        packed = _states(decoder, both, position_ids=torch.cat([at, at], dim=1))[:, 6:]
        joined = _states(decoder, both, position_ids=torch.arange(12)[None])[:, 6:]
    # Rounding differs with the shape of the batch, most of all in bfloat16, but far less than a foreign context does.
    return float((packed - alone).norm()) < 0.2 * float((joined - alone).norm())


def _states(decoder: Decoder, input_ids: Tensor, *, position_ids: Tensor) -> Tensor:
    states: Tensor = decoder.body(
        input_ids=input_ids.to(decoder.head.device), position_ids=position_ids.to(decoder.head.device), use_cache=False
    ).last_hidden_state
    return states.float()


class LossHead(nn.Module):
    """The output matrix with the stage's objective behind it."""

    def __init__(self, weight: nn.Parameter, *, stage: StageConfig, vocab: int, softcap: float | None) -> None:
        super().__init__()
        self.weight = weight
        self._stage, self._vocab, self._softcap = stage, vocab, softcap
        self._loss: ObjectiveLoss = stage.method.loss

    def forward(
        self, hidden: Float[Tensor, "N H"], batch: MicroBatch, *, scores: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Summed loss and metric sums (`student_train.losses.metrics.METRICS`); with `scores` log-probabilities."""
        head = Head(self.weight, self._vocab, self._softcap)
        if scores:
            return fused_logprobs(hidden, head, labels=batch.labels), None
        # Plain text beside rollouts is learned by cross-entropy, whatever the stage learns otherwise.
        loss = self._loss if batch.plain_weight is None else plain_loss
        sums = loss(hidden, head, batch, self._stage)
        return sums.loss, sums.metrics


@runtime_checkable
class TeacherAtHand(Protocol):
    """A teacher that reads the micro-batches of its student (`student_train.models.live_decoder`)."""

    def read(self, batch: MicroBatch, *, layers: bool) -> DecoderTrace:
        """What is inside it meanwhile; without `layers` its last states alone."""
        ...

    def targets(self, hidden: Float[Tensor, "N H"]) -> LiveTargets:
        """What it believes at the places of these last states."""
        ...


class StudentModule(nn.Module):
    """Decoder and loss as one module, which is what DeepSpeed wraps; a teacher at hand is no part of it.

    `inside` are the terms of the stage about what is inside that teacher.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        stage: StageConfig,
        vocab: int,
        teacher: TeacherAtHand | None = None,
        inside: Inside | None = None,
    ) -> None:
        super().__init__()
        self.body, self.inside = decoder.body, inside
        self.head = LossHead(decoder.head, stage=stage, vocab=vocab, softcap=decoder.softcap)
        self._teacher, self._asks = teacher, stage.teacher == "live"

    def forward(self, batch: MicroBatch, *, scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """Summed loss and metric sums of the batch. An empty batch gives zero and zero gradients everywhere.

        With `scores` the log-probability of every label [N] alone, in nats, without a gradient.
        """
        result: tuple[Tensor, Tensor | None]
        if scores or self._teacher is None:
            result = self.head(hidden_states(self.body, batch), batch, scores=scores)
            return result
        ours = read_batch(self.body, batch, layers=self.inside is not None)
        theirs = self._teacher.read(batch, layers=self.inside is not None)
        told = replace(batch, live=self._teacher.targets(theirs.hidden)) if self._asks else batch
        loss, metrics = self.head(ours.hidden, told)
        if self.inside is None:
            return loss, metrics
        more, terms = self.inside(ours, theirs, batch)
        return loss + more, with_terms(metrics, loss=more, terms=terms)
