"""What `distill plan` takes of time and memory: N rows and ten times as many, each plan in a process of its own.

Rows, tokenizer and chat template are those of `prompts`; the cache is empty, so each row is a miss. What grows in
memory with the rows are the places of prompts and misses (`cache.rows`); their tokens and texts lie in a file. The
floor of time is the tokenizer: the same text, in batches, on the same cores, in the same run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement, at_most
from benchmarks.prompts import CONFIG, cpu_s, peak_bytes, tokenizer_s, write_rows
from configs import DistillConfig, load_config
from orchestration.commands.plan import print_plan
from orchestration.inputs.models import load_tokenizer, locate_model
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import open_teacher

ROWS, TIMES = 100_000, 10
MOST_BYTES_A_ROW = 100
"""Ten million rows in one gigabyte."""

MOST_TIMES_FLOOR = 4.0
"""Of the tokenizer alone: reading, rendering, naming and looking up take some, too."""


def bench_plans() -> Iterator[Measurement]:
    """Seconds and peak memory of a plan, and what a further row takes of both."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        # As after a first run: its model is made, and known by its fingerprint.
        open_teacher(resolve_paths(_config(folder, CONFIG.parent / "prompts"), config_dir=CONFIG.parent))
        few, many = (_measured(folder, rows) for rows in (ROWS, TIMES * ROWS))
        model = locate_model(load_config(CONFIG).teacher.model, models_root=folder / "models_root")
        floor = tokenizer_s(folder / str(ROWS), load_tokenizer(model, label="the teacher"))
    further = (TIMES - 1) * ROWS
    yield at_most(
        f"memory of a further row of a plan of {TIMES * ROWS:,}",
        (many["peak_bytes"] - few["peak_bytes"]) / further,
        MOST_BYTES_A_ROW,
        unit="B",
        digits=0,
        peers={"peak of it, MB": many["peak_bytes"] / 1e6, f"of {ROWS:,}, MB": few["peak_bytes"] / 1e6},
    )
    yield at_most(
        "time of a further row, in times of the tokenizer alone",
        (many["seconds"] - few["seconds"]) / further / (floor / ROWS),
        MOST_TIMES_FLOOR,
        unit="x",
        peers={f"seconds of {TIMES * ROWS:,}": many["seconds"], f"of {ROWS:,}": few["seconds"]},
        note=f"{1e6 * (many['cpu_s'] - few['cpu_s']) / further:.0f} µs of processor a row, the tokenizer's "
        f"{1e6 * floor / ROWS:.0f} by the clock",
    )


def _measured(folder: Path, rows: int) -> dict[str, float]:
    """What a process of its own says."""
    data = folder / str(rows)
    if not data.exists():
        write_rows(data, rows)
    command = [sys.executable, "-m", "benchmarks.plans", str(folder), str(data)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _config(folder: Path, data: Path) -> DistillConfig:
    """The quickstart with these rows and everything that it keeps below `folder`."""
    roots = [f"runtime.{root}={folder / root}" for root in ("cache_root", "models_root", "run_root")]
    paths = [f"data.{split}.path={data.absolute() / split}.jsonl" for split in ("train", "dev", "test")]
    return load_config(CONFIG, overrides=[*roots, *paths])


def _plan(folder: Path, data: Path) -> None:
    """Print a plan, and then what it took."""
    began = time.monotonic()
    print_plan(_config(folder, data), config_dir=CONFIG.parent, assume_gpus=None, stream=sys.stderr)
    print(json.dumps({"seconds": time.monotonic() - began, "peak_bytes": peak_bytes(), "cpu_s": cpu_s()}))


if __name__ == "__main__":
    _plan(Path(sys.argv[1]), Path(sys.argv[2]))
