"""Where and with what an experiment runs: what does not go together is refused, places are kept as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import schema
from configs.runtime import EngineSettings, RuntimeConfig, TrainingSettings


@pytest.mark.parametrize("country", ["Germany", "de", "DE", "DEUX"])
def test_a_country_has_three_letters(country: str) -> None:
    with pytest.raises(ValidationError, match=f"energy_country={country} is not a country .* such as DEU"):
        RuntimeConfig(energy_country=country)
    assert RuntimeConfig(energy_country="DEU").energy_country == "DEU"


@pytest.mark.parametrize(("offload", "least"), [("none", 0), ("optimizer", 1), ("all", 3)])
def test_what_is_offloaded_has_to_be_sharded(offload: str, least: int) -> None:
    for stage in range(4):
        settings = {"offload": offload, "zero_stage": stage}
        if stage >= least:
            assert TrainingSettings.model_validate(settings).zero_stage == stage
        else:
            with pytest.raises(ValidationError, match=f"offload={offload} needs zero_stage of at least {least}"):
                TrainingSettings.model_validate(settings)


def test_an_engine_of_one_stage_is_written_as_before_there_were_stages() -> None:
    said = RuntimeConfig().model_dump(mode="json")
    assert "pipeline_parallel" not in said["teacher_engine"] and "pipeline_parallel" not in said["student_engine"]
    deep = RuntimeConfig.model_validate({"teacher_engine": {"tensor_parallel": 4, "pipeline_parallel": 2}})
    assert deep.model_dump(mode="json")["teacher_engine"]["pipeline_parallel"] == 2
    assert deep.teacher_engine.ranks == 8 and EngineSettings().ranks == 1


def test_a_students_engine_is_not_a_pipeline() -> None:
    with pytest.raises(ValidationError, match=r"student_engine\.pipeline_parallel=2, but .* set it to 1, and split"):
        RuntimeConfig.model_validate({"student_engine": {"pipeline_parallel": 2}})


@pytest.mark.parametrize("root", ["data/cache", "s3://bucket/cache"])
def test_a_cache_lies_in_a_folder_or_in_an_object_store(root: str) -> None:
    kept = RuntimeConfig.model_validate({"cache_root": root})
    assert kept.model_dump(mode="json")["cache_root"] == root
    assert isinstance(kept.cache_root, Path) == ("://" not in root)


def test_the_schema_of_an_experiment_has_these_blocks() -> None:
    assert schema.EngineSettings is EngineSettings
    assert (schema.RuntimeConfig, schema.TrainingSettings) == (RuntimeConfig, TrainingSettings)
