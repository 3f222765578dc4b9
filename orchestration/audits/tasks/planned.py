"""What the audits of a task will look at, and what of them is refused before anything is paid for."""

from __future__ import annotations

from configs import DataError, load_task_file
from configs.audit import AuditName, TaskAudits
from configs.task_experiment import TaskDistillConfig
from orchestration.audits.tasks.groups import field_rows, groups_of


def require_groups(config: TaskDistillConfig) -> None:
    """Refuse fields that are not in the test rows, or whose values are no groups; the path of the task is real.

    Raises:
        DataError: naming the key, and the cure.
        ConfigError: the task is none.
    """
    asked = () if config.audit is None else config.audit.groups
    rows = field_rows(load_task_file(config.task), folder=config.task.parent) if asked else {}
    for at, field in enumerate(asked):
        try:
            groups_of(field, rows, numbers=sorted(rows))
        except DataError as error:
            raise DataError(f"audit.groups.{at}: {error}") from error


def planned_task_audits(config: TaskDistillConfig) -> tuple[str, ...]:
    """What a plan says of the audits that follow, a line each; nothing where none does."""
    if config.audit is None or not config.audit.wanted:
        return ()
    return (
        "Audits follow the comparison, of every student beside its teacher; what they find changes no student:",
        *(f"  {name}: {_asks(name, config.audit)}" for name in config.audit.wanted),
    )


def _asks(name: AuditName, asked: TaskAudits) -> str:
    match name:
        case "privacy":
            return f"up to {asked.rows:,} training rows and as many held-out rows are read by each of them"
        case "bias":
            groups = (
                f"the answers by {', '.join(asked.groups)}" if asked.groups else "no groups (audit.groups names some)"
            )
            return f"{groups}; up to {asked.rows:,} test texts about somebody of the other gender"
        case _:
            return "does not apply to students that give labels, which the page will say"
