"""How long models with a task head take for a text, side by side, and what memory that takes; on the CPU.

Every model has a process of its own (`text_speed_process`), with the same number of threads. All of them are up and
warm before the first time is taken, and then take turns: a round is one time of every model, so that what slows the
machine down for a while slows all of them, and ratios are taken within a round. While one computes, the others wait.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from configs import DistillError, EngineError
from evaluation.results import Serving, TextSpeed
from orchestration.environment import installed_version
from orchestration.own_packages import own_command
from orchestration.plan.machine import cpu_name

BATCHES = (1, 32)
TEXTS = 32
"""Texts of one time: at batch 1 one after the other, at batch 32 all at once."""

ROUNDS = 5

THREADS = 1
"""Of every model. With several, each step waits for the slowest of them, and on a machine that has other work to do as
well, times of a small model vary tenfold."""

MAIN = "orchestration.comparison.text_speed_process"

Texts = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured, by model, and why it was not measured of others."""

    serving: Mapping[str, Serving]
    failures: Mapping[str, str]


def measured_on() -> str:
    """The machine and the settings in words; only times with equal words can be compared."""
    threads = f"{THREADS} thread{'s' if THREADS > 1 else ''}"
    return f"CPU ({cpu_name()}), {threads}; float32; torch {installed_version('torch')}"


def time_texts(models: Mapping[str, Path], texts: Texts, *, log: Path) -> Timed:
    """Measure the models, by name and directory, on the first `TEXTS` of some texts; fewer come several times.

    `log` gets what the processes say. One that fails costs the others nothing.
    """
    asked = [list(texts[at % len(texts)]) for at in range(TEXTS)]
    failures = dict[str, str]()
    with ExitStack() as opened, log.open("ab") as stderr:
        able: dict[str, _Process] = {}
        for name, directory in models.items():
            able[name] = opened.enter_context(_Process(stderr.fileno()))
            # All load at once: most of it is Python that imports torch.
            first = {"model": str(directory.absolute()), "threads": THREADS, "texts": asked, "parent": os.getpid()}
            able[name].tell(first)
        for name, process in able.items():
            try:
                process.hear()
            except DistillError as error:
                failures[name] = str(error)
        found = _in_turns(able, failures)
    return Timed({name: _serving(each) for name, each in found.items()}, failures)


@dataclass(frozen=True, slots=True)
class _Turn:
    batch: int
    text_s: float
    peak_bytes: int


def _in_turns(able: Mapping[str, _Process], failures: dict[str, str]) -> dict[str, list[_Turn]]:
    """Every time of every model that went through all of them."""
    found: dict[str, list[_Turn]] = {name: [] for name in able}
    for batch in BATCHES * (ROUNDS + 1):
        for name, process in able.items():
            if name in failures:
                continue
            try:
                said = process.ask({"batch": batch})
            except DistillError as error:
                failures[name] = str(error)
                continue
            found[name].append(_Turn(batch, said["text_s"], said["peak_bytes"]))
    return {name: turns for name, turns in found.items() if name not in failures}


def _serving(turns: Sequence[_Turn]) -> Serving:
    """All but the first round, in which some things are done for the first time."""
    warm = turns[len(BATCHES) :]
    texts = tuple(TextSpeed(batch, tuple(turn.text_s for turn in warm if turn.batch == batch)) for batch in BATCHES)
    peak = float(max(turn.peak_bytes for turn in turns))
    return Serving(measured_on(), (), peak, 0.0, float("nan"), texts)


class _Process:
    """A process that answers texts with one model."""

    def __init__(self, stderr: int) -> None:
        self._process = subprocess.Popen(
            own_command(MAIN),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # The tokenizer has threads of its own; a GPU would be another machine.
            env=os.environ | {"RAYON_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, asked: Mapping[str, object]) -> dict[str, Any]:
        """What it answers, see `hear`."""
        self.tell(asked)
        return self.hear()

    def tell(self, asked: Mapping[str, object]) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None
        # One that has ended is found out when its answer is waited for.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            EngineError: it cannot load the model, or has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"the process that answers texts ended with status {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise EngineError(said["error"])
        return said
