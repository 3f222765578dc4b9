"""What a teacher is shown and its students never see: a wider context (Futami et al. 2020, arXiv 2008.03822).

A teacher that knows more says more: of a passage that holds the answer, of what stands before and after, of worked
examples, of instructions. What it says is kept under all that it saw; its students learn it from their own shorter
text, position by position.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from configs.models import Block, NonNegative, Positive


class Neighbours(Block):
    """The rows of the same file that stand `before` and `after` a row, nearest ones last and first.

    With `within` only rows that have the same value in that field count: of one document, of one conversation.
    """

    before: NonNegative = 0
    after: NonNegative = 0
    within: str | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.before and not self.after:
            raise ValueError("before=0 and after=0 show nothing: raise one, or remove neighbours")
        return self


class WorkedExamples(Block):
    """`count` rows of the train split with their gold answers, drawn with `seed`; a row never shows itself."""

    count: Positive
    seed: NonNegative = 0


class TeacherContext(Block):
    """What the teacher sees beside a row.

    `system_prompt` is an instruction in front of everything, `examples` are worked ones, `passage_field` names a field
    of the row with a text to read, and `neighbours` are rows around it.
    """

    system_prompt: str | None = None
    examples: WorkedExamples | None = None
    passage_field: str | None = None
    neighbours: Neighbours | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, key) is None for key in type(self).model_fields):
            raise ValueError(
                "shows nothing more: name system_prompt, examples, passage_field or neighbours, or remove it"
            )
        return self
