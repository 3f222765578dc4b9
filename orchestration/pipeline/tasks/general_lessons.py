"""What general stages learn from, as files: windows of plain text, and texts of a task's sets that are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.task import TaskConfig
from configs.task_features import StateName
from configs.task_stages import PLAIN, TaskStageConfig
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.general_texts import PlainTexts, Tokens, hideable, window_tokens
from orchestration.inputs.task_texts import read_with
from orchestration.pipeline.tasks.lessons import Reader, TaskLesson
from student_train.feed.examples import ExampleSet


@dataclass(frozen=True, slots=True)
class GeneralLessons:
    """Makes the lessons of general stages below `folder`, each once. Its readers say how long windows are."""

    texts: PlainTexts
    sets: TaskSets
    task: TaskConfig
    folder: Path
    _made: dict[tuple[str, int, tuple[str, ...]], TaskLesson] = field(default_factory=dict)

    def of(self, stage: TaskStageConfig, reader: Reader, *, states: tuple[StateName, ...] = ()) -> TaskLesson:
        """The lesson of a stage for a student that reads in this way; no states are kept for it.

        Raises:
            DataError: nothing is left to learn from.
        """
        assert not states
        key = (reader.name, reader.max_tokens, stage.data)
        if key not in self._made:
            self._made[key] = self._make(stage.data, reader)
        return self._made[key]

    def _make(self, names: tuple[str, ...], reader: Reader) -> TaskLesson:
        notes: list[str] = []
        read = {name: list(self._read(name, reader, notes=notes)) for name in names}
        train = hideable(reader.tokenizer, (text for texts in read.values() for text in texts), name="-".join(names))
        held_out = window_tokens(reader.tokenizer, self.texts.dev, max_tokens=reader.max_tokens)
        dev = hideable(reader.tokenizer, held_out, name=f"{PLAIN}.dev")
        lost = sum(map(len, read.values())) - len(train)
        if lost:
            notes.append(f"{'-'.join(names)}: {lost:,} texts are left out that have no token which could be hidden")
        return TaskLesson(
            self._saved("-".join(names), train),
            self._saved(f"{PLAIN}-dev", dev),
            train.digest,
            dev.digest,
            len(train),
            {name: len(texts) for name, texts in read.items()},
            tuple(notes),
        )

    def _read(self, name: str, reader: Reader, *, notes: list[str]) -> Iterator[Tokens]:
        if name == PLAIN:
            yield from window_tokens(reader.tokenizer, self.texts.train, max_tokens=reader.max_tokens)
            return
        found = read_with(reader.tokenizer, self.sets.sets[name], task=self.task, max_tokens=reader.max_tokens)
        cut = sum(one.cut for one in found)
        if cut:
            notes.append(
                f"{name}: {cut:,} of {len(found):,} texts are cut to data.plain.max_tokens={reader.max_tokens}"
            )
        for one in found:
            yield np.array(one.token_ids, dtype=np.int32), one.split

    def _saved(self, name: str, examples: ExampleSet) -> Path:
        path = self.folder / f"general-{name}-{examples.digest[:16]}.safetensors"
        examples.save(path)
        return path
