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


def find_run(named: str, *, run_root: Path) -> Path:
    """The directory of a run.

    Raises:
        ConfigError: there is none of that name, or several begin with it.
    """
    for directory in (Path(named), run_root / named):
        if directory.is_dir():
            return directory
    plain = named not in ("", ".", "..") and "/" not in named
    found = sorted(path for path in run_root.glob("*") if plain and path.is_dir() and path.name.startswith(f"{named}-"))
    if not found:
        raise ConfigError(f"{named}: there is no run directory of this name, neither here nor in {run_root}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{named}: {len(found)} runs in {run_root} begin so ({names}): name one of them")
    return found[0]
