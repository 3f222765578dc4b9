"""`distill report RUN...`: the report of finished runs as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from configs import ConfigError
from orchestration.comparison.publishing import write_pages
from orchestration.comparison.report import read_results
from orchestration.outputs.console import Console


def report_runs(runs: Sequence[str], *, run_root: Path, out: Path | None, stream: TextIO) -> None:
    """Write the report of runs into `out`, or, of one run, into its own directory.

    Raises:
        ConfigError: a run is not there or not finished, or it is not said where the report of several is to go.
    """
    directories = [find_run(run, run_root=run_root) for run in runs]
    if out is None and len(directories) > 1:
        raise ConfigError(f"{len(directories)} runs: name a directory for their report with --out")
    place = directories[0] if out is None else out
    results = [read_results(directory) for directory in directories]
    try:
        place.mkdir(parents=True, exist_ok=True)
        published = write_pages(results, place)
    except OSError as error:
        raise ConfigError(f"{place}: the report cannot be written ({error.strerror})") from error
    console = Console(stream)
    console.say(published.note.strip().replace("**", "").replace("\\", ""))
    console.say(f"The report is in {published.page} (and {published.markdown.name}).")


def find_run(run: str, *, run_root: Path) -> Path:
    """The run directory that is meant: a path, a name below `run_root`, or the beginning of one such name.

    Raises:
        ConfigError: there is none, or several begin so.
    """
    for directory in (Path(run), run_root / run):
        if directory.is_dir():
            return directory
    found = sorted(run_root.glob(f"{_literal(run)}-*/report.json")) if "/" not in run else []
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise ConfigError(f"{run}: several runs are called so ({names}): name one of them")
    if not found:
        raise ConfigError(f"{run}: is neither a run directory nor the name of one in {run_root}")
    return found[0].parent


def _literal(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
