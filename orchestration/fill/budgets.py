"""The limits of an experiment, compared with what its ledger says was spent over all its starts."""

from __future__ import annotations

from configs import BudgetReached
from configs.budgets import BudgetConfig
from configs.schema import EngineSettings
from orchestration.energy.readings import JOULES_PER_KWH
from orchestration.fill.fill import Budgets
from orchestration.fill.ledger import Counts


def budgets_left(budgets: BudgetConfig, *, spent: Counts, engines: EngineSettings | None) -> Budgets:
    """What a fill with these engines may still spend: teacher tokens of any purpose, and seconds of its engines.

    A fill without engines of its own takes no time of any.
    """
    tokens, hours = budgets.max_teacher_tokens, budgets.max_gpu_hours
    left = None if tokens is None else tokens - spent.tokens
    if hours is None or engines is None:
        return Budgets(left, None)
    return Budgets(left, (hours * 3600 - spent.gpu_seconds) / (engines.count * engines.ranks))


def require_energy(budgets: BudgetConfig, *, spent: Counts, purpose: str) -> None:
    """Refuse to begin, or to go on with, what takes energy when none is left.

    Raises:
        BudgetReached: naming the limit, what was spent of it, and the cure.
    """
    limit = budgets.max_kwh
    if limit is not None and spent.joules >= limit * JOULES_PER_KWH:
        raise BudgetReached(
            f"{spent.joules / JOULES_PER_KWH:.3g} kWh are spent of budgets.max_kwh={limit:g} and {purpose} is not "
            "done: raise it and run again, everything so far is kept"
        )


def require_budget(budgets: BudgetConfig, *, spent: Counts, tokens: int, purpose: str) -> None:
    """Refuse to begin what may take more than is left; `purpose` may take at most `tokens` teacher tokens.

    Raises:
        BudgetReached: naming the limit, what was spent of it, and the cure.
    """
    limit, hours = budgets.max_teacher_tokens, budgets.max_gpu_hours
    if limit is not None and spent.tokens + tokens > limit:
        raise BudgetReached(
            f"{purpose} may take {tokens:,} teacher tokens, and {spent.tokens:,} of "
            f"budgets.max_teacher_tokens={limit:,} are spent: raise it and run again, everything so far is kept"
        )
    if hours is not None and spent.gpu_seconds >= hours * 3600:
        raise BudgetReached(
            f"{spent.gpu_seconds / 3600:.2f} GPU hours are spent of budgets.max_gpu_hours={hours:g} and {purpose} is "
            "still to come: raise it and run again, everything so far is kept"
        )
