"""The terms of a stage about what is inside its teacher: which layers are matched, and what brings them to one width.

What a student or a teacher shows of itself while it reads a batch is a trace (`student_train.models.tracing`): tasks
and language models have traces of their own, and their terms are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from configs.task_features import FeatureTerm, InsideSizes, LayerPairs, Place
from student_train.features.matched import MatchedScores, MatchedStates
from student_train.losses.metrics import METRICS


@runtime_checkable
class ReadBatch(Protocol):
    """What terms need to know of a batch.

    `tokens` are the places that hold tokens of texts. A sum over texts times `per_text` is, divided by what the step
    divides its losses by, the mean over the texts of the step; `per_token` does the same for tokens.
    """

    @property
    def per_text(self) -> float:
        """Of a sum over texts."""
        ...

    @property
    def per_token(self) -> float:
        """Of a sum over tokens."""
        ...

    @property
    def tokens(self) -> Bool[Tensor, "B T"]:
        """Places of tokens."""
        ...

    @property
    def groups(self) -> Int64[Tensor, " E"] | None:
        """The group of each text; None where texts are not related to each other."""
        ...


@runtime_checkable
class Traced(Protocol):
    """What is inside a model while it reads a batch, which is one of its own kind."""

    def state(self, layer: int, place: Place, batch: Any) -> Float[Tensor, "U H"]:
        """States in float32, of every text at one place or of every token."""
        ...

    @property
    def scores(self) -> Sequence[Tensor]:
        """Attention scores of each layer, the lowest first."""
        ...


@dataclass(frozen=True, slots=True)
class _Matching:
    """A term, the layers that it matches, and what the parameter of each pair is called (None: of one width)."""

    term: FeatureTerm
    pairs: LayerPairs
    projections: tuple[str | None, ...]


class Inside(nn.Module):
    """The terms of one stage. Its parameters are projections [h, H]: learned beside the student, and not exported."""

    def __init__(self, terms: Sequence[FeatureTerm], *, student: InsideSizes, teacher: InsideSizes, seed: int) -> None:
        """Draw the projections with `seed`.

        Raises:
            ConfigError: layers, widths or heads that cannot be matched.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self._matchings = [self._match(term, student, teacher, generator) for term in terms]

    def forward(self, student: Traced, teacher: Traced, batch: ReadBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each kind's own sum; scaled so that the step divides both into means.

        An empty batch gives zero, and zero gradients everywhere.
        """
        parts: list[Tensor] = []
        sums: dict[str, Tensor] = {}
        for each in self._matchings:
            term = each.term
            layers = _scores(each, student, teacher, batch) if term.reads_attention else None
            values = term.feature.loss(layers or self._states(each, student, teacher, batch))
            per_token = term.where == "all" and not term.reads_attention
            found = values.sum() * (batch.per_token if per_token else batch.per_text)
            parts.append(term.weight * found)
            sums[term.kind] = sums.get(term.kind, 0.0) + found.detach()
        return torch.stack(parts).sum(), sums

    def _match(
        self, term: FeatureTerm, student: InsideSizes, teacher: InsideSizes, generator: torch.Generator
    ) -> _Matching:
        pairs = term.matched(student=student, teacher=teacher)
        names: list[str | None] = []
        for ours, theirs in pairs:
            narrow, wide = student.widths[ours], teacher.widths[theirs]
            if term.reads_attention or term.feature.relates or narrow == wide:
                names.append(None)
                continue
            name, bound = f"projection_{sum(1 for _ in self.parameters())}", narrow**-0.5
            # As torch draws a linear layer of so many inputs.
            drawn = torch.empty(narrow, wide).uniform_(-bound, bound, generator=generator)
            self.register_parameter(name, nn.Parameter(drawn))
            names.append(name)
        return _Matching(term, pairs, tuple(names))

    def _states(self, each: _Matching, student: Traced, teacher: Traced, batch: ReadBatch) -> list[MatchedStates]:
        where, found = each.term.where, []
        for (ours, theirs), name in zip(each.pairs, each.projections, strict=True):
            projection = None if name is None else getattr(self, name).float()
            both = student.state(ours, where, batch), teacher.state(theirs, where, batch)
            found.append(MatchedStates(*both, projection, batch.groups if each.term.feature.relates else None))
        return found


def with_terms(metrics: Float[Tensor, " M"], *, loss: Tensor, terms: Mapping[str, Tensor]) -> Float[Tensor, " M"]:
    """Metric sums with those of the terms about a teacher's inside, and with their part of the trained loss."""
    found = metrics.clone()
    for name, value in {"loss": loss.detach(), **terms}.items():
        found[METRICS.index(name)] += value.double()
    return found


def _scores(each: _Matching, student: Traced, teacher: Traced, batch: ReadBatch) -> list[MatchedScores]:
    found = []
    for ours, theirs in each.pairs:
        both = [side.scores[layer - 1].float() for side, layer in ((student, ours), (teacher, theirs))]
        if each.term.heads == "mean":
            both = [scores.mean(dim=1, keepdim=True) for scores in both]
        found.append(MatchedScores(both[0], both[1], batch.tokens))
    return found
