"""The data of an experiment with a language model once it was screened (`orchestration.inputs.screened_experiment`)."""

from __future__ import annotations

from typing import Any

from configs.schema import DistillConfig
from orchestration.inputs.exchanges import exchange_of_prompts
from orchestration.inputs.screened_experiment import (
    ScreenedExperiment,
    Screening,
    plain_reading,
    plain_sources,
    screened_experiment,
)
from orchestration.inputs.screened_files import ScreenedFiles, ScreenedSource


def screened_data(config: DistillConfig, screening: Screening) -> ScreenedExperiment[DistillConfig]:
    """Screen the splits of prompts, and plain text, of an experiment whose paths are real.

    Raises:
        ConfigError: a part is not installed, or a blocklist cannot be read.
        DataError: a split cannot be read.
    """
    data = config.data
    exchange = exchange_of_prompts(data)
    sources = {name: ScreenedSource(rows, exchange=exchange) for name, rows in data.splits.items()}

    def reading(files: ScreenedFiles) -> DistillConfig:
        changed: dict[str, Any] = {name: files.of(name) for name in data.splits}
        if data.plain is not None:
            changed["plain"] = plain_reading(data.plain, files)
        return config.model_copy(update={"data": data.model_copy(update=changed)})

    return screened_experiment(config, sources | plain_sources(data.plain), reading=reading, screening=screening)
