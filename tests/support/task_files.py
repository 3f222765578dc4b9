"""Tasks on disk, and a pool of engines that answers them as a function says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedTokenizerBase

from cache import GenerateRequest, ScoreRequest, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from configs.models import ModelShape, ModelSource
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.examination import Candidate
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.random_models import byte_tokenizer

SHAPE = ModelShape(layers=1, hidden=8, heads=1, kv_heads=1, mlp=8, vocab=272, tied_embeddings=True, max_positions=256)
IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")

MOODS: Mapping[str, Any] = {
    "name": "moods",
    "kind": "classification",
    "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
    "fields": {"label": "mood"},
    "labels": {"good": "sun", "bad": "rain"},
    "template": "{{ text }} is",
    "answer": "{{ mood }}",
    "chat": False,
}
"""A task of two classes."""

ROWS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "train": [{"text": "tea", "mood": "good"}, {"text": "mud", "mood": "bad"}, {"text": "cake", "mood": "good"}],
    "dev": [{"text": "jam", "mood": "good"}],
    "test": [{"text": "pie", "mood": "good"}, {"text": "fog", "mood": "bad"}, {"text": "fig", "mood": "good"}],
}


def write_task(
    folder: Path,
    *,
    rows: Mapping[str, Sequence[Mapping[str, Any] | str]] = ROWS,
    called: str = "moods",
    **settings: Any,
) -> Path:
    """The file of a task, with its rows beside it; a row that is text is written as it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, each in rows.items():
        lines = [row if isinstance(row, str) else json.dumps(row) for row in each]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    wanted = {key: value for key, value in {**MOODS, "name": called, **settings}.items() if value is not None}
    (folder / "task.yaml").write_text(yaml.safe_dump(wanted, sort_keys=False))
    return folder / "task.yaml"


def tiny_model(root: Path, *, seed: int = 0) -> ModelFiles:
    """A random decoder whose tokens are bytes."""
    return materialise(ModelSource(random=SHAPE, seed=seed), models_root=root)


def candidate_of(files: ModelFiles, *, name: str = "student", digest: str = "d" * 64) -> Candidate:
    return Candidate(name, "student", digest, files.directory, IDENTITY, files.shape.parameters)


class SpeakingPool:
    """Writes what `says` of the text of a prompt, and finds the labels likely as `likes` says; both may refuse.

    `likes` gives the log-probability of each token of a continuation.
    """

    def __init__(
        self,
        says: Callable[[str, int], str | Failure] = lambda prompt, seed: "",
        *,
        likes: Callable[[str, str], Sequence[float] | Failure] = lambda prompt, more: [-1.0] * len(more),
    ) -> None:
        self._says, self._likes = says, likes
        self._tokenizer: PreTrainedTokenizerBase = byte_tokenizer()
        self.asked: list[Any] = []

    def answer(self, requests: Sequence[GenerateRequest | ScoreRequest], *, k: int) -> TimedAnswers:
        self.asked += requests
        return TimedAnswers(tuple(map(self._outcome, requests)), 1.0, "a fake")

    def _outcome(self, request: GenerateRequest | ScoreRequest) -> TeacherRecord | Failure:
        if isinstance(request, GenerateRequest):
            said = self._says(self._tokenizer.decode(request.prompt_ids), request.sampling_seed)
            if isinstance(said, Failure):
                return said
            ids = [*request.prompt_ids, *self._tokenizer.encode(said)][
                : len(request.prompt_ids) + request.max_new_tokens
            ]
            return TeacherRecord(b"", np.array(ids, np.int32), len(request.prompt_ids), "stop", "decode")
        prompt, more = request.token_ids[: request.prompt_len], request.token_ids[request.prompt_len :]
        liked = self._likes(self._tokenizer.decode(prompt), self._tokenizer.decode(more))
        if isinstance(liked, Failure):
            return liked
        found = np.array(liked, np.float32)
        ids = np.array(request.token_ids, np.int32)
        return TeacherRecord(b"", ids, request.prompt_len, "given", "prefill", target_logprobs=found)
