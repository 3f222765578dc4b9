"""What a stage takes from inside its teacher, beside what the teacher answers: hidden states and attention scores.

As with objectives (`configs.task_objectives`) a kind of feature is one module of `student_train.features` with one
value named `FEATURE`; whoever has a term of a stage asks its value, and names are never compared. States at single
positions of a text are kept in the cache like logits. States of all tokens and attention scores are too large to keep:
for those the teacher runs beside the student, on the same rows in the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from configs.errors import ConfigError
from configs.models import GrownBlock

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "patient": "student_train.features.patient",
        "cosine": "student_train.features.cosine",
        "hidden_mse": "student_train.features.hidden_mse",
        "attention_mse": "student_train.features.attention_mse",
        "distance_relation": "student_train.features.distance_relation",
        "angle_relation": "student_train.features.angle_relation",
    }
)
"""Every kind of feature by the name that a configuration gives it, and the module that holds its value."""

if TYPE_CHECKING:
    FeatureName = str
else:
    FeatureName = Literal[tuple(FEATURES)]

Place = Literal["first", "last", "mean", "all"]
"""Where in a text a state is taken: its first or last token, the mean over its tokens, or every token."""

RELATED = 8
"""How many texts are related to each other, unless a term says so: 28 distances, 168 angles."""

LayerMap = Literal["skip", "last", "uniform", "top"]

LayerPairs = tuple[tuple[int, int], ...]
"""(layer of the student, layer of the teacher); layer 0 is what the embeddings give, layer i what the i-th gives."""


StateName = tuple[int, Place]
"""A hidden state of a teacher: its layer, and where in the text it is taken."""


@dataclass(frozen=True, slots=True)
class InsideSizes:
    """Of the inside of a model: how wide the states of a layer are, and the heads of one (None without attention)."""

    widths: tuple[int, ...]
    heads: int | None

    @property
    def layers(self) -> int:
        """How many there are above the embeddings."""
        return len(self.widths) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One kind of thing to learn from inside a teacher.

    `learns` says in a few words what. `places` are those where its states may be taken, the usual one first; it reads
    attention scores where there are none. `layers` is how layers are usually matched. With `projects` a learned matrix
    brings the student's width to the teacher's where they differ; without it they have to be equal. One that `relates`
    compares how states of several texts lie to each other, so widths may differ.

    `loss` is a pure function from the matched layers (`student_train.features.matched`) to one number a text, or a
    token where states of all of them are matched.
    """

    name: str
    learns: str
    places: tuple[Place, ...]
    layers: LayerMap
    projects: bool
    relates: bool = False
    loss: Callable[..., Any]


