"""What stands around an example where it comes from, for a reader that sees more than the example itself.

A wide example is the example and its surroundings; whoever asks for its own texts gets those alone, so a reader that
knows nothing of surroundings reads no more than before.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from evaluation.tasks.examples import Example

Piece = tuple[str, ...]
"""A text that stands around an example: its words in tagging, one text in tasks of other kinds."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands `before` and `after` an example, in the order of reading, and a `passage` that belongs to it."""

    before: tuple[Piece, ...] = ()
    after: tuple[Piece, ...] = ()
    passage: Piece = ()


@dataclass(frozen=True, slots=True)
class WideExample(Example):
    """An example with what stands around it; `replace` keeps that."""

    around: Surroundings

    @classmethod
    def of(cls, example: Example, around: Surroundings) -> WideExample:
        """An example, however it was known until now, with these surroundings."""
        return cls(**{each.name: getattr(example, each.name) for each in fields(Example)}, around=around)


def around_of(example: Example) -> Surroundings:
    """What stands around an example; nothing around one that is not wide."""
    return example.around if isinstance(example, WideExample) else Surroundings()
