"""A model that says what it sees in sequences: plain forward passes that give signals (`cache.signals`).

It may have a task head (classes, tags, spans), or none, and then gives hidden states alone. Sequences come as the token
ids that the model sees. Those of one sequence are answered by one pass, and passes are batched by length, so that
little is padding; in float32 the padding changes nothing but the last bits.

Shapes: B sequences of a batch, T tokens, H width of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from cache import TeacherIdentity
from cache.protocols import Failure
from cache.signals import Signal, SignalName, SignalRecord, SignalRequest, signal_key
from configs.models import Device
from configs.text_windows import length_batches
from teacher_server.encoder import load_with_head
from teacher_server.heads import HeadKind, head_of, longest_sequence

REQUESTS_AT_ONCE = 4096
"""Requests that are drawn before passes are planned over them: enough for batches of one length."""

GIVEN_BY: dict[HeadKind, SignalName] = {
    "classification": "class_logits",
    "tagging": "tag_logits",
    "extractive_qa": "span_logits",
}
"""The signal that each head gives."""

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Outcome = tuple[int, SignalRecord | Failure]


class SignalModel:
    """A model that answers requests for signals (`cache.protocols.SignalSource`)."""

    def __init__(self, model_dir: Path, identity: TeacherIdentity, *, device: Device = "cpu") -> None:
        """Load it, in the dtype of its identity.

        Raises:
            ModelError: it does not load.
        """
        self.identity = identity
        self.head = head_of(model_dir)
        self._digest = identity.digest()
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self._model, tokenizer = load_with_head(model_dir, self.head, dtype=TORCH_DTYPES[identity.dtype])
        self._model.to(self._device)
        self._pad = int(tokenizer.pad_token_id)
        self._reads_segments = "token_type_ids" in tokenizer.model_input_names
        self._longest = longest_sequence(int(self._model.config.max_position_embeddings), tokenizer)
        self._layers = int(self._model.config.num_hidden_layers)

    def signals(self, requests: Iterable[SignalRequest]) -> Iterator[Outcome]:
        """See `cache.protocols.SignalSource`."""
        for finished in self.passes(requests):
            yield from finished

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[Outcome]]:
        """As `signals`, with all that one forward pass says at once."""
        drawn = enumerate(requests)
        while some := list(islice(drawn, REQUESTS_AT_ONCE)):
            yield from self._answered(some)

    def refusal(self, request: SignalRequest) -> str | None:
        """Why a request cannot be answered, in one line; None when it can."""
        signal = request.signal
        if len(request.token_ids) > self._longest:
            return f"{len(request.token_ids)} tokens, and the model reads {self._longest}"
        if signal.layer is not None:
            return None if signal.layer <= self._layers else f"{signal}, and the model has {self._layers} layers"
        given = None if self.head is None else GIVEN_BY[self.head]
        return None if signal.name == given else f"{signal} is not what its head gives ({given or 'it has none'})"

    def _answered(self, requests: Sequence[tuple[int, SignalRequest]]) -> Iterator[list[Outcome]]:
        asked: dict[tuple[tuple[int, ...], int], list[int]] = {}
        refused: list[Outcome] = []
        for at, (position, request) in enumerate(requests):
            reason = self.refusal(request)
            if reason is not None:
                refused.append((position, Failure(reason)))
            else:
                asked.setdefault((request.token_ids, request.split), []).append(at)
        yield refused
        sequences = list(asked)
        for places in length_batches([len(tokens) for tokens, _ in sequences]):
            rows = [sequences[place] for place in places]
            wanted = {requests[at][1].signal for row in rows for at in asked[row]}
            found = self._pass(rows, wanted)
            yield [
                (requests[at][0], self._record(requests[at][1], found[requests[at][1].signal][number]))
                for number, row in enumerate(rows)
                for at in asked[row]
            ]

    def _record(self, request: SignalRequest, values: Float32[np.ndarray, "P W"]) -> SignalRecord | Failure:
        mine = np.ascontiguousarray(values[: request.signal.rows(len(request.token_ids))])
        if not np.isfinite(mine).all():
            return Failure(f"{request.signal} is not finite: load the teacher in float32")
        return SignalRecord(
            key=signal_key(self._digest, request),
            token_ids=np.array(request.token_ids, dtype=np.int32),
            split=request.split,
            signal=request.signal,
            values=mine,
        )

    def _pass(
        self, rows: Sequence[tuple[tuple[int, ...], int]], wanted: Iterable[Signal]
    ) -> dict[Signal, Float32[np.ndarray, "B P W"]]:
        """One forward pass over padded sequences: every signal that is wanted of any of them."""
        wanted = set(wanted)
        lengths = torch.tensor([len(tokens) for tokens, _ in rows])
        at = torch.arange(int(lengths.max()))[None]
        ids = torch.full((len(rows), at.shape[1]), self._pad)
        for number, (tokens, _) in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
        mask = at < lengths[:, None]
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if self._reads_segments:
            splits = torch.tensor([split for _, split in rows])
            inputs["token_type_ids"] = ((at >= splits[:, None]) & mask).long()
        with torch.inference_mode():
            output = self._model(
                **{name: tensor.to(self._device) for name, tensor in inputs.items()},
                output_hidden_states=any(signal.name == "state" for signal in wanted),
            )
            return {signal: _array(self._value(signal, output, mask.to(self._device))) for signal in wanted}

    def _value(self, signal: Signal, output: Any, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B P W"]:
        if signal.layer is not None and signal.position is not None:
            return POOLS[signal.position](output.hidden_states[signal.layer].float(), mask)[:, None]
        if signal.name == "span_logits":
            return torch.stack([output.start_logits, output.end_logits], dim=2)
        logits: Tensor = output.logits
        return logits[:, None] if signal.name == "class_logits" else logits


def _first(states: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
    return states[:, 0]


def _last(states: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1).long() - 1]


def _mean(states: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
    return torch.where(mask[:, :, None], states, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"first": _first, "last": _last, "mean": _mean}
"""How a hidden state is taken at a position, padding (mask False) left out."""


def _array(values: Tensor) -> Float32[np.ndarray, "B P W"]:
    found: Float32[np.ndarray, "B P W"] = values.float().cpu().numpy()
    return found
