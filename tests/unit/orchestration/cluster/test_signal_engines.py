"""Engines that say signals: what they reserve, what they are asked, and their check. With Ray: tests/slow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from local_engines import IDENTITY, lease_queue
from local_signals import SignalFilling, signal_set
from pool_builders import QuietLife, surround
from signal_builders import CLASSES, ask, respond
from task_heads import save_classifier

from cache import Signal, SignalRequest
from configs import EngineError
from configs.schema import EngineSettings
from orchestration.cluster import actor_pool, signal_engines
from orchestration.cluster.signal_engines import PlainPass, SignalActor, SignalPool, SignalSpec
from orchestration.fill.engine_loop import FillProgress
from orchestration.fill.ledger import read_counts
from orchestration.fill.signals import items_of

SPEC = SignalSpec(Path("/model"), IDENTITY, EngineSettings(count=2, cpus=3), "cpu", Path("/logs"))
TEXTS = (ask((4, 5)), ask((4, 5, 6)))


def said(request: SignalRequest) -> Any:
    return respond(request, identity=IDENTITY)


class Ray:
    """Starts engines that answer as they should, the second of them `off`."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []
        self.queued: list[Any] = []
        self.filled = 0
        self.off = np.float32(0)

    def start(self, **chosen: Any) -> Any:
        self.options.append(chosen)
        return SimpleNamespace(remote=self._actor)

    def _actor(self, _spec: SignalSpec, *, index: int, life: Any) -> Any:
        def answer(requests: Any) -> Any:
            return [replace(said(each), values=said(each).values + (self.off if index else 0)) for each in requests]

        def fill(*_: Any) -> None:
            self.filled += 1

        methods = {"ready": lambda: None, "close": lambda: None, "answer": answer, "fill": fill}
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})

    def lease(self, items: Any, *, token_budget: int | None, engines: int) -> Any:
        self.queued.append((items, token_budget, engines))
        methods: dict[str, Any] = {
            "progress": FillProgress,
            "stop": lambda: None,
            "measured": lambda _: None,
        }
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    ray = SimpleNamespace(get=lambda refs, **_: refs, wait=lambda refs, **_: (refs, []), kill=lambda _: None)
    monkeypatch.setattr(actor_pool, "ray", ray)
    monkeypatch.setattr(signal_engines, "SignalActor", SimpleNamespace(options=fake.start))
    monkeypatch.setattr(
        actor_pool, "LeaseQueue", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=fake.lease))
    )
    surround(monkeypatch)
    return fake


@pytest.mark.parametrize(("accelerator", "cpus", "gpus"), [("cpu", 3, 0), ("gpu", 1, 1)])
def test_each_engine_reserves_what_it_needs(accelerator: Any, cpus: int, gpus: int, cluster: Ray) -> None:
    pool = SignalPool(replace(SPEC, accelerator=accelerator))
    assert cluster.options == []
    pool.start()
    assert [(each["num_cpus"], each["num_gpus"]) for each in cluster.options] == [(cpus, gpus)] * 2
    assert cluster.options[0]["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"
    assert pool.counted == (1.0, "teacher") and pool.up == 2


def test_what_is_asked_about_one_text_is_one_item_of_a_fill(cluster: Ray, tmp_path: Path) -> None:
    work = list(enumerate(signal_set(2).requests))
    progress: Any = SimpleNamespace(update=lambda done, *, tokens: None)
    order = SignalFilling(tmp_path / "cache").order()
    SignalPool(SPEC).fill(work, order, progress=progress, token_budget=9, seconds_budget=None)
    ((items, budget, engines),) = cluster.queued
    assert [(position, len(questions)) for position, questions in items] == [(0, 3), (3, 3)]
    assert (budget, engines, cluster.filled) == (9, 2, 2)


def test_every_engine_is_judged_by_one_plain_pass(cluster: Ray) -> None:
    passes: list[PlainPass] = []

    def plain(job: PlainPass) -> list[Any]:
        passes.append(job)
        return [said(request).values for request in job.requests]

    SignalPool(SPEC).check(TEXTS, plain=plain)
    assert passes == [PlainPass(Path("/model"), TEXTS, "float32", Path("/logs/signals-plain.log"))]
    cluster.off = np.float32(0.1)
    with pytest.raises(EngineError, match=r"/model: the engine says class_logits .* off a plain forward pass"):
        SignalPool(SPEC).check(TEXTS, plain=plain)


def test_an_actor_answers_checks_and_fills_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_engines, "redirect_output", lambda _: None)
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    model_dir = save_classifier(tmp_path / "model")
    actor_class: Any = SignalActor
    filling = SignalFilling(tmp_path / "cache")
    spec = replace(SPEC, model_dir=model_dir, ledger=tmp_path / "checks")
    actor = actor_class.__ray_metadata__.modified_class(spec, index=0, life=(life := QuietLife()))
    actor.ready()
    assert life.beats == 1
    assert threads == [3]
    state = Signal("state", layer=1, position="first")
    requests = [ask((4, 6), CLASSES), ask((4, 6), state), ask((5,), CLASSES), ask((4,) * 65, CLASSES)]
    good = actor.answer(requests)
    # Two texts were read, of two tokens and of one; the third is too long.
    assert read_counts(tmp_path / "checks").evaluation == 3
    queue = lease_queue(list(items_of(enumerate(requests))), token_budget=None)
    actor.fill(queue, filling.order())
    done = queue.progress()
    assert (done.rows, done.committed_rows, done.forward_tokens) == (3, 3, 3)
    assert [position for position, _ in done.failures] == [3] and "the model reads" in done.failures[0][1]
    filling.cache.refresh()
    kept = filling.cache.signals.get_many(filling.cache.signals.keys(requests[:3]))
    for record, expected in zip(kept, good[:3], strict=True):
        assert record is not None
        np.testing.assert_allclose(record.values, expected.values, atol=1e-6)
    plain = signal_engines._plain(PlainPass(model_dir, tuple(requests[:3]), "float32", tmp_path / "log"))
    np.testing.assert_allclose(plain[0], good[0].values, atol=1e-6)
