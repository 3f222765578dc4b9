"""Engines whose first pass over the work runs in a process of its own, which is killed: what it has not committed is lost.

What such a process runs is a script of the tests (`local_engines`, `local_signals`), given the pass as a pickled file.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import EngineError
from orchestration.fill.engine_loop import FillOrder, FillProgress


@dataclass(slots=True)
class KilledPass:
    """What such a process does: commit at a moment of this number, die by SIGKILL at that one."""

    work: list[tuple[int, Any]]
    order: FillOrder
    commit_at: int
    die_at: int

    def at(self, commit: Callable[[], object]) -> Callable[[int], None]:
        """What is to be done at each moment."""

        def moment(count: int) -> None:
            if count == self.commit_at:
                commit()
            if count == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        return moment


@dataclass(slots=True)
class EngineThatIsKilled:
    """`Engines` whose first pass is killed; later ones are those of `healthy`. `script` is the file that runs a pass."""

    folder: Path
    script: str
    commit_at: int
    die_at: int
    healthy: Any
    killed: bool = False

    def fill(
        self,
        work: Iterable[tuple[int, Any]],
        order: FillOrder,
        *,
        progress: Any,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        if self.killed:
            done: FillProgress = self.healthy.fill(
                work, order, progress=progress, token_budget=token_budget, seconds_budget=seconds_budget
            )
            return done
        self.killed = True
        path = self.folder / "pass.pickle"
        path.write_bytes(pickle.dumps(KilledPass(list(work), order, self.commit_at, self.die_at)))
        died = subprocess.run([sys.executable, self.script, str(path)], check=False, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        raise EngineError("the engine was killed")


def read_pass(path: Path) -> KilledPass:
    """The pass of a process that is to be killed."""
    found: KilledPass = pickle.loads(path.read_bytes())
    return found
