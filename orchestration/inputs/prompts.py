"""Prompts as token ids, the sets of them by split, and what was set aside: values, whoever reads them from where."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from cache.canonical import token_bytes, token_ids_of
from cache.rows import MadeRows, SpilledRows
from orchestration.inputs.rows import Row

DIGEST = np.dtype("S16")
"""Of the tokens of a prompt, by which equal ones are found among very many."""

_HEAD = struct.Struct("<qiiii")
"""Of a kept prompt: its row, the tokens of its three kinds, and its teacher; -1 is none."""


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


class PromptTable(MadeRows[Prompt]):
    """Prompts that lie in a file (`cache.rows`), whatever their length: 8 bytes of memory each."""

    __slots__ = ("_kept", "_teachers", "wide")

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._kept, self._teachers = SpilledRows(), list[str]()
        self.wide = False
        """Whether the teacher is shown more of any of them."""
        for prompt in prompts:
            self.append(prompt)

    def append(self, prompt: Prompt) -> None:
        """Add a prompt behind the others.

        Raises:
            ConfigError: there is no room for it.
        """
        self.wide |= prompt.wide_ids is not None
        if prompt.teacher is not None and prompt.teacher not in self._teachers:
            self._teachers.append(prompt.teacher)
        teacher = -1 if prompt.teacher is None else self._teachers.index(prompt.teacher)
        kinds = (prompt.prompt_ids, prompt.gold_ids, prompt.wide_ids)
        counts = (-1 if ids is None else len(ids) for ids in kinds)
        tokens = b"".join(token_bytes(ids) for ids in kinds if ids)
        # A text may hold halves of pairs.
        text = prompt.text.encode("utf-8", "surrogatepass")
        self._kept.append(_HEAD.pack(prompt.row, *counts, teacher) + tokens + text)

    def __len__(self) -> int:
        return len(self._kept)

    def made(self, start: int, stop: int) -> list[Prompt]:
        """See `MadeRows`."""
        return [self._prompt(kept) for kept in self._kept.made(start, stop)]

    def _prompt(self, kept: bytes) -> Prompt:
        row, *counts, teacher = _HEAD.unpack_from(kept)
        at, kinds = _HEAD.size, list[tuple[int, ...] | None]()
        for count in counts:
            end = at + 4 * max(count, 0)
            kinds.append(None if count < 0 else token_ids_of(kept[at:end]))
            at = end
        prompt_ids, gold_ids, wide_ids = kinds
        assert prompt_ids is not None
        text = kept[at:].decode("utf-8", "surrogatepass")
        return Prompt(row, text, prompt_ids, gold_ids, wide_ids, None if teacher < 0 else self._teachers[teacher])


class PromptIds(MadeRows[tuple[int, ...]]):
    """What students read of each prompt."""

    __slots__ = ("_prompts",)

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def made(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """See `MadeRows`."""
        return [prompt.prompt_ids for prompt in self._prompts[start:stop]]


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

    splits: Mapping[str, Sequence[Prompt]]
    rejected: tuple[Rejected, ...]
    plain: Mapping[str, Sequence[Prompt]] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Whether the teacher is shown more of any prompt than students are."""
        return any(map(_any_wide, self.splits.values()))

    def as_students_see(self) -> PromptSet:
        """The same prompts for a teacher that is shown no more than a student."""
        return replace(self, splits={name: _narrow(rows) for name, rows in self.splits.items()})

    def of_teacher(self, name: str) -> PromptSet:
        """Those whose rows are routed to a teacher; what is routed to nobody is of everybody."""
        splits = {
            split: PromptTable(prompt for prompt in rows if prompt.teacher in (None, name))
            for split, rows in self.splits.items()
        }
        return replace(self, splits=splits)

    def write_rejected(self, path: Path) -> None:
        """Write one JSON object a rejected row."""
        path.write_text("".join(json.dumps(asdict(row), ensure_ascii=True) + "\n" for row in self.rejected))


def tokens_digest(ids: tuple[int, ...]) -> bytes:
    """What equal prompts have in common, and no others."""
    return blake2b(token_bytes(ids), digest_size=DIGEST.itemsize).digest()


def _any_wide(prompts: Sequence[Prompt]) -> bool:
    return prompts.wide if isinstance(prompts, PromptTable) else any(each.wide_ids is not None for each in prompts)


def _narrow(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    return PromptTable(replace(each, wide_ids=None) for each in prompts) if _any_wide(prompts) else prompts


def why_empty(split: str, rejected: Sequence[Rejected]) -> str:
    """Why a split has no usable row."""
    reasons = [row.reason for row in rejected if row.split == split]
    return f"all {len(reasons)} were set aside, the first because: {reasons[0]}" if reasons else "the file has no rows"


def preview(row: Row | str) -> str:
    """The beginning of a row that was set aside, for people."""
    return "" if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)[:300]
