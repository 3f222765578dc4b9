"""What every experiment says, whatever it distils: a language model (`configs.schema`) or a task.

Whoever needs no more than this takes an `AnyExperiment`, and so serves both kinds.
"""

from __future__ import annotations

from typing import Protocol

from configs.audit import AskedAudits
from configs.budgets import BudgetConfig, PriceConfig
from configs.runtime import RuntimeConfig
from configs.screening import ContentConfig


class AnyExperiment(Protocol):
    """`DistillConfig` and `TaskDistillConfig`."""

    @property
    def name(self) -> str:
        """What the experiment is called."""
        ...

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and with what it runs."""
        ...

    @property
    def budgets(self) -> BudgetConfig:
        """Its limits."""
        ...

    @property
    def content(self) -> ContentConfig | None:
        """What content is not wanted."""
        ...

    @property
    def prices(self) -> PriceConfig | None:
        """What things cost."""
        ...

    @property
    def audit(self) -> AskedAudits | None:
        """The audits that a run of it ends with."""
        ...

    def digest(self) -> str:
        """SHA-256 (hex) of everything that changes its numbers."""
        ...
