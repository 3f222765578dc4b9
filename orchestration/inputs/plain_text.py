"""From a file of plain text to the pieces that a stage learns beside its rollouts (`student_train.feed.plain_text`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs import DataError
from configs.stages import StageConfig
from configs.visible_text import visible
from orchestration.inputs.conversations import unusable
from orchestration.inputs.prompt_reader import control_tokens
from orchestration.inputs.rows import Row, file_rows
from orchestration.outputs.artifacts import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from student_train.feed.plain_text import PlainPieces

FIELD = "text"


@dataclass(frozen=True, slots=True, eq=False)
class PlainTexts:
    """The texts of one stage, and how many tokens of one a student may read at once."""

    texts: tuple[str, ...]
    max_tokens: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is read and how it is cut, wherever it lies."""
        texts = hashlib.sha256(b"".join(hashlib.sha256(text.encode()).digest() for text in self.texts))
        return digest_of(texts=texts.hexdigest(), fed=self.max_tokens)

    def pieces(self, tokenizer: PreTrainedTokenizerBase) -> PlainPieces:
        """Tokenise and cut the texts. Each begins as the tokenizer has it and ends with its end token, if it has one.

        Raises:
            DataError: no text has two tokens, so there is nothing to predict.
        """
        # It loads torch, which an experiment without plain text need not wait for.
        from student_train.feed.plain_text import PlainPieces

        end = tokenizer.eos_token_id
        rows: list[list[int]] = tokenizer(list(self.texts), verbose=False)["input_ids"]
        ended = (row if end is None or row[-1:] == [end] else [*row, end] for row in rows)
        pieces = PlainPieces.cut(ended, max_tokens=self.max_tokens)
        if not len(pieces.ends):
            raise DataError(
                f"pretrain: none of the {len(self.texts)} texts has two tokens, so nothing follows from anything: "
                "name another file in pretrain.path"
            )
        return pieces


def read_plain_texts(
    stage: StageConfig, *, key: str, tokenizer: PreTrainedTokenizerBase, positions: int, micro_batch_tokens: int
) -> PlainTexts | None:
    """The plain text of a stage whose student has this many positions; None for a stage without any.

    `key` is that of the block `pretrain`.

    Raises:
        DataError: the file holds no row, or rows whose text cannot be used.
    """
    if stage.pretrain is None:
        return None
    texts = _texts(stage.pretrain.path, key=key, control=control_tokens(tokenizer))
    return PlainTexts(texts, min(positions, micro_batch_tokens, stage.pretrain.tokens))


def _texts(path: Path, *, key: str, control: tuple[str, ...]) -> tuple[str, ...]:
    texts: list[str] = []
    refused: list[str] = []
    for number, row in enumerate(file_rows(path, key=f"{key}.path")):
        reason = row if isinstance(row, str) else why_refused(row, field=FIELD, control=control)
        if isinstance(row, str) or reason is not None:
            refused.append(f"row {number}: {reason}")
        else:
            texts.append(row[FIELD])
    if refused:
        raise DataError(
            f"{key}.path={path} {visible(refused[0], at_most=300)}; {len(refused)} of {len(texts) + len(refused)} rows "
            "cannot be used: correct or remove them"
        )
    if not texts:
        raise DataError(f'{key}.path={path} holds no row: put lines like {{"{FIELD}": "..."}} in it')
    return tuple(texts)


def why_refused(row: Row, *, field: str, control: tuple[str, ...]) -> str | None:
    """Why the text of a row cannot be used; None when it can. `control` are the texts of special tokens."""
    if field not in row:
        return f"no field {field!r}, only {', '.join(map(repr, row)) or 'none'}"
    return unusable(row[field], control=control)
