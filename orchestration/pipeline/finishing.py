"""The end of any experiment: its comparison is kept and published, which finishes it, and its audits follow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from configs import BudgetReached
from configs.places import WRITTEN
from orchestration.comparison.publishing import publish
from orchestration.comparison.report import Report, write_report
from orchestration.comparison.show import show_report
from orchestration.pipeline.audit_stage import with_audits
from orchestration.pipeline.run import AnyRun, AnyWritten, Journal


def finish(
    report: Report,
    *,
    written: AnyWritten,
    settings: AnyRun,
    journal: Journal,
    room: Callable[[], AbstractContextManager[None]],
) -> Report:
    """Keep and publish a comparison; the report after the audits that the experiment asks for.

    Audits read models in this process, and need the memory of whatever waits for more to do: that is given back within
    the context of `room`.

    Raises:
        ConfigError: a file that the experiment names changed meanwhile, and nothing is published.
        BudgetReached: no energy is left for an audit; the comparison is shown, and finished without it.
    """
    written.require_unchanged()
    directory, tracker = settings.directory, journal.tracker
    publish(report.results, directory=directory, tracker=tracker)
    write_report(report, directory)  # last: it marks the experiment as finished, and nothing of it is missing then
    try:
        with room():
            report = with_audits(report, settings=settings, journal=journal)
    except BudgetReached:
        show_report(report, written.config, directory=directory, console=journal.console)
        raise
    tracker.artifact("pipeline", directory / WRITTEN)
    return report
