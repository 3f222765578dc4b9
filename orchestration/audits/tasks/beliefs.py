"""What models with a task head believe of texts, unit by unit; each is asked once for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from configs.models import Device
from configs.task import TaskConfig
from evaluation.tasks.examples import Example
from orchestration.audits.tasks.finished import HeadModel
from orchestration.inputs.task_examples import Beliefs, make_examples
from orchestration.inputs.task_texts import ReadExample, decision_labels, read_with
from student_train.label_logits import label_logits
from student_train.models.task_model import longest_text
from student_train.models.task_tokenizer import load_task_tokenizer

Logits = Float32[np.ndarray, "U C"]


@dataclass(frozen=True, slots=True)
class LabelBeliefs:
    """Asks models about the texts of a `task`, on `device`."""

    task: TaskConfig
    device: Device
    _tokenizers: dict[Path, PreTrainedTokenizerBase] = field(default_factory=dict)
    _known: dict[Path, dict[ReadExample, Logits]] = field(default_factory=dict)

    def read(self, model: HeadModel, examples: Sequence[Example]) -> list[ReadExample]:
        """The examples as this model reads them."""
        if model.directory not in self._tokenizers:
            self._tokenizers[model.directory] = load_task_tokenizer(model.directory)
        tokenizer = self._tokenizers[model.directory]
        longest = min(model.max_tokens, longest_text(model.directory))
        return read_with(tokenizer, examples, task=self.task, max_tokens=longest)

    def of_read(self, model: HeadModel, read: Sequence[ReadExample]) -> list[Logits]:
        """The logits of a model at the units of examples that were read by its tokenizer, labels as the task has them.

        Raises:
            ModelError: it cannot be loaded.
        """
        known = self._known.setdefault(model.directory, {})
        new = [each for each in dict.fromkeys(read) if each not in known]
        if new:
            made = make_examples(self.task.kind, decision_labels(self.task), new).examples
            found: list[NDArray[np.float32]] = label_logits(
                model.directory, made, labels=model.labels or None, device=self.device
            )
            if model.columns:
                found = [each[:, list(model.columns)] for each in found]
            known |= dict(zip(new, found, strict=True))
        return [known[each] for each in read]

    def of(self, model: HeadModel, examples: Sequence[Example]) -> list[Beliefs]:
        """What a model believes of examples.

        Raises:
            ModelError: it cannot be loaded.
        """
        read = self.read(model, examples)
        return [Beliefs(one.units, each) for one, each in zip(read, self.of_read(model, read), strict=True)]
