"""What a model believes at the teacher's tokens, as plain arrays.

Scores a student (or the untouched start, or the teacher itself) on the sequences of a cache view, at the teacher's
top-k ids. The metrics themselves are computed elsewhere, in numpy, apart from the training code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int32
from torch import Tensor

from cache.protocols import RecordReader
from cache.records import TeacherRecord
from cache.views import CacheView
from configs.errors import ModelError
from student_train.feed.microbatch import collate
from student_train.feed.packing import Layout, lay_out
from student_train.feed.steps import held_out_batches
from student_train.losses.divergences import guarded_logsumexp, without_padding
from student_train.losses.targets import SparseTargets
from student_train.models.decoder import TORCH_DTYPES, Decoder, can_pack, load_decoder, normalised_rows

OWN_IDS = 5
"""Best tokens of the model's own that a row names; fewer where it has fewer."""

_CHUNK = 512


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRow:
    """A model's log-probabilities (nats, over `model.normalised_rows`) along one record of S response tokens.

    `topk_logprobs` are at the record's top-k ids, `tail_logmass` outside them (-inf when nothing is), `target_logprobs`
    at the response tokens; `own_ids` are the model's own best tokens, the best first, `own_best` is the log-probability
    of the best, `entropy` that of the whole distribution.
    """

    record: TeacherRecord
    topk_logprobs: Float32[np.ndarray, "S K"]
    tail_logmass: Float32[np.ndarray, " S"]
    target_logprobs: Float32[np.ndarray, " S"]
    own_ids: Int32[np.ndarray, "S k"]
    own_best: Float32[np.ndarray, " S"]
    entropy: Float32[np.ndarray, " S"]


def score_view(
    model_dir: Path,
    *,
    cache: RecordReader,
    view: CacheView,
    vocab: int,
    dtype: str = "float32",
    device: str = "cpu",
    tokens_per_batch: int = 4096,
) -> Iterator[HeldOutRow]:
    """Score every record of `view`, in its order, with the model in `model_dir`.

    Those that are read together share rows, as in training; a model that cannot keep them apart reads those of like
    length together (`student_train.feed.packing`).

    Raises:
        ModelError: the model cannot be loaded or has fewer than `vocab` tokens.
        DataError: a record holds text alone.
    """
    decoder = load_decoder(model_dir, dtype=TORCH_DTYPES[dtype])
    if decoder.vocab < vocab:
        raise ModelError(
            f"{model_dir} has {decoder.vocab:,} tokens but the teacher's tokenizer has {vocab:,}: resize its "
            "embedding first"
        )
    decoder.model.to(device).eval()
    rows, packs = normalised_rows(decoder.vocab, vocab=vocab, k=view.k), can_pack(decoder)
    for records in cache.iter_blocks(view, held_out_batches(view, tokens=tokens_per_batch)):
        lengths = np.array([len(record.token_ids) - 1 for record in records], dtype=np.int64)
        scored: dict[int, HeldOutRow] = {}
        for layout in lay_out(lengths, tokens=tokens_per_batch, packs=packs):
            found = _score(decoder, records, layout=layout, rows=rows, device=torch.device(device))
            scored.update(zip(chain.from_iterable(layout), found, strict=True))
        yield from (scored[at] for at in range(len(records)))


def _score(
    decoder: Decoder, records: Sequence[TeacherRecord], *, layout: Layout, rows: int, device: torch.device
) -> list[HeldOutRow]:
    """The records of one micro-batch, in the order of its layout."""
    batch = collate(records, with_targets=True, layout=layout).to(device)
    assert batch.targets is not None
    targets, labels = batch.targets, batch.labels
    with torch.no_grad():
        hidden = decoder.hidden(batch)
        parts = [
            _believe(decoder, hidden[at:end], targets[at:end], labels[at:end], rows=rows)
            for at, end in ((at, at + _CHUNK) for at in range(0, max(1, len(hidden)), _CHUNK))
        ]
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    scored, start = [], 0
    for record in (records[at] for row in layout for at in row):
        # Left to right: the old start, then the new one.
        cut = slice(start, start := start + record.response_len)
        topk, tail, target, own, best, entropy = (column[cut] for column in columns)
        scored.append(HeldOutRow(record, topk, tail, target, own.astype(np.int32), best, entropy))
    return scored


def _believe(
    decoder: Decoder, hidden: Tensor, targets: SparseTargets, labels: Tensor, *, rows: int
) -> tuple[Tensor, ...]:
    """Log-probabilities at ids and labels, log-mass outside the ids, best tokens and entropy of each position."""
    logits = (hidden @ decoder.head[:rows].T).float()
    if decoder.softcap is not None:
        logits = decoder.softcap * torch.tanh(logits / decoder.softcap)
    logprobs = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    entropy = -(logprobs.exp() * logprobs).sum(dim=1)
    best, own = logprobs.topk(min(OWN_IDS, rows), dim=1)
    kept = logprobs.gather(1, targets.ids)
    target = logprobs.gather(1, labels[:, None])[:, 0]
    tail = guarded_logsumexp(logprobs.scatter_(1, targets.ids, float("-inf")))
    if targets.padding is not None:
        kept, tail = without_padding(targets.padding, kept, tail)
    return kept, tail, target, own, best[:, 0], entropy
