"""What a teacher could not answer is not asked again of its version of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_engines import IDENTITY

from cache import GenerateRequest, Missing, ScoreRequest
from cache.answers import Request
from configs.runtime import RuntimeConfig
from orchestration.fill import refusals
from orchestration.fill.refusals import engine_version, open_refusals
from orchestration.plan.requests import SequenceSet, plan_fill


def samples(*prompt: int, count: int = 1, limit: int = 5) -> tuple[GenerateRequest, ...]:
    return tuple(
        GenerateRequest(prompt, stop_ids=(0,), max_new_tokens=limit, temperature=1.0, replicate=each)
        for each in range(count)
    )


def a_set(split: str, *requests: Request, source: str = "teacher") -> SequenceSet:
    return SequenceSet(source, split, requests, k=4)  # type: ignore[arg-type]


class Empty:
    """A cache that holds nothing of any set."""

    def missing(self, requests: tuple[Request, ...], *, k: int) -> Missing:
        written = [at for at, request in enumerate(requests) if isinstance(request, GenerateRequest)]
        scored = [(at, request) for at, request in enumerate(requests) if isinstance(request, ScoreRequest)]
        return Missing(generate=tuple(written), score=tuple(scored))


def test_what_was_refused_is_no_miss_of_a_later_plan_and_starts_no_engine(tmp_path: Path) -> None:
    gold: Request = ScoreRequest((1, 2, 9), prompt_len=2)
    sets = [a_set("train", *samples(1, 2, count=2)), a_set("train", gold, source="gold")]
    runtime = RuntimeConfig(cache_root=tmp_path)
    first = open_refusals(runtime, IDENTITY, k=4)
    assert plan_fill(sets, cache=Empty(), refused=first).misses == 3
    first.failures.add({samples(1, 2)[0]: "too long", gold: "unknown id"})
    plan = plan_fill(sets, cache=Empty(), refused=open_refusals(runtime, IDENTITY, k=4))
    assert (plan.misses, plan.sets[0].hits, plan.sets[1].hits) == (1, 0, 0)
    assert plan.refused == {samples(1, 2)[0]: "too long", gold: "unknown id"}
    assert plan.sets[0].asks_teacher and not plan.sets[1].asks_teacher
    assert (plan.prompt_tokens, plan.response_tokens) == (2, 5)
    first.failures.add({samples(1, 2, count=2)[1]: "too long"})
    assert not plan_fill(sets, cache=Empty(), refused=open_refusals(runtime, IDENTITY, k=4)).asks_teacher


def test_what_changes_the_engine_has_everything_asked_again_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = samples(1, 2)
    runtime = RuntimeConfig(cache_root=tmp_path)
    open_refusals(runtime, IDENTITY, k=4).failures.add({request: "too long"})

    def known(k: int = 4, **settings: float) -> bool:
        changed = runtime.teacher_engine.model_copy(update=settings)
        other = runtime.model_copy(update={"teacher_engine": changed})
        return open_refusals(other, IDENTITY, k=k).reason(request) is not None

    assert known() and known(count=3, cpus=9)
    for name in (
        "max_model_len",
        "max_batched_tokens",
        "max_sequences",
        "kv_cache_gib",
        "tensor_parallel",
        "pipeline_parallel",
    ):
        assert not known(**{name: 2048}), name
    assert "pipeline_parallel" not in engine_version(runtime, k=4), "what was refused before there were stages is known"
    assert not known(k=5)
    monkeypatch.setattr(refusals, "installed_version", lambda *_: "99.1")
    assert engine_version(runtime, k=4)["vllm"] == "99.1"
    assert not known()
