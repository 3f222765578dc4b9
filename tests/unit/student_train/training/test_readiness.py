"""What is refused before the first step: one line, both sides named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from student_builders import VOCAB, record, records, tiny_llama

from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import ConfigError, DataError, DistillError, ModelError
from configs.stages import StageConfig
from student_train.training.readiness import require_head_mass, require_ready

IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)


def stage(**values: object) -> StageConfig:
    return StageConfig.model_validate({"objective": "kd", "steps": 1} | values)


def view_of(cache: TeacherCache, rows: list[TeacherRecord], *, k: int = 8, name: str = "teacher-train") -> CacheView:
    keyed = [replace(r, key=sequence_key(IDENTITY.digest(), r.token_ids, r.prompt_len)) for r in rows]
    cache.put(keyed, vocab=VOCAB)
    return cache.view([row.key for row in keyed], dataset=name, k=k)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("readiness")
    cache = TeacherCache.open(folder / "cache", IDENTITY)
    return {
        "cache": cache,
        "model": tiny_llama(folder / "model"),
        "scored": view_of(cache, records(6, seed=1)),
        "text": view_of(cache, [record(77, text_only=True)], k=0),
        "long": view_of(cache, [record(78, prompt=60, response=80)]),
        "empty": view_of(cache, [record(79, response=0, text_only=True)], k=0),
    }


def check(place: dict[str, Any], wanted: StageConfig, *, view: str = "scored", **changed: Any) -> None:
    known = {"dev": place["scored"], "model_dir": place["model"], "vocab": VOCAB, "micro_batch_tokens": 512}
    require_ready(wanted, view=place[view], **known | changed)


def test_what_goes_together_passes(place: dict[str, Any]) -> None:
    check(place, stage())
    check(place, stage(objective="seqkd"), view="text", dev=place["text"])
    check(place, stage(temperature=2.0, tail="renormalize"))
    check(place, stage(), dev=None)


@pytest.mark.parametrize(
    ("wanted", "changed", "kind", "said"),
    [
        ({}, {"view": "text"}, DataError, "objective=kd needs .* teacher-train holds text alone: .* objective: seqkd$"),
        ({"source": "gold"}, {"view": "text"}, DataError, "needs the teacher's log-probabilities .* objective: sft$"),
        ({"objective": "seqkd"}, {"view": "empty"}, DataError, "teacher-train holds no response token for objective"),
        (
            {"temperature": 2.0},
            {},
            ConfigError,
            r"temperature=2 with tail=bucket .* of 97, but teacher-train keeps k=8",
        ),
        ({}, {"micro_batch_tokens": 4}, ConfigError, r"the longest sequence has \d+ tokens but .* is 4:"),
        ({}, {"vocab": 105}, ModelError, "has 104 tokens but the teacher's tokenizer has 105"),
        ({}, {"view": "long"}, ModelError, "has 128 positions but the longest sequence has 140 tokens"),
        ({"select": "dev_kl"}, {"dev": None}, ConfigError, "select=dev_kl .* there is no dev view"),
    ],
)
def test_what_cannot_work_is_one_line_with_both_sides(
    place: dict[str, Any], wanted: dict[str, object], changed: dict[str, Any], kind: type[DistillError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        check(place, stage(**wanted), **changed)
    assert "\n" not in str(caught.value)


def test_selection_by_kl_needs_log_probabilities_of_the_dev_split(place: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="teacher-train holds text alone: use dev_loss"):
        check(place, stage(objective="seqkd", select="dev_kl"), dev=place["text"])


def test_adaptive_kl_needs_its_head_among_the_kept_tokens(place: dict[str, Any]) -> None:
    cache, view = place["cache"], place["scored"]
    blocks = next(cache.iter_batches(view, [np.arange(len(view))]))
    least = float(1 - np.exp(blocks.tail_logmass.max()))
    require_head_mass(stage(divergence={"kind": "adaptive_kl", "mu": least - 0.01}), cache=cache, view=view)
    with pytest.raises(ConfigError, match=f"a position of teacher-train has {least:.3f} in its k=8"):
        require_head_mass(stage(divergence={"kind": "adaptive_kl", "mu": least + 0.01}), cache=cache, view=view)
    kept = stage(divergence={"kind": "adaptive_kl", "mu": 0.999}, tail="renormalize")
    require_head_mass(kept, cache=cache, view=view)


def test_the_model_is_read_from_its_config_alone(place: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3", "text_config": {"vocab_size": 90}}')
    with pytest.raises(ModelError, match="has 90 tokens"):
        check(place, stage(), model_dir=tmp_path)
