"""`distill report RUN...`: the report of finished runs as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from configs import ConfigError
from orchestration.comparison.audits import read_audits
from orchestration.comparison.publishing import write_pages
from orchestration.comparison.report import read_results
from orchestration.comparison.runs import find_run
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
        published = write_pages(results, place, [read_audits(directory) for directory in directories])
    except OSError as error:
        raise ConfigError(f"{place}: the report cannot be written ({error.strerror})") from error
    console = Console(stream)
    console.say(published.note.strip().replace("**", "").replace("\\", ""))
    console.say(f"The report is in {published.page} (and {published.markdown.name}).")