def find_feature(name: str) -> Feature:
    """The value of a kind of feature.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in FEATURES:
        raise ConfigError(f"kind={name} is unknown: choose one of {', '.join(FEATURES)}")
    value = import_module(FEATURES[name]).FEATURE
    assert isinstance(value, Feature) and value.name == name
    return value


class FeatureTerm(GrownBlock):
    """One term of the loss of a stage: what of the teacher's inside, of which layers, and how much it counts.

    `layers` matches them: `skip` (PKD: all of the student's but the last, with every so many-th of the teacher's),
    `last` (as many of the teacher's below its last), `uniform` (TinyBERT: embeddings and all layers, spread evenly),
    `top` (the last with the last), or pairs [student's, teacher's], 0 being the embeddings. `heads: mean` compares
    attention scores averaged over heads, for students with another number of them. `group` is how many texts are
    related to each other at a time.
    """

    later_keys = ("group",)

    kind: FeatureName
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    layers: LayerMap | Annotated[LayerPairs, Field(min_length=1)] | None = None
    place: Place | None = None
    heads: Literal["each", "mean"] = "each"
    group: Annotated[int, Field(ge=3)] | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        feature = self.feature
        if self.place is not None and self.place not in feature.places:
            allowed = " or ".join(feature.places)
            cure = f"choose {allowed}" if allowed else "remove it: attention has no place of its own"
            raise ValueError(f"place={self.place} does not go with kind={self.kind}: {cure}")
        if self.heads != "each" and not self.reads_attention:
            raise ValueError(f"heads={self.heads} is about attention, not kind={self.kind}: remove it")
        if self.group is not None and not feature.relates:
            raise ValueError(f"group={self.group} is about relations of texts, not kind={self.kind}: remove it")
        return self

    @property
    def feature(self) -> Feature:
        """The value behind `kind`."""
        return find_feature(self.kind)

    @property
    def reads_attention(self) -> bool:
        """Whether it compares attention scores, and not states."""
        return not self.feature.places

    @property
    def where(self) -> Place:
        """Where states are taken; `all` for attention."""
        return self.place or (self.feature.places or ("all",))[0]

    @property
    def related(self) -> int:
        """How many texts are looked at together."""
        return (self.group or RELATED) if self.feature.relates else 1

    @property
    def is_kept(self) -> bool:
        """Whether what it needs of the teacher is kept in the cache; else the teacher runs beside the student."""
        return self.where != "all"

    def matched(self, *, student: InsideSizes, teacher: InsideSizes) -> LayerPairs:
        """Which layers are matched.

        Raises:
            ConfigError: a layer that one of them does not have, no layer at all, or sizes that cannot be compared.
        """
        lowest = 1 if self.reads_attention else 0
        chosen = self.layers or self.feature.layers
        if isinstance(chosen, tuple):
            pairs = chosen
        else:
            pairs = spread_layers(chosen, student=student.layers, teacher=teacher.layers)
            pairs = pairs[lowest and chosen == "uniform" :]
        if not pairs:
            raise ConfigError(
                f"layers={chosen} leaves the last layer out and the student has {student.layers} alone: set layers: top"
            )
        for ours, theirs in pairs:
            if not (lowest <= ours <= student.layers and lowest <= theirs <= teacher.layers):
                raise ConfigError(
                    f"layers matches layer {ours} of the student with layer {theirs} of the teacher, which have layers "
                    f"{lowest} to {student.layers} and {lowest} to {teacher.layers}: name layers that there are"
                )
        self._require_sizes(pairs, student=student, teacher=teacher)
        return pairs

    def _require_sizes(self, pairs: LayerPairs, *, student: InsideSizes, teacher: InsideSizes) -> None:
        if self.reads_attention:
            if student.heads is None:
                raise ConfigError(f"{self.kind} compares attention, and the student has none: remove the term")
            if self.heads == "each" and student.heads != teacher.heads:
                raise ConfigError(
                    f"{self.kind} compares heads one by one, and the student has {student.heads} and the teacher "
                    f"{teacher.heads}: set heads: mean, which compares their means, or keep as many"
                )
            return
        for ours, theirs in pairs:
            narrow, wide = student.widths[ours], teacher.widths[theirs]
            if narrow != wide and not (self.feature.projects or self.feature.relates):
                raise ConfigError(
                    f"{self.kind} compares states of one width, and layer {ours} of the student has {narrow} and layer "
                    f"{theirs} of the teacher {wide}: choose hidden_mse, which learns a projection, or keep that width"
                )


def spread_layers(layers: LayerMap, *, student: int, teacher: int) -> LayerPairs:
    """The layers that a map matches, of so many above the embeddings on each side.

    Raises:
        ConfigError: the map needs as many in the teacher as in the student.
    """
    if layers == "top":
        return ((student, teacher),)
    if layers == "uniform":
        # Half up, also where the layers do not divide: g(m) = m N / M.
        return tuple((at, (2 * at * teacher + student) // (2 * student)) for at in range(student + 1))
    if student > teacher:
        raise ConfigError(
            f"layers={layers} matches each layer with one of the teacher's, and the student has {student} and the "
            f"teacher {teacher}: set layers: uniform, or name pairs"
        )
    if layers == "skip":
        return tuple((at, at * teacher // student) for at in range(1, student))
    return tuple((at, teacher - student + at) for at in range(1, student))
