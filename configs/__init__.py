"""What an experiment is: the schema, its loading, the error tree and logging; beside them the shipped YAML files.

Nothing here needs more than pydantic and PyYAML.
"""

from __future__ import annotations

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
