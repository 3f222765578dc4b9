"""`distill compare RUN...`: students of finished runs against their baselines, with intervals, tests and analyses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from configs import ConfigError


def add_compare(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run directory, or a name below the run root")
    command.add_argument("--run-root", type=Path, default=Path("runs"), help="where runs are looked for by name")
    command.add_argument("--out", type=Path, metavar="DIR", help="write compare.md and compare.json there")
    command.set_defaults(command=compare)


def compare(arguments: argparse.Namespace) -> None:
    """Print the comparison, and write it where that is asked for.

    Raises:
        ConfigError: a run cannot be found or read, or the files cannot be written.
    """
    from evaluation.analysis import compare_runs
    from orchestration.comparison.analysis import print_comparison, write_comparison
    from orchestration.comparison.runs import open_runs
    from orchestration.outputs.console import Console

    comparison = compare_runs(open_runs(arguments.runs, run_root=arguments.run_root))
    console = Console(sys.stdout)
    print_comparison(comparison, console)
    if arguments.out is None:
        return
    try:
        page, data = write_comparison(comparison, arguments.out)
    except OSError as error:
        raise ConfigError(
            f"--out {arguments.out} cannot be written ({error.strerror}): name another directory"
        ) from error
    console.say(f"Written: {page}, {data}")
