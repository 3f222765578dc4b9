"""Who is heard of, who is given up, and who looks after whom. With Ray and processes that stop: tests/slow."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from orchestration.cluster import pulse
from orchestration.cluster.pulse import Life, Pulse, Watch, expecting, forget_pulse


class Clock:
    """Stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_is_silent_for_too_long_is_given_up_for_good() -> None:
    clock = Clock()
    heard = Pulse(clock)
    heard.expect(["a", "b", "c"])
    for _ in range(6):
        clock.now += 2.0
        assert heard.hear("a") and heard.hear("c")
        # The second one was last heard of when it was expected, of the third nobody asks.
        silent = heard.give_up_silent(["a", "b"], after_s=10.0)
        assert silent == (["b"] if clock.now > 1010.0 else [])
    assert not heard.hear("b") and heard.hear("a")
    clock.now += 2.0
    assert heard.give_up_silent(["a"], after_s=10.0) == []


def test_nobody_is_silent_when_everything_stood_still() -> None:
    clock = Clock()
    heard = Pulse(clock)
    heard.expect(["a"])
    clock.now += 3600.0
    assert heard.give_up_silent(["a"], after_s=10.0) == []
    for _ in range(3):
        clock.now += 4.0
        silent = heard.give_up_silent(["a"], after_s=10.0)
    assert silent == ["a"]


def test_who_has_ended_or_was_never_expected_holds_nothing() -> None:
    heard = Pulse()
    heard.expect(["a", "b"])
    heard.forget(["a", "unknown"])
    assert [heard.hear(name) for name in "abc"] == [False, True, False]
    assert heard.give_up_silent(["a", "b"], after_s=300.0) == ["a"]


class Ray:
    """Actors are plain objects; `alive` says whether the pulse answers. It notes where a pulse was started."""

    def __init__(self) -> None:
        self.pulses: list[Pulse] = []
        self.alive = True
        self.job = "1"

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=self.start)

    def start(self) -> Any:
        self.alive = True
        self.pulses.append(kept := Pulse())

        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda *args, **named: lambda: getattr(kept, name)(*args, **named))

        forget = SimpleNamespace(remote=lambda names: kept.forget(names))
        return SimpleNamespace(
            hear=method("hear"), expect=method("expect"), give_up_silent=method("give_up_silent"), forget=forget
        )

    def get(self, asked: Any) -> Any:
        if not self.alive:
            raise ActorDiedError()
        return asked()

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="127.0.0.1:1", get_job_id=lambda: self.job)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    monkeypatch.setattr(pulse, "ray", fake)
    monkeypatch.setattr(pulse, "PulseActor", fake)
    monkeypatch.setattr(pulse, "beside_the_driver", dict)
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", 0.0)
    forget_pulse()
    return fake


def test_all_of_a_run_share_one_pulse_until_it_dies_or_another_cluster_is_entered(cluster: Ray) -> None:
    first, second = expecting(["a"]), expecting(["b"])
    assert first is second and cluster.pulses[0].hear("a") and cluster.pulses[0].hear("b")
    cluster.alive = False
    assert expecting(["c"]) is not first
    # What was given up before is expected by nobody any more.
    assert not cluster.pulses[1].hear("a") and cluster.pulses[1].hear("c")
    cluster.job = "2"
    expecting(["d"])
    forget_pulse()
    expecting(["e"])
    assert len(cluster.pulses) == 4
    forget_pulse()


def test_a_process_beats_until_it_is_given_up_ends_or_the_pulse_is_gone(
    cluster: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "BEAT_EVERY_S", 0.01)

    def beating() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "pulse"]

    def join() -> None:
        for thread in beating():
            thread.join(60)
        assert beating() == []

    watch = Watch(1)
    (life,) = watch.lives
    heard, often = 0, threading.Event()
    hear = cluster.pulses[0].hear

    def count(name: str) -> bool:
        nonlocal heard
        heard += 1
        if heard > 4:
            often.set()
        return hear(name)

    monkeypatch.setattr(cluster.pulses[0], "hear", count)
    end = life.beat()
    # While this thread does whatever it does.
    assert often.wait(60) and life.holds()
    end()
    join()
    life.beat()
    watch.end()
    join()
    assert not life.holds()
    life = Watch(1).lives[0]
    life.beat()
    cluster.alive = False
    join()
    assert not life.holds()
    forget_pulse()


def test_whoever_waits_hears_who_is_silent_of_those_who_owe_an_answer(
    cluster: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, other = Watch(3, after_s=50.0), Watch(2, after_s=50.0)
    clock = Clock()
    (kept,) = cluster.pulses
    monkeypatch.setattr(kept, "_clock", clock)
    kept.expect([life.name for life in (*watch.lives, *other.lives)])
    kept._looked = clock.now
    for _ in range(6):
        clock.now += 10.0
        assert watch.lives[1].holds()
        assert other.silent([]) == []
    assert watch.silent([1, 2]) == [2]
    assert not watch.lives[2].holds()
    assert watch.silent() == [0, 2]
    # Those of another one are looked after by it alone.
    assert other.lives[0].holds() and other.silent() == [1]
    forget_pulse()


def test_who_waits_does_not_ask_all_the_time(cluster: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(1, after_s=-1.0)
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", 3600.0)
    assert watch.silent() == []
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", 0.0)
    assert watch.silent() == [0]
    forget_pulse()


def test_a_life_is_told_apart_by_its_name() -> None:
    asked: list[str] = []
    handle: Any = SimpleNamespace(hear=SimpleNamespace(remote=asked.append))
    assert Life(handle, "a") != Life(handle, "b")
