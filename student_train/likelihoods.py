"""How likely given sequences are to a model, token by token: a forward pass, and nothing else of what it believes.

Log-probabilities are in nats and over all rows of the model's output matrix, as an engine that serves it gives them.
Sequences of nearly the same length share a batch, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from cache.records import ScoreRequest, TeacherRecord
from configs.architecture import read_architecture
from configs.errors import ModelError
from configs.models import Device
from student_train.feed.microbatch import collate
from student_train.losses.fused import fused_logprobs
from student_train.losses.head import Head
from student_train.models.decoder import TORCH_DTYPES, Decoder, load_decoder

TOKENS_PER_BATCH = 4096
"""Tokens that are read at a time, padding included."""


def likelihoods(
    model_dir: Path,
    sequences: Sequence[ScoreRequest],
    *,
    dtype: str = "float32",
    device: Device = "cpu",
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> list[NDArray[np.float32]]:
    """The log-probability of every response token of each sequence, in the order of the sequences.

    Raises:
        ModelError: the model cannot be loaded, has no embedding for a token, or reads fewer tokens than a sequence has.
    """
    longest = max((len(each.token_ids) for each in sequences), default=0)
    most = read_architecture(model_dir).shape.max_positions
    if longest > most:
        raise ModelError(f"a sequence of {longest:,} tokens is to be read, and the model reads {most:,}: shorten it")
    decoder = load_decoder(model_dir, dtype=TORCH_DTYPES[dtype])
    decoder.model.to("cuda" if device == "gpu" else "cpu").eval()
    return logprobs_of(decoder, sequences, tokens_per_batch=tokens_per_batch)


def logprobs_of(
    decoder: Decoder, sequences: Sequence[ScoreRequest], *, tokens_per_batch: int = TOKENS_PER_BATCH
) -> list[NDArray[np.float32]]:
    """See `likelihoods`; of a model that is loaded."""
    highest = max((max(each.token_ids) for each in sequences), default=0)
    if highest >= decoder.vocab:
        raise ModelError(f"token {highest:,} is to be read, and the model has {decoder.vocab:,}: name another model")
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    for places in _batches(sequences, tokens=tokens_per_batch):
        read = _read(decoder, [sequences[at] for at in places])
        for at, each in zip(places, read, strict=True):
            found[at] = each
    return found


def _read(decoder: Decoder, sequences: Sequence[ScoreRequest]) -> list[Float32[np.ndarray, " _"]]:
    records = [
        TeacherRecord(b"", np.array(each.token_ids, dtype=np.int32), each.prompt_len, "given", "prefill")
        for each in sequences
    ]
    batch = collate(records, with_targets=False).to(decoder.head.device)
    with torch.no_grad():
        head = Head(decoder.head, softcap=decoder.softcap)
        found = fused_logprobs(decoder.hidden(batch), head, labels=batch.labels).float().cpu().numpy()
    ends = np.cumsum([record.response_len for record in records])[:-1]
    return np.split(found, ends)


def _batches(sequences: Sequence[ScoreRequest], *, tokens: int) -> Iterator[list[int]]:
    """Positions by length, so many in each that their padded rows hold at most `tokens` (one alone may hold more)."""
    batch: list[int] = []
    for at in sorted(range(len(sequences)), key=lambda at: len(sequences[at].token_ids)):
        if batch and len(sequences[at].token_ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
