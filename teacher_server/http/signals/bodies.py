"""The JSON of `POST /v1/signals`, as strict as all of the door's (`teacher_server.http.bodies`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cache.signals import LARGEST_LAYER, Position, Signal, SignalName
from teacher_server.http.bodies import (
    BY_IDS,
    BY_TEXT,
    BY_WORDS,
    Body,
    Count,
    FailedRow,
    TeacherBody,
    TeacherName,
    Text,
    TokenIds,
)

MOST_SIGNALS = 256


class AskedSignal(Body):
    """What is asked of every text (`cache.signals.Signal`): a `state` has a layer and a position, nothing else has."""

    name: SignalName
    layer: Annotated[int, Field(ge=0, le=LARGEST_LAYER)] | None = None
    position: Position | None = None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        self.signal()
        return self

    def signal(self) -> Signal:
        """As the cache names it."""
        return Signal(self.name, self.layer, self.position)


class AboutIds(Body):
    """A text as the token ids that the teacher sees; the second text of a pair begins at `split`."""

    token_ids: Annotated[TokenIds, Field(min_length=1)]
    split: Count | None = None


class AboutText(Body):
    """A text, or a pair of texts: of a question and its passage the passage is the `pair`."""

    text: Text
    pair: Text | None = None


class AboutWords(Body):
    """A text as its words, as a task of tagging has it."""

    words: Annotated[list[Text], Field(min_length=1)]


def _way(given: Any) -> str | None:
    """Which way a text is said, by the first name that tells."""
    for name, way in (("token_ids", BY_IDS), ("words", BY_WORDS), ("text", BY_TEXT)):
        if isinstance(given, Mapping) and name in given:
            return way
    return None


AboutRow = Annotated[
    Annotated[AboutIds, Tag(BY_IDS)] | Annotated[AboutText, Tag(BY_TEXT)] | Annotated[AboutWords, Tag(BY_WORDS)],
    Discriminator(_way, custom_error_type="which_text", custom_error_message="give text, or words, or token_ids"),
]


class SignalsBody(Body):
    """`POST /v1/signals`: every signal of every text."""

    teacher: TeacherName | None = None
    signals: Annotated[list[AskedSignal], Field(min_length=1, max_length=MOST_SIGNALS)]
    requests: Annotated[list[AboutRow], Field(min_length=1)]


Place = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)] | None
"""Where a token stands: the number of its text (or word), and its characters in that, the end excluded; null of a
special token."""


class SignalValues(Body):
    """A signal: P rows of W values, one row a token or one in all. `cached` tells that nobody was asked for it."""

    values: list[list[float]]
    cached: bool


class SignalRow(Body):
    """The signals of one text in the order in which they were asked for, and its tokens as the teacher sees them.

    `places` are those of its tokens, where it was said as text or words.
    """

    token_ids: TokenIds
    split: Count
    places: list[Place] | None = None
    signals: list[SignalValues | FailedRow]


class SignalsAnswer(Body):
    """The texts of an answer in the order of the requests, and the digest of the teacher that read them."""

    teacher: str
    identity: str
    signals: list[AskedSignal]
    rows: list[SignalRow]


class SignalTeacherBody(Body):
    """One teacher that gives signals: who it is (`TeacherBody`), and what it can be asked.

    `gives` is what its head says, null without one, and `labels` are those of its W values in their order. Hidden
    states are those of layers 0 (the embeddings) to `layers`, of width `hidden`; one that shows none has 0 of both. It
    reads up to `max_tokens`.
    """

    name: str
    identity: str
    fields: dict[str, str | int | None]
    verifiable: bool
    label: str
    licence: str | None
    max_tokens: Count
    vocab: Count
    gives: SignalName | None
    labels: list[str]
    layers: Annotated[int, Field(ge=0)]
    hidden: Annotated[int, Field(ge=0)]


class TeachersBody(Body):
    """`GET /v1/teachers`: those that write and score sequences, and those that give signals."""

    teachers: list[TeacherBody]
    signals: list[SignalTeacherBody]
