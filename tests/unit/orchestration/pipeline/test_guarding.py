"""The guard of a run: its engines are there while it reads, and no longer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from guard_models import PlainEngine, guard_config, save_guard
from pipeline_builders import fake_run

from cache import GenerateRequest
from orchestration.cluster.engines import EngineSpec, TimedAnswers
from orchestration.inputs.exchanges import Exchange
from orchestration.pipeline.guarding import opened_guard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guard") / "model")


class NotedPool(PlainEngine):
    """The guard's engines, of which it is noted what they are and when they end."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec.model_dir)
        self.spec = spec

    def answer(self, requests: Sequence[GenerateRequest], *, k: int = 0) -> Any:
        return TimedAnswers(tuple(super().answer(requests)), 1.0, f"a fake of {k}")

    def release(self) -> None:
        self.rest()


def test_engines_are_started_to_read_and_end_when_it_rests(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, content={"guard": guard_config(folder, max_tokens=90).model_dump(mode="json")})
    pools: list[NotedPool] = []

    def new_pool(spec: EngineSpec) -> NotedPool:
        pools.append(NotedPool(spec))
        return pools[-1]

    monkeypatch.setattr(run.compute, "new_pool", new_pool)
    with opened_guard(run.settings, run.journal, run.compute) as guard:
        assert guard is not None and run.said.startswith("content.guard: ") and pools == []
        found = guard.reasons([Exchange.of("tea bomb"), Exchange.of("tea")])
        assert [reason is None for reason in found] == [False, True]
        [pool] = pools
        spec = pool.spec
        assert (spec.settings.max_model_len, spec.settings.max_batched_tokens, spec.teaches) == (91, 91, False)
        assert run.compute.called == ["cluster"] and pool.asked == [2]
        guard.rest()
        guard.rest()
        assert pool.rested == 1
        guard.reasons([Exchange.of("tea")])
        assert len(pools) == 1, "what it has said needs no engine"
        guard.reasons([Exchange.of("rain")])
    assert [pool.rested for pool in pools] == [1, 1], "whatever happens, they end with the run"
    assert "texts judged by" in run.said


def test_a_run_without_a_guard_has_none(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    with opened_guard(run.settings, run.journal, run.compute) as guard:
        assert guard is None and run.said == ""
