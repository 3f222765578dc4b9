"""Training data with canaries behind them (`configs.audit`): a file that is read in place of the one that is named.

Nothing is written into anybody's files. The rows of the split keep their numbers and their order, canaries follow. They
are planted after screening, which would take a secret for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import ConfigError, DataError
from configs.data import DataConfig, SplitConfig
from configs.regular_files import UnreadableFileError
from configs.schema import DistillConfig
from evaluation.side_effects.canaries import Canary, canaries_of
from orchestration.inputs.made_once import make_once
from orchestration.inputs.models import ModelFiles, is_at_hand, materialise
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.rows import SET_ASIDE, split_rows
from orchestration.inputs.screened_files import file_of
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.kept import file_sha256

FORMAT = 1
"""Raised by hand when the same settings plant other rows."""


@dataclass(frozen=True, slots=True)
class Planted:
    """An experiment whose training data have canaries from row `first` on; none where it plants nothing."""

    config: DistillConfig
    canaries: tuple[Canary, ...] = ()
    first: int = 0

    @property
    def rows(self) -> int:
        """How many rows were planted."""
        return sum(canary.repeats for canary in self.canaries)

    @property
    def said(self) -> tuple[str, ...]:
        """What a reader of the data has to know, a line each."""
        if not self.canaries:
            return ()
        assert self.config.canaries is not None
        wanted, places = self.config.canaries, dict.fromkeys(each.place for each in self.canaries)
        times = ", ".join(map(str, wanted.repeats))
        return (
            f"data.train: {self.rows:,} rows with canaries stand behind its {self.first:,} rows: {wanted.count} "
            f"made-up secrets for each of {times} repeats, in {' and in '.join(f'{place}s' for place in places)}, each "
            f"of {wanted.space:,} that there are.",
        )

    def require_readable(self, prompts: PromptSet, *, reader: ModelFiles) -> None:
        """Refuse canaries that the teacher cannot read, or whose secrets a tokenizer cannot write: its, or a student's.

        Of a student's own model that is not on this machine yet nothing is known.

        Raises:
            ConfigError: naming what, and the cure.
        """
        if not self.canaries:
            return
        require_writable(self.canaries, reader)
        models_root = self.config.runtime.models_root
        for name, student in self.config.students.items():
            source = student.init.model
            if source is not None and is_at_hand(source):
                own = materialise(source, models_root=models_root)
                require_writable(self.canaries, own, key=f"students.{name}.init.model: ")
        lost = [row for row in prompts.rejected if row.split == "train" and row.row >= self.first]
        if lost:
            raise ConfigError(
                f"audit.canaries: {len(lost):,} of {self.rows:,} planted rows cannot be used ({lost[0].reason}): raise "
                "data.max_prompt_tokens and generation.max_new_tokens, or remove the block"
            )


def require_writable(canaries: tuple[Canary, ...], files: ModelFiles, *, key: str = "") -> None:
    """Refuse secrets that a tokenizer cannot write; `key` is where the configuration names it, if it is said.

    Raises:
        ConfigError: naming one, and what comes of it.
    """
    tokenizer = files.tokenizer
    for canary in canaries:
        read = str(tokenizer.decode(tokenizer.encode(canary.statement, add_special_tokens=False)))
        if canary.secret not in read:
            raise ConfigError(
                f"audit.canaries: {key}the tokenizer of {files.label} writes {canary.statement!r} as {read!r}: set "
                "audit.canaries.alphabet to characters that it has, or remove the block"
            )


def planted_root(config: DistillConfig) -> Path:
    """Where training data with canaries lie."""
    return config.runtime.run_root / "planted"


def planted_data(config: DistillConfig, *, root: Path, made: Path | None = None) -> Planted:
    """Write the training data of an experiment, whose paths are real, with its canaries below `root`.

    What is there below `made` already is taken from there; nothing is read where nothing is planted.

    Raises:
        DataError: the split cannot be read.
    """
    source = config.data.train
    if config.canaries is None or source is None:
        return Planted(config)
    canaries = canaries_of(config.canaries, config.canary_places)
    name = _digest(config, source)[:16]
    there = (made or root) / name
    folder = make_once(
        there if there.is_dir() else root / name,
        lambda target: _write(target / file_of("train"), source, canaries, config.data),
    )
    train = SplitConfig(path=folder / file_of("train"))
    data = config.data.model_copy(update={"train": train})
    planted = sum(canary.repeats for canary in canaries)
    first = sum(1 for _ in split_rows(train, split="train")) - planted
    return Planted(config.model_copy(update={"data": data}), canaries, first)


def _digest(config: DistillConfig, source: SplitConfig) -> str:
    assert config.canaries is not None
    fields = ("prompt_field", "response_field", "messages_field")
    try:
        file = None if source.path is None else file_sha256(source.path)
    except (OSError, UnreadableFileError) as error:
        raise DataError(f"data.train cannot be read ({error}): name a file that can be read") from error
    return digest_of(
        planted=FORMAT,
        file=file,
        rows=source.model_dump(mode="json", exclude={"path"}),
        canaries=config.canaries.model_dump(mode="json"),
        places=config.canary_places,
        fields={name: getattr(config.data, name) for name in fields},
    )


def _write(path: Path, source: SplitConfig, canaries: tuple[Canary, ...], data: DataConfig) -> None:
    with path.open("w", encoding="utf-8") as file:
        for _, row in split_rows(source, split="train"):
            file.write(json.dumps({SET_ASIDE: row} if isinstance(row, str) else row, default=str) + "\n")
        for row in _rows(canaries, data):
            file.write(json.dumps(row) + "\n")


def _rows(canaries: tuple[Canary, ...], data: DataConfig) -> Iterator[dict[str, Any]]:
    """Rows of canaries as those of the data are, each with a gold answer where there are any."""
    for canary in canaries:
        for prompt, answer in canary.rows:
            if data.messages_field is not None:
                turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
                yield {data.messages_field: turns}
            else:
                gold = {} if data.response_field is None else {data.response_field: answer}
                yield {data.prompt_field: prompt} | gold
