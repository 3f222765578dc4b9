"""Two models along the same sequences: where they part, position by position, over the whole vocabulary.

Both read a batch, and their hidden states are turned into distributions a chunk of positions at a time: what is of the
size positions x vocabulary never holds more than one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cache.records import ScoreRequest, TeacherRecord
from configs.errors import ModelError
from student_train.feed.microbatch import collate
from student_train.models.decoder import Decoder

_CHUNK = 128


@dataclass(frozen=True, slots=True, eq=False)
class Divergences:
    """Along the S response tokens of a sequence: KL(teacher ‖ model), and log q - log p of each token, in nats."""

    kl: Float32[np.ndarray, " S"]
    gap: Float32[np.ndarray, " S"]


def shared_rows(model: Decoder, teacher: Decoder, *, vocab: int) -> int:
    """Over how many rows of their output matrices both distributions are taken.

    Over all of them where both have as many. Where only one is padded, or both differently, over the tokenizer's
    `vocab` ids: no row of the one without its counterpart.

    Raises:
        ModelError: one of them has fewer than `vocab` tokens.
    """
    if min(model.vocab, teacher.vocab) < vocab:
        raise ModelError(
            f"the model has {model.vocab:,} tokens and its teacher {teacher.vocab:,}, but the tokenizer has {vocab:,}: "
            "resize its embedding first"
        )
    return model.vocab if model.vocab == teacher.vocab else vocab


def divergences(
    model: Decoder, teacher: Decoder, sequences: Sequence[ScoreRequest], *, rows: int, tokens_per_batch: int
) -> list[Divergences]:
    """What both models make of every sequence, in their order; the models are on one device.

    Raises:
        ModelError: a sequence holds a token beyond the first `rows`.
    """
    highest = max((max(each.token_ids) for each in sequences), default=0)
    if highest >= rows:
        raise ModelError(f"token {highest:,} was written, but model and teacher share {rows:,}: resize its embedding")
    found: list[Divergences] = []
    for batch in _batches(sequences, tokens=tokens_per_batch):
        found += _along(model, teacher, batch, rows=rows)
    return found


def _batches(sequences: Sequence[ScoreRequest], *, tokens: int) -> Iterator[list[ScoreRequest]]:
    """In order, so many in each that their rows, as long as the longest, hold at most `tokens` (one may hold more)."""
    batch: list[ScoreRequest] = []
    for each in sequences:
        longest = max(len(one.token_ids) for one in [*batch, each])
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def _along(model: Decoder, teacher: Decoder, sequences: Sequence[ScoreRequest], *, rows: int) -> list[Divergences]:
    records = [
        TeacherRecord(b"", np.array(each.token_ids, dtype=np.int32), each.prompt_len, "stop", "prefill")
        for each in sequences
    ]
    batch = collate(records, with_targets=False).to(model.head.device)
    with torch.no_grad():
        own, theirs = model.hidden(batch), teacher.hidden(batch)
        parts = [
            _apart(_logprobs(model, own[cut], rows=rows), _logprobs(teacher, theirs[cut], rows=rows), batch.labels[cut])
            for cut in (slice(at, at + _CHUNK) for at in range(0, len(own), _CHUNK))
        ]
    kl, gap = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    ends = np.cumsum([record.response_len for record in records])[:-1]
    return [Divergences(*each) for each in zip(np.split(kl, ends), np.split(gap, ends), strict=True)]


def _logprobs(decoder: Decoder, hidden: Float[Tensor, "C H"], *, rows: int) -> Float[Tensor, "C V"]:
    logits = (hidden @ decoder.head[:rows].T).float()
    if decoder.softcap is not None:
        logits = decoder.softcap * torch.tanh(logits / decoder.softcap)
    return torch.log_softmax(logits, dim=1)


def _apart(
    q: Float[Tensor, "C V"], p: Float[Tensor, "C V"], labels: Int64[Tensor, " C"]
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """KL(p ‖ q) of each position, and log q - log p of its label."""
    gap = (q - p).gather(1, labels[:, None])[:, 0]
    return (p.exp() * (p - q)).sum(dim=1), gap
