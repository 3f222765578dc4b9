"""Prompts as token ids, the sets of them by split, and what was set aside: values, whoever reads them from where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from orchestration.inputs.rows import Row


@dataclass(frozen=True, slots=True)
class Prompt:
    """One usable row. `gold_ids` end with the token that ends a turn; None when the row has no gold answer.

    `wide_ids` are what the teacher sees in place of `prompt_ids` where it is shown more than its students
    (`orchestration.inputs.wide_prompts`). `teacher` names the one that the row is routed to, where rows are.
    """

    row: int
    text: str
    prompt_ids: tuple[int, ...]
    gold_ids: tuple[int, ...] | None = None
    wide_ids: tuple[int, ...] | None = None
    teacher: str | None = None

    @property
    def asked_ids(self) -> tuple[int, ...]:
        """What the teacher is asked."""
        return self.prompt_ids if self.wide_ids is None else self.wide_ids


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was set aside."""

    split: str
    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The usable prompts of all splits, and what was set aside.

    `plain` are the windows of plain text by split, each as a prompt of one token with the rest as its answer.
    """

    splits: Mapping[str, tuple[Prompt, ...]]
    rejected: tuple[Rejected, ...]
    plain: Mapping[str, tuple[Prompt, ...]] = field(default_factory=dict)

    def as_students_see(self) -> PromptSet:
        """The same prompts for a teacher that is shown no more than a student."""
        return replace(self, splits={name: tuple(map(_narrow, rows)) for name, rows in self.splits.items()})

    def of_teacher(self, name: str) -> PromptSet:
        """Those whose rows are routed to a teacher; what is routed to nobody is of everybody."""
        splits = {
            split: tuple(prompt for prompt in rows if prompt.teacher in (None, name))
            for split, rows in self.splits.items()
        }
        return replace(self, splits=splits)

    def write_rejected(self, path: Path) -> None:
        """Write one JSON object a rejected row."""
        path.write_text("".join(json.dumps(asdict(row), ensure_ascii=True) + "\n" for row in self.rejected))


def _narrow(prompt: Prompt) -> Prompt:
    return replace(prompt, wide_ids=None)


def why_empty(split: str, rejected: Sequence[Rejected]) -> str:
    """Why a split has no usable row."""
    reasons = [row.reason for row in rejected if row.split == split]
    return f"all {len(reasons)} were set aside, the first because: {reasons[0]}" if reasons else "the file has no rows"


def preview(row: Row | str) -> str:
    """The beginning of a row that was set aside, for people."""
    return "" if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)[:300]
