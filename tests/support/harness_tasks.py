"""Tasks for lm-evaluation-harness on disk, without network, and a pool that finds the right choices likely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from task_files import SpeakingPool

from cache import GenerateRequest, ScoreRequest, TeacherRecord
from cache.protocols import Failure

ROWS = [
    {"q": "The sun is", "choices": ["hot", "cold"], "gold": 0},
    {"q": "Snow is", "choices": ["black", "white"], "gold": 1},
    {"q": "Grass is", "choices": ["green", "red"], "gold": 0},
]

KINDS: dict[str, dict[str, Any]] = {
    "facts": {
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "choices", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}], "num_fewshot": 1, "fewshot_split": "test",
    },
    "written": {
        "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 8}, "metric_list": [{"metric": "exact_match"}],
    },
    "text": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "broken": {
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "absent", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    },
}  # fmt: skip


def write_harness_tasks(folder: Path, *names: str) -> Path:
    """The directory with the YAML files of these tasks and their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    shared = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test"}
    for name in names:
        settings = {"task": name, **shared, **KINDS[name], "metadata": {"version": 1.0}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return folder


class KnowingPool(SpeakingPool):
    """Says "hot." to everything, and finds each token of the right choices twice as likely as that of others."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, seed: "hot. And more")

    def _outcome(self, request: GenerateRequest | ScoreRequest) -> TeacherRecord | Failure:
        if isinstance(request, GenerateRequest):
            return super()._outcome(request)
        right = {row["choices"][row["gold"]] for row in ROWS}
        said = self._tokenizer.decode(request.token_ids[request.prompt_len :]).strip()
        targets = np.full(len(request.token_ids) - request.prompt_len, -0.5 if said in right else -1.0, np.float32)
        return TeacherRecord(
            b"", np.array(request.token_ids, np.int32), request.prompt_len, "given", "prefill",
            target_logprobs=targets, topk_logprobs=np.full((len(targets), 1), -0.5, np.float32),
        )  # fmt: skip
