"""What a teacher could not answer, so that no later experiment starts an engine to ask it again.

A file below the run root holds a line for each refused request, under the terms that it was refused on: how long
sequences the engine takes, how many log-probabilities were asked, which vLLM it was. On other terms it is asked again,
and so it is when the file is removed. Losing a line costs an engine start; the truth about answers is the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from cache import GenerateRequest, SignalRequest, TeacherIdentity, signal_key
from cache.answers import Request
from cache.canonical import canonical
from cache.keys import generation_key, sequence_key
from configs.regular_files import UnreadableFileError, open_own, parse_json, read_regular
from configs.runtime import RuntimeConfig
from configs.task_experiment import TaskDistillConfig
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.environment import VLLM, installed_version

REFUSAL = "stillroom/refusal/1"
"""The schema of a line. Earlier releases named none and wrote the same fields."""

REFUSALS_BYTES = 256 * 2**20
"""No file of refusals is longer."""

logger = logging.getLogger(__name__)


class Refusals:
    """The refusals of one teacher on one set of terms."""

    def __init__(self, run_root: Path, *, identity: str, terms: str) -> None:
        self.path = run_root / "refusals" / f"{identity[:16]}.jsonl"
        self._identity, self._terms = identity, terms
        self._reasons: dict[str, str] = {}
        for key, reason in _lines(self.path):
            self._reasons.setdefault(key, reason)

    def reason(self, request: Request | SignalRequest) -> str | None:
        """Why the teacher could not answer `request`; None when it has not refused it."""
        return self._reasons.get(self._key(request)) if self._reasons else None

    def add(self, failed: Mapping[Request, str] | Mapping[SignalRequest, str]) -> None:
        """Keep refusals. Where the disk does not take them a warning is logged, and they are asked again."""
        new = {self._key(request): visible(reason, at_most=REASON_CHARACTERS) for request, reason in failed.items()}
        new = {key: reason for key, reason in new.items() if key not in self._reasons}
        if not new:
            return
        self._reasons |= new
        entries = [
            {"schema": REFUSAL, "key": key, "terms": self._terms, "reason": reason} for key, reason in new.items()
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(open_own(self.path, flags=os.O_APPEND), "wb", buffering=0) as stream:
                # Each in one piece, so that lines of two pipelines do not mix.
                for entry in entries:
                    stream.write(f"{json.dumps(entry)}\n".encode())
                os.fsync(stream.fileno())
        except (OSError, UnreadableFileError) as error:
            logger.warning("%s cannot be written (%s): what was refused is asked again", self.path, error)

    def _key(self, request: Request | SignalRequest) -> str:
        """The name (hex) of a request and the terms that it is asked on."""
        name: bytes
        if isinstance(request, GenerateRequest):
            name, limit = generation_key(self._identity, request), request.max_new_tokens
        elif isinstance(request, SignalRequest):
            name, limit = signal_key(self._identity, request), 0
        else:
            name, limit = sequence_key(self._identity, request.token_ids, request.prompt_len), 0
        kind = type(request).__name__
        return hashlib.sha256(canonical(REFUSAL, kind, name, limit, self._terms)).hexdigest()


def open_refusals(runtime: RuntimeConfig, identity: TeacherIdentity, *, k: int) -> Refusals:
    """What a teacher that is asked for `k` log-probabilities could not answer in experiments of the run root."""
    terms = {
        "max_model_len": runtime.teacher_engine.max_model_len,
        "top_k": k,
        "vllm": installed_version(*VLLM),
    }
    return Refusals(runtime.run_root, identity=identity.digest(), terms=json.dumps(terms))


def open_signal_refusals(config: TaskDistillConfig, identity: TeacherIdentity) -> Refusals:
    """What a teacher with a head could not answer in experiments of the run root: not in this form, or not at all."""
    terms = {"encoding": config.teacher.encoding, "transformers": installed_version("transformers")}
    return Refusals(config.runtime.run_root, identity=identity.digest(), terms=json.dumps(terms))


def _lines(path: Path) -> list[tuple[str, str]]:
    """Keys and reasons in a file; a line that is not a refusal, or of another version, is left out."""
    try:
        content = read_regular(path, at_most=REFUSALS_BYTES)
    except FileNotFoundError:
        return []
    except (OSError, UnreadableFileError) as error:
        logger.warning("%s cannot be read (%s): what it holds is asked again", path, error)
        return []
    found = []
    for line in content.splitlines():
        try:
            entry = parse_json(line, origin=str(path))
        except UnreadableFileError as error:
            logger.warning("a line is left out: %s", error)
            continue
        if not isinstance(entry, dict) or entry.get("schema", REFUSAL) != REFUSAL:
            continue
        if isinstance(entry.get("key"), str) and isinstance(entry.get("reason"), str):
            found.append((entry["key"], visible(entry["reason"], at_most=REASON_CHARACTERS)))
    return found
