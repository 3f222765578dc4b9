"""The data of an experiment with a language model once it was screened (`orchestration.inputs.screened_files`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.data import DataConfig, SplitConfig
from configs.schema import DistillConfig
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_files import Say, ScreenedFiles, ScreenedSource, ScreenSettings, screen_files


@dataclass(frozen=True, slots=True)
class ScreenedData:
    """An experiment that reads screened files, and what was found in each split."""

    config: DistillConfig
    splits: Mapping[str, Screened]


def screened_data(config: DistillConfig, *, root: Path, say: Say, made: Path | None = None) -> ScreenedData:
    """Screen the data of an experiment, whose paths are real, below `root`; nothing is read where nobody asks for it.

    What is there below `made` already is taken from there.

    Raises:
        ConfigError: a part is not installed, or a blocklist cannot be read.
        DataError: a split cannot be read.
    """
    sources = {name: ScreenedSource(source) for name, source in _sources(config.data).items()}
    files = screen_files(sources, ScreenSettings(config.privacy, config.content), root=root, say=say, made=made)
    return ScreenedData(config, {}) if files is None else ScreenedData(_reading(config, files), files.splits)


def _sources(data: DataConfig) -> dict[str, SplitConfig]:
    """The splits of prompts and of plain text, by their names."""
    plain = {} if data.plain is None else {"plain.train": data.plain.train, "plain.dev": data.plain.dev}
    return {**data.splits, **plain}


def _reading(config: DistillConfig, files: ScreenedFiles) -> DistillConfig:
    """The experiment with the screened files in place of its data."""
    changed: dict[str, Any] = {name: files.of(name) for name in config.data.splits}
    if config.data.plain is not None:
        plain = {split: files.of(f"plain.{split}") for split in ("train", "dev")}
        changed["plain"] = config.data.plain.model_copy(update=plain)
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})
