"""Finished runs by what a person calls them: a run directory, its name below the run root, or the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs import ConfigError
from evaluation.report.merging import run_names
from evaluation.results import RunResults
from orchestration.comparison.report import read_results


def open_runs(named: Sequence[str], *, run_root: Path) -> dict[str, RunResults]:
    """The results of each run, by a name that tells it apart from the others; a run that is named twice counts once.

    Raises:
        ConfigError: there is no such run, it is not finished, or another version wrote it (`OutdatedError`).
    """
    directories = dict.fromkeys(find_run(name, run_root=run_root).resolve() for name in named)
    results = [read_results(directory) for directory in directories]
    return dict(zip(run_names(results), results, strict=True))


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
