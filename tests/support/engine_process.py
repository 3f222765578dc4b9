"""A `VllmEngine` in a process of its own, as it will live in an actor: the test process stays as it was.

Requests are drawn from the caller's iterator one by one through the pipe, so laziness is the engine's own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from cache.identity import TeacherIdentity
from cache.protocols import Outcome
from cache.records import GenerateRequest, ScoreRequest
from configs.errors import DistillError
from configs.schema import EngineSettings
from orchestration.rollouts.turns import Answered, Tagged, Turns
from teacher_server.weights import Shapes, WeightSource


@dataclass(frozen=True, slots=True)
class Sockets:
    """Addresses that the engine's process and its children listen on, and the names of the children."""

    listening: tuple[str, ...]
    children: tuple[str, ...]


class EngineProcess:
    """A `SequenceSource` and a `RolloutEngine`; one call at a time."""

    def __init__(
        self, model_dir: Path, *, identity: TeacherIdentity, settings: EngineSettings, **arguments: Any
    ) -> None:
        self.identity = identity
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, model_dir, identity, settings, arguments))
        self.process.start()
        theirs.close()
        self._receive()

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        return self._stream("generate", requests, k=k)

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        return self._stream("score", requests, k=k)

    def load(self, model_dir: Path, *, identity: TeacherIdentity) -> None:
        self._ask("load", model_dir, identity)
        self.identity = identity

    def receive(self, source: WeightSource, *, shapes: Shapes, identity: TeacherIdentity) -> None:
        self._ask("receive", source, shapes, identity)
        self.identity = identity

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        answered: list[Answered] = self._ask("turn", asked, leave)
        return answered

    def finish(self) -> None:
        self._ask("finish")

    def checksums(self) -> dict[str, str]:
        checksums: dict[str, str] = self._ask("checksums")
        return checksums

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = self._ask("describe")
        return described

    def sockets(self) -> Sockets:
        sockets: Sockets = self._ask("sockets")
        return sockets

    def inside(self, function: Callable[[Any], Any]) -> Any:
        """What a function of a module gives that is called with the `VllmEngine`, in its process."""
        return self._ask("inside", function)

    def break_down(self) -> None:
        """Let the next step of the engine fail."""
        self._ask("break_down")

    def close(self) -> Sockets | None:
        """What is left after `VllmEngine.close`; ends the process."""
        if not self.process.is_alive():
            return None
        left: Sockets = self._ask("close")
        self.process.join(timeout=30)
        return left

    def _stream(self, method: str, requests: Iterable[Any], *, k: int) -> Iterator[Outcome]:
        source = iter(requests)
        self._pipe.send((method, k))
        going = True
        try:
            while True:
                self._pipe.send("next")
                kind, value = self._pipe.recv()
                while kind == "draw":
                    self._pipe.send(next(source, None))
                    kind, value = self._pipe.recv()
                if kind == "outcome":
                    yield value
                    continue
                going = False
                if kind == "error":
                    raise value
                return
        finally:
            if going:
                self._pipe.send("stop")

    def _ask(self, *command: object) -> Any:
        self._pipe.send(command)
        return self._receive()

    def _receive(self) -> Any:
        kind, value = self._pipe.recv()
        if kind == "error":
            raise value
        return value


def _serve(
    pipe: Connection, model_dir: Path, identity: TeacherIdentity, settings: EngineSettings, arguments: dict[str, Any]
) -> None:
    from teacher_server.environment import engine_environment

    os.environ.update(engine_environment(settings, "cpu"))
    from teacher_server.vllm_engine import VllmEngine

    try:
        engine = VllmEngine(model_dir, identity=identity, settings=settings, **arguments)
    except DistillError as error:
        pipe.send(("error", error))
        return
    pipe.send(("value", None))
    turns = Turns(engine)
    while True:
        command, *rest = pipe.recv()
        try:
            if command in ("generate", "score"):
                _stream(pipe, engine, command, k=rest[0])
                continue
            if command == "load":
                engine.load(rest[0], identity=rest[1])
                pipe.send(("value", None))
            elif command == "receive":
                engine.receive(rest[0], shapes=rest[1], identity=rest[2])
                pipe.send(("value", None))
            elif command == "turn":
                pipe.send(("value", turns.turn(rest[0], leave=rest[1])))
            elif command == "finish":
                turns.finish()
                pipe.send(("value", None))
            elif command == "checksums":
                pipe.send(("value", engine.checksums()))
            elif command == "describe":
                pipe.send(("value", engine.describe()))
            elif command == "sockets":
                pipe.send(("value", _sockets()))
            elif command == "inside":
                pipe.send(("value", rest[0](engine)))
            elif command == "break_down":
                engine._engine.step = _fail  # type: ignore[union-attr]
                pipe.send(("value", None))
            else:
                engine.close()
                engine.close()
                pipe.send(("value", _sockets()))
                return
        except DistillError as error:
            pipe.send(("error", error))


def _stream(pipe: Connection, engine: Any, method: str, *, k: int) -> None:
    outcomes: Iterator[Outcome] | None = None
    try:
        while pipe.recv() == "next":
            if outcomes is None:
                outcomes = getattr(engine, method)(_drawn(pipe), k=k)
            outcome = next(outcomes, None)
            if outcome is None:
                pipe.send(("end", None))
                return
            pipe.send(("outcome", outcome))
    except DistillError as error:
        pipe.send(("error", error))
    finally:
        if outcomes is not None:
            outcomes.close()  # type: ignore[attr-defined]


def _drawn(pipe: Connection) -> Iterator[Any]:
    while True:
        pipe.send(("draw", None))
        request = pipe.recv()
        if request is None:
            return
        yield request


def _fail() -> None:
    raise RuntimeError("planted fault\nwith a second line")


def _sockets() -> Sockets:
    import psutil

    process = psutil.Process()
    children = process.children(recursive=True)
    connections = [each for one in (process, *children) for each in one.net_connections("inet")]
    return Sockets(
        listening=tuple(sorted({each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN})),
        children=tuple(child.name() for child in children),
    )


def abandoned_shared_memory() -> set[str]:
    """Names in /dev/shm that no living process maps or holds open; what a neighbour works with is not left behind."""
    used: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            used |= {Path(mapped.path).name for mapped in process.memory_maps() if mapped.path.startswith("/dev/shm/")}
            used |= {Path(opened.path).name for opened in process.open_files() if opened.path.startswith("/dev/shm/")}
    return set(os.listdir("/dev/shm")) - used
