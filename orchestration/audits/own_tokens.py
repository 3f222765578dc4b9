"""Rows of a run in the tokens of a student that has another tokenizer than its teacher: the same texts, byte for byte.

Prompts are rendered from the data again, by the student's own chat template, as they were for its training
(`orchestration.pipeline.retokenising`); answers go by their text. What does not come back from its tokenizer is left
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cache import TeacherRecord
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.inputs.models import ModelFiles, open_model
from orchestration.inputs.prompt_splits import render_prompts
from orchestration.inputs.spelling import Spelling, spelling_of


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """Both tokenizers, how tokens are spelt (`spelling` is the teacher's), and a student's prompts by its teacher's."""

    student: ModelFiles
    teacher: ModelFiles
    spelling: Spelling
    own_spelling: Spelling
    prompts: Mapping[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, student: AuditedStudent, run: FinishedRun) -> OwnTokens:
        """Those of a student of a run.

        Raises:
            DataError: the prompts cannot be rendered any more.
            ModelError: one of the tokenizers does not load, or spells in a way that is not known.
        """
        own = open_model(student.model.directory, label=student.name)
        teacher = open_model(run.teacher.directory, label=run.teacher.name)
        ours, theirs = (
            render_prompts(run.config.data, tokenizer=files.tokenizer, whose=files.label) for files in (own, teacher)
        )
        prompts = {
            told: read
            for split, rows in theirs.items()
            for row, told in rows.items()
            if not isinstance(told, str) and not isinstance(read := ours[split].get(row, ""), str)
        }
        return cls(own, teacher, spelling_of(teacher), spelling_of(own), prompts)

    def read(self, record: TeacherRecord) -> TeacherRecord | None:
        """A row in the student's tokens, without any beliefs; None where it does not come back from them."""
        prompt = self.prompts.get(tuple(record.token_ids[: record.prompt_len].tolist()))
        ids = record.response_ids.tolist()
        ended = bool(ids) and ids[-1] in self.teacher.stop_ids
        text = self.spelling.text(ids[:-1] if ended else ids)
        if prompt is None or text is None:
            return None
        answer = self.student.tokenizer.encode(text, add_special_tokens=False)
        if self.own_spelling.ends(answer, text=text) is None:
            return None
        end = self.student.tokenizer.eos_token_id
        own = [*prompt, *answer, *([end] if ended and end is not None else [])]
        if len(own) == len(prompt) or len(own) > self.student.shape.max_positions:
            return None
        return TeacherRecord(
            record.key, np.array(own, dtype=np.int32), len(prompt), finish=record.finish, origin=record.origin
        )
