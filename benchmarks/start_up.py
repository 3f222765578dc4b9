"""How long a command takes before it does anything, each in a process of its own, beside what others need to be loaded.

`python -c pass` is what nobody can be faster than. A plan is one of a model that is on this machine already, as after a
first run: what it takes then is imports, a tokenizer and the prompts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement, at_most
from benchmarks.timing import best_seconds
from configs import load_config
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import open_teacher

CONFIG = Path("configs/quickstart.yaml")
HELP_S, PLAN_S = 0.5, 3.0
PEERS = ("torch", "transformers", "ray")
ROUNDS = 3


def bench_start_up() -> Iterator[Measurement]:
    """Seconds of `distill --help` and `distill plan`, and of a bare Python and the imports of others."""
    with TemporaryDirectory() as place:
        roots = [f"runtime.{root}={place}/{root}" for root in ("cache_root", "models_root", "run_root")]
        open_teacher(resolve_paths(load_config(CONFIG, overrides=roots), config_dir=CONFIG.parent))
        planned = ["-m", "orchestration", "plan", *(part for root in roots for part in ("--set", root))]
        contenders = {
            "distill --help": _python("-m", "orchestration", "--help"),
            "distill plan": _python(*planned),
            "python -c pass": _python("-c", "pass"),
            **{f"import {name}": _python("-c", f"import {name}") for name in PEERS},
        }
        seconds = best_seconds(contenders, rounds=ROUNDS)
    peers = {name: seconds[name] for name in contenders if not name.startswith("distill")}
    yield at_most("distill --help", seconds["distill --help"], HELP_S, unit="s", peers=peers)
    yield at_most("distill plan, its model known", seconds["distill plan"], PLAN_S, unit="s", peers=peers)


def _python(*arguments: str) -> Callable[[], object]:
    # Bytecode is kept as it is for every user; without it each start compiles all that it imports.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, env=kept, check=True, stdout=subprocess.DEVNULL)
