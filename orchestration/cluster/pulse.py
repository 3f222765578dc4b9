"""Signs of life of processes on the cluster, and who is given up.

A thread of its own in each process (`Life.beat`) says every few seconds that it lives, also while it computes, loads a
model or commits. A process that is stopped, or hangs in code that never gives the interpreter back, says nothing: Ray
takes it for one that is at work. So whoever waits for an answer looks after those who owe it (`Watch`), whether it is
a fill, an examination, a rollout or a task. Who was silent for too long is given up, for good: what it says when it
wakes up comes too late, because others may have been asked by then (docs/decisions/0042-engine-faults.md).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import ray
from ray.exceptions import RayError

from orchestration.cluster.places import beside_the_driver

BEAT_EVERY_S = 2.0
"""How often a process says that it lives."""

LOOK_EVERY_S = 2.0
"""How often whoever waits looks who is silent."""

SILENT_AFTER_S = 300.0
"""How long a process may say nothing."""


class Pulse:
    """Who is expected to live, and when each was last heard of. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._heard: dict[str, float] = {}
        self._lock = threading.Lock()

    def expect(self, names: Collection[str]) -> None:
        """From now on these have to be heard of."""
        with self._lock:
            self._heard |= dict.fromkeys(names, self._clock())

    def forget(self, names: Collection[str]) -> None:
        """These have ended, or are given up: nothing that they say counts any more."""
        with self._lock:
            for name in names:
                self._heard.pop(name, None)

    def hear(self, name: str) -> bool:
        """Take note that `name` lives; whether it is still expected to."""
        with self._lock:
            if name not in self._heard:
                return False
            self._heard[name] = self._clock()
            return True

    def give_up_silent(self, names: Collection[str], *, after_s: float) -> list[str]:
        """Those of `names` that were not heard of for longer than `after_s`; they are forgotten.

        It is to be asked often: after a long time without a question everything may have been stopped, this process as
        well (a paused machine), and nobody is taken for silent yet.
        """
        with self._lock:
            now = self._clock()
            if now - self._looked > after_s / 2:
                self._heard = dict.fromkeys(self._heard, now)
            self._looked = now
            silent = [name for name in names if now - self._heard.get(name, -float("inf")) > after_s]
            for name in silent:
                self._heard.pop(name, None)
            return silent


PulseActor = ray.remote(num_cpus=0, max_restarts=0)(Pulse)
"""The pulse that all processes of a run share."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a process knows of the pulse: where it beats, and under which name."""

    pulse: ray.actor.ActorHandle
    name: str

    def holds(self) -> bool:
        """Say that this process lives; whether it is still expected to. It is not where the pulse is gone."""
        try:
            return bool(ray.get(self.pulse.hear.remote(self.name)))
        except RayError:
            return False

    def beat(self) -> Callable[[], None]:
        """Say it again and again, from a thread; call what is returned when the process has nothing to do any more."""
        ended = threading.Event()

        def beat() -> None:
            while self.holds() and not ended.wait(BEAT_EVERY_S):
                pass

        threading.Thread(target=beat, name="pulse", daemon=True).start()
        return ended.set


class Watch:
    """Some processes that are expected to live, as whoever waits for their answers looks after them."""

    def __init__(self, count: int, *, after_s: float = SILENT_AFTER_S) -> None:
        self.after_s = after_s
        prefix = secrets.token_hex(8)
        self._names = tuple(f"{prefix}-{number}" for number in range(count))
        self._pulse = expecting(self._names)
        self._looked = time.monotonic()

    @property
    def lives(self) -> list[Life]:
        """What each of them is given."""
        return [Life(self._pulse, name) for name in self._names]

    def silent(self, among: Collection[int] | None = None) -> list[int]:
        """Those `among` them (None: all) that were silent for too long, by their numbers; nobody between two looks.

        Raises:
            RayError: the pulse itself is gone, and with it whatever would be committed.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return []
        self._looked = now
        asked = [name for number, name in enumerate(self._names) if among is None or number in among]
        found = set(ray.get(self._pulse.give_up_silent.remote(asked, after_s=self.after_s)))
        return [number for number, name in enumerate(self._names) if name in found]

    def end(self) -> None:
        """Nobody of them is expected any more."""
        self._pulse.forget.remote(self._names)


@dataclass(slots=True)
class _Kept:
    """The pulse of the cluster that this process is attached to; `of` names the cluster and this process in it."""

    of: tuple[str, str] = ("", "")
    pulse: ray.actor.ActorHandle | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_KEPT = _Kept()


def expecting(names: Sequence[str]) -> ray.actor.ActorHandle:
    """The pulse of this run, which expects `names` from now on; started where there is none, or it died.

    Raises:
        RayError: it cannot be started.
    """
    context = ray.get_runtime_context()
    here = (str(context.gcs_address), str(context.get_job_id()))
    with _KEPT.lock:
        if _KEPT.pulse is not None and _KEPT.of == here:
            try:
                ray.get(_KEPT.pulse.expect.remote(names))
            except RayError:
                pass
            else:
                return _KEPT.pulse
        _KEPT.pulse, _KEPT.of = PulseActor.options(**beside_the_driver()).remote(), here
        ray.get(_KEPT.pulse.expect.remote(names))
        return _KEPT.pulse


def forget_pulse() -> None:
    """Call it when the cluster is left."""
    with _KEPT.lock:
        _KEPT.pulse, _KEPT.of = None, ("", "")
