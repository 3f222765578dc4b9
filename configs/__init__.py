"""What an experiment is: the schema, its loading, the error tree and logging; beside them the shipped YAML files.

Nothing here needs more than pydantic and PyYAML. The names below are imported when they are first asked for: the
command line knows its errors without the schema, which takes longer to build than all else that `distill --help` needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.later import names_found_later

_MODULES = {
    "BudgetReached": "errors",
    "CacheError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "DistillConfig": "schema",
    "DistillError": "errors",
    "DoorError": "errors",
    "EngineError": "errors",
    "Experiment": "loading",
    "ModelError": "errors",
    "RecordError": "errors",
    "TrainingError": "errors",
    "configure_logging": "logs",
    "dump_config": "loading",
    "load_config": "loading",
    "load_experiment": "loading",
    "load_task_file": "loading",
    "quiet_environment": "logs",
    "redact": "secrets",
    "resolve_data_path": "loading",
}
"""Where each public name is defined."""

if TYPE_CHECKING:
    from configs.errors import (
        BudgetReached,
        CacheError,
        ConfigError,
        DataError,
        DistillError,
        DoorError,
        EngineError,
        ModelError,
        RecordError,
        TrainingError,
    )
    from configs.loading import Experiment, dump_config, load_config, load_experiment, load_task_file, resolve_data_path
    from configs.logs import configure_logging, quiet_environment
    from configs.schema import DistillConfig
    from configs.secrets import redact
else:
    __getattr__ = names_found_later(__name__, _MODULES)

__all__ = [
    "BudgetReached",
    "CacheError",
    "ConfigError",
    "DataError",
    "DistillConfig",
    "DistillError",
    "DoorError",
    "EngineError",
    "Experiment",
    "ModelError",
    "RecordError",
    "TrainingError",
    "configure_logging",
    "dump_config",
    "load_config",
    "load_experiment",
    "load_task_file",
    "quiet_environment",
    "redact",
    "resolve_data_path",
]
