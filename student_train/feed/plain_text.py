"""Plain text that a student learns beside its rollouts (L_PT in docs/objectives.md).

The driver writes the tokenised text into the directory of the stage. Which pieces of it an optimiser step learns is a
pure function of the text, the seed and the number of the step: the processes agree without communicating, and a resumed
training continues with the same text.

Each step takes about as many tokens as the stage asks for from an endless sequence of passes over the text, every pass
in an order of its own. So each piece is learned once a pass, and no pass ends with a short step.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64
from numpy.typing import NDArray

from cache.arrays import stored_arrays, vector
from cache.batches import permutation, rank_shares
from cache.canonical import canonical
from cache.disk.durable import replace_file
from cache.records import TeacherRecord
from configs.errors import TrainingError
from configs.regular_files import UnreadableFileError
from configs.rollouts import PretrainConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.feed.packing import lay_out
from student_train.feed.steps import StepBatch
from student_train.worker_group import WorkerGroup

PIECES = "plain-text.npz"
"""The file in the directory of a stage."""


@dataclass(frozen=True, slots=True, eq=False)
class PlainPieces:
    """P pieces of text one behind the other, T tokens in all; `ends` is where each ends.

    Every token of a piece but its first is predicted.
    """

    ids: Int32[np.ndarray, " T"]
    ends: Int64[np.ndarray, " P"]

    @classmethod
    def cut(cls, texts: Iterable[Sequence[int]], *, max_tokens: int) -> PlainPieces:
        """Cut tokenised texts so that the model reads at most `max_tokens` tokens of a piece.

        A piece begins with the last token of the one before it: each token of a text but the first is predicted once.
        """
        pieces = [ids[start : start + max_tokens + 1] for ids in texts for start in range(0, len(ids) - 1, max_tokens)]
        ids = np.fromiter(chain.from_iterable(pieces), dtype=np.int32)
        return cls(ids, np.cumsum([len(piece) for piece in pieces], dtype=np.int64))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the pieces."""
        return hashlib.sha256(canonical(self.ends.tobytes(), self.ids.tobytes())).hexdigest()

    @property
    def predicted(self) -> Int64[np.ndarray, " P"]:
        """Tokens of each piece that are predicted, which is as many as the model reads."""
        return np.diff(self.ends, prepend=0) - 1

    def record(self, at: int) -> TeacherRecord:
        """A piece as a sequence whose prompt is its first token."""
        ids = self.ids[self.ends[at - 1] if at else 0 : self.ends[at]]
        return TeacherRecord(key=b"", token_ids=ids, prompt_len=1, finish="given", origin="prefill")

    def save(self, path: Path) -> None:
        """Write the pieces to a file that appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.savez(stream, ids=self.ids, ends=self.ends)
        replace_file(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, *, digest: str | None) -> PlainPieces:
        """Read what `save` wrote.

        Raises:
            TrainingError: it is not there, or holds another text than the one of this digest.
        """
        found, there = None, "is missing"
        try:
            with stored_arrays(path) as stored:
                found = cls(vector(stored, "ids", np.int32), vector(stored, "ends", np.int64))
            there = f"holds text {found.digest[:12]}"
        except FileNotFoundError:
            pass
        except (OSError, UnreadableFileError) as error:
            there = f"is damaged ({error})"
        if found is None or found.digest != digest:
            raise TrainingError(
                f"{path} {there}, but pretrain needs text {digest and digest[:12]}: start the run again"
            )
        return found


@dataclass(frozen=True, slots=True)
class PlainFeed:
    """Adds plain text to the steps of one process of a worker group. `digest` is that of the pieces."""

    pieces: PlainPieces
    digest: str
    config: PretrainConfig
    seed: int
    group: WorkerGroup
    micro_batch_tokens: int
    packs: bool

    def beside(self, batch: StepBatch, *, step: int) -> StepBatch:
        """Optimiser step number `step` with its plain text.

        Losses of the step are divided by its response tokens; the weight of the plain text makes up for that.
        """
        rows = self.rows(step)
        tokens = int(self.pieces.predicted[rows].sum())
        weight = self.config.weight * batch.response_tokens / tokens
        plain = tuple(replace(micro, plain_weight=weight) for micro in self._micro_batches(rows))
        return replace(batch, plain=plain, plain_tokens=tokens)

    def rows(self, step: int) -> NDArray[np.int64]:
        """The pieces of a step: those that begin within its stretch of the endless sequence of passes."""
        once = int(self.pieces.predicted.sum())
        # A text shorter than that is learned whole in each step.
        each = min(self.config.tokens, once)
        first, end = step * each, (step + 1) * each
        found = []
        for epoch in range(first // once, (end - 1) // once + 1):
            name = canonical("stillroom/plain/1", self.digest, self.seed, epoch)
            order = permutation(len(self.pieces.ends), name=name)
            lengths = self.pieces.predicted[order]
            begins = epoch * once + np.cumsum(lengths) - lengths
            found.append(order[slice(*np.searchsorted(begins, (first, end)))])
        return np.concatenate(found)

    def _micro_batches(self, rows: NDArray[np.int64]) -> list[MicroBatch]:
        """This process's share of some pieces, in as many micro-batches as every other process has."""
        predicted = self.pieces.predicted
        shares = rank_shares(rows, world_size=self.group.world_size, lengths=predicted)
        layouts = [lay_out(predicted[share], tokens=self.micro_batch_tokens, packs=self.packs) for share in shares]
        records = [self.pieces.record(int(at)) for at in shares[self.group.rank]]
        made = [collate(records, with_targets=False, layout=layout) for layout in layouts[self.group.rank]]
        # A process that has fewer runs empty ones, so that all take part in the same collectives.
        return made + [collate([], with_targets=False)] * (max(map(len, layouts)) - len(made))
