"""A language model that teaches another one in the same step: it reads the student's micro-batches beside it.

It is frozen, in its own dtype, and whole in every process: no part of the module that DeepSpeed wraps, so its weights
are neither cut into parts nor saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from student_train.feed.microbatch import MicroBatch
from student_train.job import TaughtInside
from student_train.losses.head import Head
from student_train.losses.targets import LiveTargets
from student_train.models.decoder import TORCH_DTYPES, Decoder, can_pack, load_decoder, read_batch
from student_train.models.tracing import DecoderTrace, note_attention


class LiveDecoder:
    """A teacher over `tokens` token ids. It has no weights that learn, and no state that is saved."""

    def __init__(self, decoder: Decoder, *, tokens: int) -> None:
        decoder.model.eval().requires_grad_(requires_grad=False)
        self._decoder, self._tokens = decoder, tokens
        # Before its attention is looked into: what is tried is the model, not the way it is looked into.
        self.packs = can_pack(decoder)

    @classmethod
    def load(cls, taught: TaughtInside, *, tokens: int, device: torch.device, notes: bool) -> LiveDecoder:
        """The teacher of a stage on a device; with `notes` its attention is looked into.

        Raises:
            ModelError: it does not load, its head is not one matrix, or its attention cannot be looked into.
        """
        decoder = load_decoder(taught.directory, dtype=TORCH_DTYPES[taught.dtype])
        decoder.model.to(device)
        teacher = cls(decoder, tokens=tokens)
        if notes:
            note_attention(decoder.model)
        return teacher

    @torch.no_grad()
    def read(self, batch: MicroBatch, *, layers: bool) -> DecoderTrace:
        """What is inside it while it reads a micro-batch; without `layers` its last states alone."""
        return read_batch(self._decoder.body, batch, layers=layers)

    def targets(self, hidden: Tensor) -> LiveTargets:
        """What it believes at the places of these last states, made out where it is asked for."""
        return LiveTargets(hidden, Head(self._decoder.head, self._tokens, self._decoder.softcap))
