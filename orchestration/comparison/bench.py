"""What every model of a comparison is asked and held against: the teacher's answers to the test prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import CacheView, GenerateRequest, TeacherRecord
from cache.keys import generation_key
from cache.protocols import Failure, RecordReader
from evaluation.results import Closeness
from evaluation.text import wording
from orchestration.comparison.examination import Candidate
from orchestration.inputs.models import ModelFiles
from orchestration.outputs.artifacts import digest_of

MEASURES = 4
"""Raised by hand when a release measures the same answers differently: agreement, calibration and wording by answer,
and the answers by token."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every candidate is measured on.

    `compared_tokens` of an answer and of the teacher's are held against each other: one may have been allowed to go on
    where the other had to stop. `view` holds the teacher's answers behind the prompts of `requests`; where it was shown
    more than that, it is `asked` otherwise, and `told` are its answers as it gave them. `words` is the digest of the
    rows whose words are held against: of several teachers that are mixed those of who wrote, whatever their weights.
    """

    reader: RecordReader
    view: CacheView
    told: CacheView
    words: str
    requests: tuple[GenerateRequest, ...]
    asked: tuple[GenerateRequest, ...]
    tokenizer_of: ModelFiles
    top_k: int
    compared_tokens: int

    def address(self, candidate: Candidate, *, of: str) -> str:
        """Where `of`, found of a candidate, is kept: the weights that are served, what they are asked, who reads it."""
        identity, asked = candidate.identity.digest(), hashlib.sha256()
        for request in self.requests_of(candidate):
            asked.update(generation_key(identity, request))
        return digest_of(
            of=of,
            model=candidate.digest,
            identity=identity,
            role=candidate.role,
            dtype=candidate.identity.dtype,
            view=self.words,
            asked=asked.hexdigest(),
            max_new_tokens=[request.max_new_tokens for request in self.requests[:1]],
            tokenizer=_tokenizer_sha256(self.files_of(candidate).tokenizer),
            measures=MEASURES,
            compared=self.compared_tokens,
        )

    def files_of(self, candidate: Candidate) -> ModelFiles:
        """Whose tokenizer a candidate reads and writes by."""
        return self.tokenizer_of if candidate.tokens is None else candidate.tokens.files

    def requests_of(self, candidate: Candidate) -> tuple[GenerateRequest, ...]:
        """What a candidate is asked: the same prompts, in its own tokens where it has others; the teacher as ever."""
        if candidate.role == "teacher":
            return self.asked
        tokens = candidate.tokens
        if tokens is None:
            return self.requests
        stop_ids = tokens.files.stop_ids
        return tuple(
            replace(request, prompt_ids=tokens.prompts[request.prompt_ids], stop_ids=stop_ids)
            for request in self.requests
        )

    def texts(
        self,
        records: Sequence[TeacherRecord | Failure],
        *,
        at_most: int | None = None,
        written_by: Candidate | None = None,
    ) -> tuple[str, ...]:
        """Answers, or their first `at_most` tokens, as text; a failed one is empty.

        Without `written_by` they are in the teacher's tokens.
        """
        tokenizer = (self.tokenizer_of if written_by is None else self.files_of(written_by)).tokenizer
        return tuple(
            "" if isinstance(r, Failure) else tokenizer.decode(r.response_ids[:at_most], skip_special_tokens=True)
            for r in records
        )

    def wording(self, answers: Sequence[TeacherRecord | Failure], *, written_by: Candidate) -> Closeness:
        """`answers` against the teacher's, both as far as both were allowed to go.

        Those in other tokens are counted, and cut, in the teacher's: lengths are compared in one unit.
        """
        if written_by.tokens is not None:
            return self._wording_by_text(self.texts(answers, written_by=written_by))
        both = (answers, self.references())
        ours, theirs = (self.texts(each, at_most=self.compared_tokens) for each in both)
        written, referenced = ([min(n, self.compared_tokens) for n in lengths(each)] for each in both)
        return wording(ours, theirs, written=written, referenced=referenced)

    def _wording_by_text(self, texts: Sequence[str]) -> Closeness:
        tokenizer, limit, theirs = self.tokenizer_of.tokenizer, self.compared_tokens, self.references()
        ids = [tokenizer.encode(text, add_special_tokens=False)[:limit] for text in texts]
        # What ends an answer is no text; the teacher's is not counted either.
        ends = self.tokenizer_of.stop_ids
        referenced = [sum(int(each) not in ends for each in record.response_ids[:limit]) for record in theirs]
        return wording(
            tuple(tokenizer.decode(each, skip_special_tokens=True) for each in ids),
            self.texts(theirs, at_most=limit),
            written=list(map(len, ids)),
            referenced=referenced,
        )

    def references(self) -> list[TeacherRecord]:
        """The teacher's records behind the prompts of students, in the order of the view."""
        return self._records(self.view)

    def as_told(self) -> list[TeacherRecord]:
        """The teacher's records behind what it was shown, in the order of the view."""
        return self._records(self.told)

    def _records(self, view: CacheView) -> list[TeacherRecord]:
        return [r for block in self.reader.iter_blocks(view, [np.arange(len(view))]) for r in block]


def lengths(records: Sequence[TeacherRecord | Failure]) -> tuple[int, ...]:
    """Tokens of answers; a failed one has none."""
    return tuple(0 if isinstance(record, Failure) else record.response_len for record in records)


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of what turns ids into text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
