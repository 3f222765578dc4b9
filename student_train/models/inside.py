"""The terms of a stage about what is inside its teacher: which layers are matched, and what brings them to one width.

Hidden states at single positions come with the batch, out of the cache. For all others the teacher reads the batch too,
frozen, in its own dtype, and as one whole in every process: it is no part of the module that DeepSpeed wraps, so its
weights are neither cut into parts nor saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.errors import ConfigError, ModelError
from configs.task_features import FeatureTerm, InsideSizes, LayerPairs
from student_train.features.matched import MatchedScores, MatchedStates
from student_train.feed.task_batch import TaskBatch
from student_train.job import TaughtInside
from student_train.models.decoder import TORCH_DTYPES
from student_train.models.task_model import load_task_student, stored_task
from student_train.models.task_student import TaskStudent
from student_train.models.task_transformer import TransformerStudent
from student_train.models.tracing import Trace, note_attention


class LiveTeacher:
    """A teacher that reads the batches of its student. It has no weights that learn, and no state that is saved."""

    def __init__(self, teacher: TaskStudent) -> None:
        self._teacher = teacher.eval().requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, model_dir: Path, *, dtype: str, student: TaskStudent, notes: bool) -> LiveTeacher:
        """The teacher of a directory; with `notes` its attention is looked into.

        Raises:
            ModelError: it does not load, or its attention cannot be looked into.
        """
        # Nothing is read from its head: it may have labels of its own, or be drawn at random where there is none.
        try:
            kind, labels = stored_task(model_dir)
        except ModelError:
            kind, labels = student.kind, student.labels
        teacher = load_task_student(model_dir, kind=kind, labels=labels, dtype=TORCH_DTYPES[dtype], head_seed=0)
        if notes:
            _note(teacher)
        return cls(teacher)

    @torch.no_grad()
    def read(self, batch: TaskBatch) -> Trace:
        """What is inside it while it reads a batch."""
        return self._teacher.to(batch.input_ids.device).traced(batch)


@dataclass(frozen=True, slots=True)
class _Matching:
    """A term, the layers that it matches, and what the parameter of each pair is called (None: of one width)."""

    term: FeatureTerm
    pairs: LayerPairs
    projections: tuple[str | None, ...]


class Inside(nn.Module):
    """The terms of one stage. Its parameters are projections [h, H]: learned beside the student, and not exported."""

    def __init__(self, terms: Sequence[FeatureTerm], *, student: TaskStudent, taught: TaughtInside, seed: int) -> None:
        """Draw the projections with `seed`.

        Raises:
            ConfigError: layers, widths or heads that cannot be matched.
            ModelError: the teacher does not load, or attention cannot be looked into.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        notes = any(term.reads_attention for term in terms)
        if notes:
            _note(student)
        self._matchings = [self._match(term, student.sizes, taught.sizes, generator) for term in terms]
        self._live: LiveTeacher | None = None
        if any(not term.is_kept for term in terms):
            self._live = LiveTeacher.load(taught.directory, dtype=taught.dtype, student=student, notes=notes)

    def forward(self, trace: Trace, batch: TaskBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each kind's own sum; scaled so that decisions divide both into means.

        An empty batch gives zero, and zero gradients everywhere.
        """
        taught = None if self._live is None else self._live.read(batch)
        total, sums = trace.logits.new_zeros(()), dict[str, Tensor]()
        for each in self._matchings:
            term = each.term
            layers = self._scores(each, trace, taught, batch) if term.reads_attention else None
            values = term.feature.loss(layers or self._states(each, trace, taught, batch))
            per_token = term.where == "all" and not term.reads_attention
            found = values.sum() * (batch.per_token if per_token else batch.per_text)
            total = total + term.weight * found
            sums[term.kind] = sums.get(term.kind, 0.0) + found.detach()
        return total, sums

    def _match(
        self, term: FeatureTerm, student: InsideSizes, teacher: InsideSizes, generator: torch.Generator
    ) -> _Matching:
        pairs = term.matched(student=student, teacher=teacher)
        names: list[str | None] = []
        for ours, theirs in pairs:
            narrow, wide = student.widths[ours], teacher.widths[theirs]
            if term.reads_attention or narrow == wide:
                names.append(None)
                continue
            name, bound = f"projection_{sum(1 for _ in self.parameters())}", narrow**-0.5
            # As torch draws a linear layer of so many inputs.
            drawn = torch.empty(narrow, wide).uniform_(-bound, bound, generator=generator)
            self.register_parameter(name, nn.Parameter(drawn))
            names.append(name)
        return _Matching(term, pairs, tuple(names))

    def _states(self, each: _Matching, trace: Trace, taught: Trace | None, batch: TaskBatch) -> list[MatchedStates]:
        where, found = each.term.where, []
        for (ours, theirs), name in zip(each.pairs, each.projections, strict=True):
            if where == "all":
                assert taught is not None
                teacher = taught.state(theirs, where, batch)
            else:
                teacher = _kept(batch, theirs, where)
            projection = None if name is None else getattr(self, name).float()
            found.append(MatchedStates(trace.state(ours, where, batch), teacher, projection))
        return found

    def _scores(self, each: _Matching, trace: Trace, taught: Trace | None, batch: TaskBatch) -> list[MatchedScores]:
        assert taught is not None
        found = []
        for ours, theirs in each.pairs:
            both = [side.scores[layer - 1].float() for side, layer in ((trace, ours), (taught, theirs))]
            if each.term.heads == "mean":
                both = [scores.mean(dim=1, keepdim=True) for scores in both]
            found.append(MatchedScores(both[0], both[1], batch.tokens))
        return found


def _note(model: TaskStudent) -> None:
    if not isinstance(model, TransformerStudent):
        raise ConfigError("attention_mse needs attention on both sides, and one is a network without: remove the term")
    note_attention(model.model)


def _kept(batch: TaskBatch, layer: int, place: str) -> Float[Tensor, "E H"]:
    assert batch.states is not None
    at = [index for index, name in enumerate(batch.state_names) if name == (layer, place)]
    return batch.states[:, at[0]]
