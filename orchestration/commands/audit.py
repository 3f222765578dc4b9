"""`distill audit [NAME] RUN`: what students of a finished run give away, prefer or refuse unlike their teacher."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from orchestration.commands.argument_types import parse_count
from orchestration.environment import prepare_environment

DESCRIPTION = """\
Audits of a finished run: each student beside its teacher and what it began as, with 95 % intervals.

  distill audit privacy RUN   can training rows be told from held-out rows? what is repeated word for word?
  distill audit bias RUN      which groups does it prefer? what changes if a prompt is about somebody else?
  distill audit refusals RUN  does it still refuse what does harm? does it refuse what does not?
  distill audit RUN           all audits that there are

What was found is kept in RUN/audits and shown again at once for as long as the run stays what it is; audits that a
run made itself (`audit: {run: all}` in its configuration) lie there too.
What each number does and does not mean: docs/trust.md."""


def add_audit(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.description = DESCRIPTION
    command.add_argument("what", nargs="+", metavar="[NAME] RUN", help="an audit (without one: all), and the run")
    command.add_argument("--run-root", type=Path, default=Path("runs"), help="where runs are looked for by name")
    command.add_argument(
        "--rows", type=parse_count, metavar="N",
        help="training rows, and as many held-out rows, that are asked about; else as many as the run says, or 256",
    )  # fmt: skip
    command.add_argument(
        "--pairs", type=Path, action="append", default=[], metavar="FILE",
        help="bias: more pairs of sentences: CrowS-Pairs, WinoBias, Winogender, BBQ, or a CSV; may be repeated; else "
        "those that the run names",
    )  # fmt: skip
    command.add_argument(
        "--groups", action="append", default=[], metavar="FIELD",
        help="bias, of a task: a field of its test rows whose values are groups (gender, region); may be repeated; "
        "else those that the run names",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print what was found as JSON")
    command.set_defaults(command=audit)


def audit(arguments: argparse.Namespace) -> None:
    """Make the audits that are not kept yet, and show them.

    Raises:
        ConfigError: there is no such audit or run, or the run is not finished.
    """
    prepare_environment(ray_address=None)
    from transformers.utils import logging as transformers_logging

    from configs import ConfigError
    from configs.audit import EVERY
    from configs.models import Device
    from orchestration.audits.kinds import audit_run, kinds_named
    from orchestration.audits.opening import open_audited
    from orchestration.audits.settings import AuditSettings
    from orchestration.audits.tables import show_audit
    from orchestration.commands.results import print_result, progress_console, show_each
    from orchestration.comparison.runs import find_run
    from orchestration.outputs.fields import to_fields
    from orchestration.plan.hardware import visible_gpus

    if len(arguments.what) > 2:
        raise ConfigError(f"{' '.join(arguments.what)}: name one audit at most, and one run")
    transformers_logging.disable_progress_bar()
    *names, named = arguments.what
    kinds = kinds_named(names[0] if names else EVERY)
    run = open_audited(find_run(named, run_root=arguments.run_root))
    device: Device = "gpu" if visible_gpus() else "cpu"
    asked = AuditSettings.of(run.config.audit, device=device)
    settings = replace(
        asked,
        rows=arguments.rows or asked.rows,
        pairs=tuple(arguments.pairs) or asked.pairs,
        groups=tuple(arguments.groups) or asked.groups,
    )
    console = progress_console(arguments)
    found = [audit_run(run, kind, settings=settings, console=console) for kind in kinds]
    shown = [to_fields(each) for each in found] if arguments.json else found
    print_result(arguments, shown, lambda to: show_each(show_audit, found, to))
